"""The published facts of public weight sets, one row each; `weight_sets` makes values of them.

Rows stand within an architecture in the order in which they are offered.
"""

from __future__ import annotations

from typing import NamedTuple


class HubRow(NamedTuple):
    """A set of timm by its name and tag on the Hugging Face hub.

    crop_pct: the resolution's share of the side that the image is resized to. test: resolution, crop_pct, top-1 and
    top-5 where timm's configuration names another resolution for tests.
    """

    name: str
    tag: str
    resolution: int
    crop_pct: float
    top1: float | None = None
    top5: float | None = None
    test: tuple[int, float, float, float] | None = None


class HubGroup(NamedTuple):
    """Sets of timm with one kind of preprocessing; squash: the image is resized to a square before it is cropped."""

    rows: tuple[HubRow, ...]
    norm: str = "imagenet"
    interpolation: str = "bicubic"
    squash: bool = False


class TorchvisionRow(NamedTuple):
    """A set of torchvision; resize: the side that the image is resized to."""

    name: str
    file: str
    resolution: int
    resize: int
    top1: float
    top5: float
    norm: str = "imagenet"
    interpolation: str = "bicubic"
    tag: str = "torchvision"
    bn_eps: float = 1e-3
    bn_momentum: float = 0.1


class KerasRow(NamedTuple):
    """A set of Keras, with its classifier, by the MD5 digest of its file."""

    name: str
    md5: str
    top1: float
    top5: float


