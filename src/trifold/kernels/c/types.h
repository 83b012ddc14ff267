/* Includes BODY for float and for double; see instances.h. */

#define REAL float
#define INTEGER int32_t
#define KIND float
#include "lanes.h"
#include BODY
#undef REAL
#undef INTEGER
#undef KIND

#define REAL double
#define INTEGER int64_t
#define KIND double
#include "lanes.h"
#include BODY
#undef REAL
#undef INTEGER
#undef KIND
