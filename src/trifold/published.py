"""What the papers print, number by number, each with its table; nothing in this file is computed.

Unless another source is named, a number is from EfficientNet (Tan & Le, 1905.11946) version 5. Accuracies are percent
on ImageNet's validation set, parameters are in millions, FLOPS are 10^9 multiply-adds, ratios are as printed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A row of Table 1 as version 5 prints it; resolution is that of the stage's input, in pixels."""

    stage: int
    operator: str
    resolution: int
    channels: int
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A row of Table 2 without its accuracy, the same in every version."""

    name: str
    parameters_m: float
    flops_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Accuracy of one network in one version; top5 is None where no verified copy of it is at hand."""

    name: str
    top1: float
    top5: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactAccuracy:
    """A column of Table 8 (appendix): accuracy on ImageNet's validation and on its test set."""

    name: str
    val_top1: float
    test_top1: float
    val_top5: float
    test_top5: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A network of Table 2 beside the EfficientNet of its group (`against`)."""

    name: str
    against: str
    top1: float
    top5: float
    parameters_m: float
    parameters_ratio: float
    flops_b: float | None
    flops_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledNet:
    """A row of Table 3 or Table 7: a baseline, its multipliers, FLOPS and top-1.

    printed: whether the row names its multipliers. Table 3 prints the compound multipliers for MobileNetV1 alone and
    calls the other two rows "compound scale".
    """

    baseline: str
    depth: float
    width: float
    resolution: float
    flops_b: float
    top1: float
    printed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A half of Table 4: a rival and an EfficientNet of its accuracy; seconds for one image on one core."""

    rival: str
    rival_top1: float
    rival_latency_s: float
    name: str
    top1: float
    latency_s: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A half-row of Table 5; comparison is "public" or "reported". Parameters leave the classifier out."""

    dataset: str
    comparison: str
    rival: str
    rival_accuracy: float
    rival_parameters_m: float | None
    name: str
    accuracy: float
    parameters_m: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A row of Table 6."""

    name: str
    train: int
    test: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthSweep:
    """A curve of Figure 4: the depth and resolution multipliers of the baseline whose width is swept."""

    depth: float
    resolution: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyNet:
    """A TinyNet: multipliers of B0's depth and width, and its resolution in pixels."""

    name: str
    depth: float
    width: float
    resolution: int


PAPER_GROWTH = 2.0
"""What the paper asks of alpha * beta^2 * gamma^2, about (§3.3, eq. 3)."""

TABLE1 = (
    StageRow(stage=1, operator="Conv3x3", resolution=224, channels=32, layers=1),
    StageRow(stage=2, operator="MBConv1, k3x3", resolution=112, channels=16, layers=1),
    StageRow(stage=3, operator="MBConv6, k3x3", resolution=112, channels=24, layers=2),
    StageRow(stage=4, operator="MBConv6, k5x5", resolution=56, channels=40, layers=2),
    StageRow(stage=5, operator="MBConv6, k3x3", resolution=28, channels=80, layers=3),
    StageRow(stage=6, operator="MBConv6, k5x5", resolution=14, channels=112, layers=3),
    StageRow(stage=7, operator="MBConv6, k5x5", resolution=14, channels=192, layers=4),
    StageRow(stage=8, operator="MBConv6, k3x3", resolution=7, channels=320, layers=1),
    StageRow(stage=9, operator="Conv1x1 & Pooling & FC", resolution=7, channels=1280, layers=1),
)
"""Table 1, version 5."""

TABLE1_V1_STAGE6_RESOLUTION = 28
"""Table 1, version 1 (ICML); the authors confirmed 14 (tensorflow/tpu issue 383), version 5 prints 14."""

TABLE2_SIZES = (
    Size(name="efficientnet_b0", parameters_m=5.3, flops_b=0.39),
    Size(name="efficientnet_b1", parameters_m=7.8, flops_b=0.70),
    Size(name="efficientnet_b2", parameters_m=9.2, flops_b=1.0),
    Size(name="efficientnet_b3", parameters_m=12, flops_b=1.8),
    Size(name="efficientnet_b4", parameters_m=19, flops_b=4.2),
    Size(name="efficientnet_b5", parameters_m=30, flops_b=9.9),
    Size(name="efficientnet_b6", parameters_m=43, flops_b=19),
    Size(name="efficientnet_b7", parameters_m=66, flops_b=37),
)
"""Table 2."""


def _accuracies(*rows: tuple[float, float | None]) -> tuple[Accuracy, ...]:
    """The accuracies of B0, B1, ... in order."""
    return tuple(Accuracy(name=f"efficientnet_b{i}", top1=top1, top5=top5) for i, (top1, top5) in enumerate(rows))


