"""Fast CPU operators behind torch's own modules, each with the plain torch twin that it is tested against."""

from trifold.kernels.choice import convolve, hooked, middle, normalise, normalise_excite
from trifold.kernels.depthwise import depthwise, depthwise_input_grad, depthwise_weight_grad
from trifold.kernels.excite import norm_act_excite
from trifold.kernels.library import instruction_set, using
from trifold.kernels.mbconv import mbconv_middle
from trifold.kernels.norm_act import norm_act

__all__ = [
    "convolve",
    "depthwise",
    "depthwise_input_grad",
    "depthwise_weight_grad",
    "hooked",
    "instruction_set",
    "mbconv_middle",
    "middle",
    "norm_act",
    "norm_act_excite",
    "normalise",
    "normalise_excite",
    "using",
]