TIMM = (
    HubGroup(
        rows=(
            HubRow("tf_efficientnet_b0", "aa_in1k", 224, 0.875, 76.882, 93.27),
            HubRow("tf_efficientnet_b0", "in1k", 224, 0.875, 76.542, 93.008),
            HubRow("tf_efficientnet_b0", "ns_jft_in1k", 224, 0.875, 78.68, 94.372),
            HubRow("tf_efficientnet_b1", "aa_in1k", 240, 0.882, 78.84, 94.202),
            HubRow("tf_efficientnet_b1", "in1k", 240, 0.882, 78.546, 94.096),
            HubRow("tf_efficientnet_b1", "ns_jft_in1k", 240, 0.882, 81.388, 95.756),
            HubRow("tf_efficientnet_b2", "aa_in1k", 260, 0.89, 80.074, 94.906),
            HubRow("tf_efficientnet_b2", "in1k", 260, 0.89, 79.612, 94.714),
            HubRow("tf_efficientnet_b2", "ns_jft_in1k", 260, 0.89, 82.412, 96.238),
            HubRow("tf_efficientnet_b3", "aa_in1k", 300, 0.904, 81.648, 95.724),
            HubRow("tf_efficientnet_b3", "in1k", 300, 0.904, 80.878, 95.308),
            HubRow("tf_efficientnet_b3", "ns_jft_in1k", 300, 0.904, 84.054, 96.926),
            HubRow("tf_efficientnet_b4", "aa_in1k", 380, 0.922, 83.04, 96.298),
            HubRow("tf_efficientnet_b4", "in1k", 380, 0.922, 82.598, 96.132),
            HubRow("tf_efficientnet_b4", "ns_jft_in1k", 380, 0.922, 85.156, 97.482),
            HubRow("tf_efficientnet_b5", "aa_in1k", 456, 0.934, 83.696, 96.712),
            HubRow("tf_efficientnet_b5", "ra_in1k", 456, 0.934, 83.834, 96.764),
            HubRow("tf_efficientnet_b5", "in1k", 456, 0.934, 83.17, 96.534),
            HubRow("tf_efficientnet_b5", "ns_jft_in1k", 456, 0.934, 86.096, 97.744),
            HubRow("tf_efficientnet_b6", "aa_in1k", 528, 0.942, 84.124, 96.89),
            HubRow("tf_efficientnet_b6", "ns_jft_in1k", 528, 0.942, 86.476, 97.864),
            HubRow("tf_efficientnet_b7", "aa_in1k", 600, 0.949, 84.424, 96.908),
            HubRow("tf_efficientnet_b7", "ra_in1k", 600, 0.949, 84.926, 97.22),
            HubRow("tf_efficientnet_b7", "ns_jft_in1k", 600, 0.949, 86.85, 98.08),
            HubRow("tf_efficientnet_b8", "ra_in1k", 672, 0.954, 85.344, 97.392),
            HubRow("tf_efficientnet_l2", "ns_jft_in1k", 800, 0.96, 88.36, 98.656),
            HubRow("tf_efficientnet_l2", "ns_jft_in1k_475", 475, 0.936, 88.246, 98.554),
            HubRow("tf_efficientnetv2_b0", "in1k", 192, 0.875, 76.876, 93.184, (224, 0.875, 78.386, 94.034)),
            HubRow("tf_efficientnetv2_b1", "in1k", 192, 0.882, 77.934, 93.822, (240, 0.882, 79.518, 94.71)),
            HubRow("tf_efficientnetv2_b2", "in1k", 208, 0.89, 79.208, 94.602, (260, 0.89, 80.226, 95.01)),
            HubRow("tf_efficientnetv2_b3", "in1k", 240, 0.904, 80.708, 95.178, (300, 0.904, 81.96, 95.78)),
        ),
    ),
    HubGroup(
        rows=(
            HubRow("tf_efficientnet_b0", "ap_in1k", 224, 0.875, 77.1, 93.258),
            HubRow("tf_efficientnet_b1", "ap_in1k", 240, 0.882, 79.288, 94.316),
            HubRow("tf_efficientnet_b2", "ap_in1k", 260, 0.89, 80.3, 95.032),
            HubRow("tf_efficientnet_b3", "ap_in1k", 300, 0.904, 81.842, 95.614),
            HubRow("tf_efficientnet_b4", "ap_in1k", 380, 0.922, 83.246, 96.392),
            HubRow("tf_efficientnet_b5", "ap_in1k", 456, 0.934, 84.258, 96.984),
            HubRow("tf_efficientnet_b6", "ap_in1k", 528, 0.942, 84.794, 97.138),
            HubRow("tf_efficientnet_b7", "ap_in1k", 600, 0.949, 85.132, 97.256),
            HubRow("tf_efficientnet_b8", "ap_in1k", 672, 0.954, 85.358, 97.298),
            HubRow("tf_efficientnet_lite0", "in1k", 224, 0.875, 74.846, 92.18),
            HubRow("tf_efficientnet_lite1", "in1k", 240, 0.882, 76.674, 93.232),
            HubRow("tf_efficientnet_lite2", "in1k", 260, 0.89, 77.47, 93.756),
            HubRow("tf_efficientnet_es", "in1k", 224, 0.875, 76.608, 93.176),
            HubRow("tf_efficientnet_em", "in1k", 240, 0.882, 78.128, 94.052),
            HubRow("tf_efficientnet_el", "in1k", 300, 0.904, 80.246, 95.122),
            HubRow("tf_efficientnetv2_b3", "in21k", 240, 0.904),
            HubRow("tf_efficientnetv2_s", "in1k", 300, 1.0, 83.162, 96.334, (384, 1.0, 83.9, 96.702)),
            HubRow("tf_efficientnetv2_s", "in21k_ft_in1k", 300, 1.0, 83.348, 96.71, (384, 1.0, 84.332, 97.274)),
            HubRow("tf_efficientnetv2_s", "in21k", 300, 1.0),
        ),
        norm="half",
    ),
    HubGroup(
        rows=(
            HubRow("tf_efficientnet_lite3", "in1k", 300, 0.904, 79.808, 94.908),
            HubRow("tf_efficientnet_lite4", "in1k", 380, 0.92, 81.54, 95.668),
        ),
        norm="half",
        interpolation="bilinear",
    ),
    HubGroup(
        rows=(
            HubRow("tf_efficientnetv2_b3", "in21k_ft_in1k", 240, 0.9, 81.078, 95.92, (300, 0.9, 82.634, 96.628)),
            HubRow("tf_efficientnetv2_m", "in1k", 384, 1.0, 84.554, 97.058, (480, 1.0, 85.208, 97.358)),
            HubRow("tf_efficientnetv2_m", "in21k_ft_in1k", 384, 1.0, 84.768, 97.434, (480, 1.0, 86.014, 97.956)),
            HubRow("tf_efficientnetv2_m", "in21k", 384, 1.0),
            HubRow("tf_efficientnetv2_l", "in1k", 384, 1.0, 85.202, 97.274, (480, 1.0, 85.66, 97.472)),
            HubRow("tf_efficientnetv2_l", "in21k_ft_in1k", 384, 1.0, 85.846, 97.766, (480, 1.0, 86.802, 98.124)),
            HubRow("tf_efficientnetv2_l", "in21k", 384, 1.0),
            HubRow("tf_efficientnetv2_xl", "in21k_ft_in1k", 384, 1.0, 85.562, 97.456, (512, 1.0, 86.754, 98.014)),
            HubRow("tf_efficientnetv2_xl", "in21k", 384, 1.0),
        ),
        norm="half",
        squash=True,
    ),
    HubGroup(
        rows=(
            HubRow("efficientnet_b0", "ra_in1k", 224, 0.875, 77.698, 93.538),
            HubRow("efficientnet_b1", "ft_in1k", 224, 0.875, 77.592, 93.636, (256, 1.0, 78.806, 94.346)),
            HubRow("efficientnet_b2", "ra_in1k", 256, 0.875, 79.324, 94.582, (288, 1.0, 80.612, 95.32)),
            HubRow("efficientnet_b3", "ra2_in1k", 288, 0.875, 81.472, 95.696, (320, 1.0, 82.296, 96.124)),
            HubRow("efficientnet_b4", "ra2_in1k", 320, 0.875, 82.658, 96.134, (384, 1.0, 83.468, 96.574)),
            HubRow("efficientnet_b5", "sw_in12k", 416, 0.95),
            HubRow("efficientnet_lite0", "ra_in1k", 224, 0.875, 75.488, 92.508),
            HubRow("efficientnet_es", "ra_in1k", 224, 0.875, 78.1, 93.928),
            HubRow("efficientnet_em", "ra2_in1k", 240, 0.882, 79.256, 94.794),
            HubRow("efficientnet_el", "ra_in1k", 300, 0.904, 81.308, 95.538),
        ),
    ),
    HubGroup(
        rows=(HubRow("efficientnet_b5", "sw_in12k_ft_in1k", 448, 1.0, 85.894, 97.742),),
        squash=True,
    ),
    HubGroup(
        rows=(
            HubRow("efficientnet_b0", "ra4_e3600_r224_in1k", 224, 0.9, 78.568, 94.34, (256, 1.0, 79.364, 94.754)),
            HubRow("efficientnet_b1", "ra4_e3600_r240_in1k", 240, 0.9, 80.404, 95.152, (288, 1.0, 81.444, 95.698)),
        ),
        norm="half",
    ),
)
"""timm's sets (huggingface/pytorch-image-models 1.0.31): `tf_` ported from TensorFlow, the others its own trainings.

Accuracies are those of its results-imagenet.csv. Left out, as no shipped architecture has their blocks or widths:
pruned, cc (CondConv), x, h, gc, rw and test networks.
"""