ACCURACY_V1 = _accuracies(
    (76.3, 93.2), (78.8, 94.4), (79.8, 94.9), (81.1, 95.5), (82.6, 96.3), (83.3, 96.7), (84.0, 96.9), (84.4, 97.1)
)
"""Table 2, version 1 (ICML 2019)."""

ACCURACY_MIDDLE = _accuracies(
    (77.3, None), (79.2, None), (80.3, None), (81.7, None), (83.0, None), (83.7, None), (84.2, None), (84.5, None)
)
"""Between version 1 and version 5: the AutoAugment row of tensorflow/tpu's README before July 2020.

That the paper's own middle version (about version 3) prints the same, with 84.4 for B7, is from memory, not verified.
"""

ACCURACY_V5 = _accuracies(
    (77.1, 93.3), (79.1, 94.4), (80.1, 94.9), (81.6, 95.7), (82.9, 96.4), (83.6, 96.7), (84.0, 96.8), (84.3, 97.0)
)
"""Table 2, version 5: the checkpoint was chosen on 25,000 held-out training images."""

TABLE8 = (
    ExactAccuracy(name="efficientnet_b0", val_top1=77.11, test_top1=77.23, val_top5=93.35, test_top5=93.45),
    ExactAccuracy(name="efficientnet_b1", val_top1=79.13, test_top1=79.17, val_top5=94.47, test_top5=94.43),
    ExactAccuracy(name="efficientnet_b2", val_top1=80.07, test_top1=80.16, val_top5=94.90, test_top5=94.98),
    ExactAccuracy(name="efficientnet_b3", val_top1=81.59, test_top1=81.72, val_top5=95.67, test_top5=95.70),
    ExactAccuracy(name="efficientnet_b4", val_top1=82.89, test_top1=82.94, val_top5=96.37, test_top5=96.27),
    ExactAccuracy(name="efficientnet_b5", val_top1=83.60, test_top1=83.69, val_top5=96.71, test_top5=96.64),
    ExactAccuracy(name="efficientnet_b6", val_top1=83.95, test_top1=84.04, val_top5=96.76, test_top5=96.86),
    ExactAccuracy(name="efficientnet_b7", val_top1=84.26, test_top1=84.33, val_top5=96.97, test_top5=96.94),
)
"""Table 8 (appendix), version 5."""


def _rival(
    name: str,
    against: str,
    top: tuple[float, float],
    parameters: tuple[float, float],
    flops: tuple[float, float] | None,
) -> Rival:
    """One rival from (top-1, top-5), (parameters, ratio) and (FLOPS, ratio)."""
    return Rival(
        name=name,
        against=f"efficientnet_{against}",
        top1=top[0],
        top5=top[1],
        parameters_m=parameters[0],
        parameters_ratio=parameters[1],
        flops_b=flops[0] if flops else None,
        flops_ratio=flops[1] if flops else None,
    )


TABLE2_RIVALS = (
    _rival("ResNet-50", "b0", (76.0, 93.0), (26, 4.9), (4.1, 11)),
    _rival("DenseNet-169", "b0", (76.2, 93.2), (14, 2.6), (3.5, 8.9)),
    _rival("ResNet-152", "b1", (77.8, 93.8), (60, 7.6), (11, 16)),
    _rival("DenseNet-264", "b1", (77.9, 93.9), (34, 4.3), (6.0, 8.6)),
    _rival("Inception-v3", "b1", (78.8, 94.4), (24, 3.0), (5.7, 8.1)),
    _rival("Xception", "b1", (79.0, 94.5), (23, 3.0), (8.4, 12)),
    _rival("Inception-v4", "b2", (80.0, 95.0), (48, 5.2), (13, 13)),
    _rival("Inception-ResNet-v2", "b2", (80.1, 95.1), (56, 6.1), (13, 13)),
    _rival("ResNeXt-101", "b3", (80.9, 95.6), (84, 7.0), (32, 18)),
    _rival("PolyNet", "b3", (81.3, 95.8), (92, 7.7), (35, 19)),
    _rival("SENet", "b4", (82.7, 96.2), (146, 7.7), (42, 10)),
    _rival("NASNet-A", "b4", (82.7, 96.2), (89, 4.7), (24, 5.7)),
    _rival("AmoebaNet-A", "b4", (82.8, 96.1), (87, 4.6), (23, 5.5)),
    _rival("PNASNet", "b4", (82.9, 96.2), (86, 4.5), (23, 6.0)),
    _rival("AmoebaNet-C", "b5", (83.5, 96.5), (155, 5.2), (41, 4.1)),
    _rival("GPipe", "b7", (84.3, 97.0), (557, 8.4), None),
)
"""Table 2, version 5."""


