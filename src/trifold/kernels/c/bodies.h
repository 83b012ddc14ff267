#include "depthwise_body.h"
#include "norm_act_body.h"
#include "mbconv_body.h"