TORCHVISION = (
    TorchvisionRow("efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc", 224, 256, 77.692, 93.532, bn_eps=1e-5),
    TorchvisionRow("efficientnet_b1", "efficientnet_b1_rwightman-bac287d4", 240, 256, 78.642, 94.186, bn_eps=1e-5),
    TorchvisionRow("efficientnet_b1", "efficientnet_b1-c27df63c", 240, 255, 79.838, 94.934,
                   interpolation="bilinear", tag="torchvision_v2", bn_eps=1e-5),
    TorchvisionRow("efficientnet_b2", "efficientnet_b2_rwightman-c35c1473", 288, 288, 80.608, 95.31, bn_eps=1e-5),
    TorchvisionRow("efficientnet_b3", "efficientnet_b3_rwightman-b3899882", 300, 320, 82.008, 96.054, bn_eps=1e-5),
    TorchvisionRow("efficientnet_b4", "efficientnet_b4_rwightman-23ab8bcd", 380, 384, 83.384, 96.594, bn_eps=1e-5),
    TorchvisionRow("efficientnet_b5", "efficientnet_b5_lukemelas-1a07897c", 456, 456, 83.444, 96.628, bn_momentum=0.01),
    TorchvisionRow("efficientnet_b6", "efficientnet_b6_lukemelas-24a108a5", 528, 528, 84.008, 96.916, bn_momentum=0.01),
    TorchvisionRow("efficientnet_b7", "efficientnet_b7_lukemelas-c5b4e57e", 600, 600, 84.122, 96.908, bn_momentum=0.01),
    TorchvisionRow("efficientnetv2_s", "efficientnet_v2_s-dd5fe13b", 384, 384, 84.228, 96.878, "imagenet", "bilinear"),
    TorchvisionRow("efficientnetv2_m", "efficientnet_v2_m-dc08266a", 480, 480, 85.112, 97.156, "imagenet", "bilinear"),
    TorchvisionRow("efficientnetv2_l", "efficientnet_v2_l-59c71312", 480, 480, 85.808, 97.788, "half"),
)  # fmt: skip
"""torchvision's sets (its weight enums, 0.28); B0 to B4 are of timm's training, B5 to B7 and V2-L from TensorFlow."""