def _scaled(baseline: str, *rows: tuple[float, float, float, float, float, bool]) -> tuple[ScaledNet, ...]:
    """Rows of (depth, width, resolution, FLOPS, top-1, multipliers printed) for one baseline."""
    return tuple(
        ScaledNet(baseline=baseline, depth=d, width=w, resolution=r, flops_b=flops, top1=top1, printed=printed)
        for d, w, r, flops, top1, printed in rows
    )


TABLE3 = (
    *_scaled(
        "mobilenet_v1",
        (1, 1, 1, 0.6, 70.6, True),
        (1, 2, 1, 2.2, 74.2, True),
        (1, 1, 2, 2.2, 72.7, True),
        (1.4, 1.2, 1.3, 2.3, 75.6, True),
    ),
    *_scaled(
        "mobilenet_v2",
        (1, 1, 1, 0.3, 72.0, True),
        (4, 1, 1, 1.2, 76.8, True),
        (1, 2, 1, 1.1, 76.4, True),
        (1, 1, 2, 1.2, 74.8, True),
        (1.4, 1.2, 1.3, 1.3, 77.4, False),
    ),
    *_scaled(
        "resnet50",
        (1, 1, 1, 4.1, 76.0, True),
        (4, 1, 1, 16.2, 78.1, True),
        (1, 2, 1, 14.7, 77.7, True),
        (1, 1, 2, 16.4, 77.5, True),
        (1.4, 1.2, 1.3, 16.7, 78.8, False),
    ),
)
"""Table 3; where `printed` is false the multipliers of the MobileNetV1 row stand in."""

TABLE4 = (
    Latency(rival="ResNet-152", rival_top1=77.8, rival_latency_s=0.554,
            name="efficientnet_b1", top1=78.8, latency_s=0.098, speedup=5.7),
    Latency(rival="GPipe", rival_top1=84.3, rival_latency_s=19.0,
            name="efficientnet_b7", top1=84.4, latency_s=3.1, speedup=6.1),
)  # fmt: skip
"""Table 4: batch 1, one core of an Intel Xeon E5-2690, mean of 20 runs; version 5 kept version 1's accuracies."""


def _transfer(
    dataset: str,
    comparison: str,
    rival: tuple[str, float, float | None],
    ours: tuple[str, float, float | None],
    ratio: float | None,
) -> Transfer:
    """A half-row from (rival, accuracy, parameters), (EfficientNet, accuracy, parameters) and the ratio."""
    return Transfer(
        dataset=dataset,
        comparison=comparison,
        rival=rival[0],
        rival_accuracy=rival[1],
        rival_parameters_m=rival[2],
        name=f"efficientnet_{ours[0]}",
        accuracy=ours[1],
        parameters_m=ours[2],
        ratio=ratio,
    )


TABLE5 = (
    _transfer("CIFAR-10", "public", ("NASNet-A", 98.0, 85), ("b0", 98.1, 4), 21),
    _transfer("CIFAR-10", "reported", ("GPipe", 99.0, 556), ("b7", 98.9, 64), 8.7),
    _transfer("CIFAR-100", "public", ("NASNet-A", 87.5, 85), ("b0", 88.1, 4), 21),
    _transfer("CIFAR-100", "reported", ("GPipe", 91.3, 556), ("b7", 91.7, 64), 8.7),
    _transfer("Birdsnap", "public", ("Inception-v4", 81.8, 41), ("b5", 82.0, 28), 1.5),
    _transfer("Birdsnap", "reported", ("GPipe", 83.6, 556), ("b7", 84.3, 64), 8.7),
    _transfer("Stanford Cars", "public", ("Inception-v4", 93.4, 41), ("b3", 93.6, 10), 4.1),
    _transfer("Stanford Cars", "reported", ("DAT", 94.8, None), ("b7", 94.7, None), None),
    _transfer("Flowers", "public", ("Inception-v4", 98.5, 41), ("b5", 98.5, 28), 1.5),
    _transfer("Flowers", "reported", ("DAT", 97.7, None), ("b7", 98.8, None), None),
    _transfer("FGVC Aircraft", "public", ("Inception-v4", 90.9, 41), ("b3", 90.7, 10), 4.1),
    _transfer("FGVC Aircraft", "reported", ("DAT", 92.9, None), ("b7", 92.9, None), None),
    _transfer("Oxford-IIIT Pets", "public", ("ResNet-152", 94.5, 58), ("b4", 94.8, 17), 5.6),
    _transfer("Oxford-IIIT Pets", "reported", ("GPipe", 95.9, 556), ("b6", 95.4, 41), 14),
    _transfer("Food-101", "public", ("Inception-v4", 90.8, 41), ("b4", 91.5, 17), 2.4),
    _transfer("Food-101", "reported", ("GPipe", 93.0, 556), ("b7", 93.0, 64), 8.7),
)
"""Table 5: beside the best public and the best reported result on each data set."""

TRANSFER_SETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "birdsnap": "Birdsnap",
    "stanford_cars": "Stanford Cars",
    "flowers102": "Flowers",
    "fgvc_aircraft": "FGVC Aircraft",
    "oxford_pets": "Oxford-IIIT Pets",
    "food101": "Food-101",
}
"""The data sets of Tables 5 and 6 by the names that `data.known_sets` gives them."""

TABLE5_MEAN_RATIO = {"public": 4.7, "reported": 9.6}
"""Table 5, last row: geometric means of the ratios."""

TABLE6 = (
    Dataset(name="CIFAR-10", train=50_000, test=10_000, classes=10),
    Dataset(name="CIFAR-100", train=50_000, test=10_000, classes=100),
    Dataset(name="Birdsnap", train=47_386, test=2_443, classes=500),
    Dataset(name="Stanford Cars", train=8_144, test=8_041, classes=196),
    Dataset(name="Flowers", train=2_040, test=6_149, classes=102),
    Dataset(name="FGVC Aircraft", train=6_667, test=3_333, classes=100),
    Dataset(name="Oxford-IIIT Pets", train=3_680, test=3_369, classes=37),
    Dataset(name="Food-101", train=75_750, test=25_250, classes=101),
)
"""Table 6."""

TABLE7 = _scaled(
    "efficientnet_b0",
    (1, 1, 1, 0.4, 77.3, True),
    (4, 1, 1, 1.8, 79.0, True),
    (1, 2, 1, 1.8, 78.9, True),
    (1, 1, 2, 1.9, 79.1, True),
    (1.4, 1.2, 1.3, 1.8, 81.1, True),
)
"""Table 7: the networks of the class activation maps (Figure 7)."""

FIGURE3_WIDTHS = (1.0, 1.4, 1.8, 2.6, 3.8, 5.0)
FIGURE3_DEPTHS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
FIGURE3_RESOLUTIONS = (1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5)
"""Figure 3: multipliers of the sweeps of one dimension from B0."""

FIGURE4 = (
    WidthSweep(depth=1.0, resolution=1.0),
    WidthSweep(depth=1.0, resolution=1.3),
    WidthSweep(depth=2.0, resolution=1.0),
    WidthSweep(depth=2.0, resolution=1.3),
)
"""Figure 4: baselines of the four width sweeps (the legend's; the text names a resolution of 2.0)."""

DROPOUT = {
    "efficientnet_b0": 0.2,
    "efficientnet_b1": 0.2,
    "efficientnet_b2": 0.3,
    "efficientnet_b3": 0.3,
    "efficientnet_b4": 0.4,
    "efficientnet_b5": 0.4,
    "efficientnet_b6": 0.5,
    "efficientnet_b7": 0.5,
    "efficientnet_b8": 0.5,
    "efficientnet_l2": 0.5,
}
"""Dropout before the classifier (tensorflow/tpu efficientnet_builder.py)."""

NOMINAL_PHI = {
    "efficientnet_b0": 0.0,
    "efficientnet_b1": 0.5,
    "efficientnet_b2": 1.0,
    "efficientnet_b3": 2.0,
    "efficientnet_b4": 3.5,
    "efficientnet_b5": 5.0,
    "efficientnet_b6": 6.0,
    "efficientnet_b7": 7.0,
}
"""The phi that users read into each name (tensorflow/tpu issue 390; no author answered, the paper prints none)."""

TINYNETS = (
    TinyNet(name="tinynet_a", depth=1.2, width=1.0, resolution=192),
    TinyNet(name="tinynet_b", depth=1.1, width=0.75, resolution=188),
    TinyNet(name="tinynet_c", depth=0.85, width=0.54, resolution=184),
    TinyNet(name="tinynet_d", depth=0.695, width=0.54, resolution=152),
    TinyNet(name="tinynet_e", depth=0.6, width=0.51, resolution=106),
)
"""TinyNets A to E (2010.14819), as timm's models/efficientnet.py has them."""