KERAS = (
    KerasRow("efficientnet_b0", "902e53a9f72be733fc0bcb005b3ebbac", 77.1, 93.3),
    KerasRow("efficientnet_b1", "1d254153d4ab51201f1646940f018540", 79.1, 94.4),
    KerasRow("efficientnet_b2", "b15cce36ff4dcbd00b6dd88e7857a6ad", 80.1, 94.9),
    KerasRow("efficientnet_b3", "ffd1fdc53d0ce67064dc6a9c7960ede0", 81.6, 95.7),
    KerasRow("efficientnet_b4", "18c95ad55216b8f92d7e70b3a046e2fc", 82.9, 96.4),
    KerasRow("efficientnet_b5", "ace28f2a6363774853a83a0b21b9421a", 83.6, 96.7),
    KerasRow("efficientnet_b6", "165f6e37dce68623721b423839de8be5", 84.0, 96.8),
    KerasRow("efficientnet_b7", "8c03f828fec3ef71311cd463b6759d99", 84.3, 97.0),
    KerasRow("efficientnetv2_b0", "21ecbf6da12460d5c40bb2f29ceb2188", 78.7, 94.3),
    KerasRow("efficientnetv2_b1", "069f0534ff22adf035c89e2d9547a9dc", 79.8, 95.0),
    KerasRow("efficientnetv2_b2", "424e49f28180edbde1e94797771950a7", 80.5, 95.1),
    KerasRow("efficientnetv2_b3", "1f1fc43bd98a6e4fd8fdfd551e02c7a0", 82.0, 95.8),
    KerasRow("efficientnetv2_s", "e1d88a8495beba45748fedd0cecbe016", 83.9, 96.7),
    KerasRow("efficientnetv2_m", "a3bf6aa3276309f4fc6a34aa114c95cd", 85.3, 97.4),
    KerasRow("efficientnetv2_l", "27e6d408b53c7ebc868fefa357689935", 85.7, 97.5),
)
"""keras.applications' sets (keras 3.15); accuracies from keras.io's table of applications."""

TENSORFLOW = {
    "original_aa": ("ckptsaug/{}", {
        "b0": 77.1, "b1": 79.1, "b2": 80.1, "b3": 81.6, "b4": 82.9, "b5": 83.6, "b6": 84.0, "b7": 84.3}),
    "original_ra": ("randaug/{}-randaug", {"b5": 83.7, "b7": 84.7, "b8": 85.4}),
    "original": ("ckpts/{}", {"b0": 76.7, "b1": 78.7, "b2": 79.8, "b3": 81.1, "b4": 82.5, "b5": 83.1}),
    "original_ap": ("advprop/{}", {
        "b0": 77.6, "b1": 79.6, "b2": 80.5, "b3": 81.9, "b4": 83.3, "b5": 84.3, "b6": 84.8, "b7": 85.2, "b8": 85.5}),
    "original_ns": ("noisystudent/noisy_student_{}", {
        "b0": 78.8, "b1": 81.5, "b2": 82.4, "b3": 84.1, "b4": 85.3, "b5": 86.1, "b6": 86.4, "b7": 86.9, "l2": 88.4}),
    "original_ns_475": ("noisystudent/noisy_student_{}_475", {"l2": 88.2}),
}  # fmt: skip
"""The authors' checkpoints, tag -> (file, top-1 by size): tensorflow/tpu models/official/efficientnet/README.md, the
table that stands there since July 2020; B8 with RandAugment, which that one lacks, from the one before."""

LUKEMELAS = {
    "lukemelas": (
        "efficientnet-b0-355c32eb", "efficientnet-b1-f1951068", "efficientnet-b2-8bb594d6", "efficientnet-b3-5fb5a3c3",
        "efficientnet-b4-6ed6700e", "efficientnet-b5-b6417697", "efficientnet-b6-c76e70fd", "efficientnet-b7-dcc49843",
    ),
    "lukemelas_ap": (
        "adv-efficientnet-b0-b64d5a18", "adv-efficientnet-b1-0f3ce85a", "adv-efficientnet-b2-6e9d97e5",
        "adv-efficientnet-b3-cdd7c0f4", "adv-efficientnet-b4-44fb3a87", "adv-efficientnet-b5-86493f6b",
        "adv-efficientnet-b6-ac80338e", "adv-efficientnet-b7-4652b6dd", "adv-efficientnet-b8-22a8fe65",
    ),
}  # fmt: skip
"""EfficientNet-PyTorch's files of B0, B1, ... (lukemelas/EfficientNet-PyTorch efficientnet_pytorch/utils.py).

Ported from TensorFlow's checkpoints with AutoAugment, as of July 2019, and with AdvProp. Its README prints the paper's
first version beside them, no accuracy of these files.
"""
