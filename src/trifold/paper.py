"""The paper's tables, recomputed as far as that needs no training, beside what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trifold import published
from trifold.architecture import Block, Stage
from trifold.baselines import EFFICIENTNET_B0, EFFICIENTNET_MULTIPLIERS, find
from trifold.cost import Cost, blocks_cost, cost
from trifold.errors import InvalidInput
from trifold.published import ScaledNet
from trifold.scaling import PAPER, Multipliers, Rounding, scale
from trifold.table import Cell, Column, Table


@dataclass(frozen=True, slots=True)
class NeedsTraining:
    """A part of the paper that cannot be recomputed here, and why."""

    what: str
    why: str


def _label(name: str) -> Column:
    return Column(name=name, kind="label")


def _paper(name: str, digits: int | None = None) -> Column:
    return Column(name=name, kind="paper", digits=digits)


_PERCENT = Column(name="%", kind="difference", digits=1)


def short(name: str) -> str:
    """A member of the paper's family as the paper writes it: efficientnet_b3 is B3; other names stay."""
    return name.removeprefix("efficientnet_").upper() if name in EFFICIENTNET_MULTIPLIERS else name


def difference(recomputed: float, printed: float) -> float:
    """How far the recomputed number lies above the printed one, in percent of the printed one."""
    return 100 * (recomputed / printed - 1)


def implied_phi(multiplier: float, factor: float) -> float:
    """The phi at which factor^phi is the multiplier: its logarithm in base factor (paper eq. 3 read backwards)."""
    return math.log(multiplier) / math.log(factor)


def multipliers_of(name: str) -> Multipliers:
    """The published multipliers of an EfficientNet, resolution as a share of B0's (tensorflow/tpu builder)."""
    width, depth, resolution = EFFICIENTNET_MULTIPLIERS[name]
    return Multipliers(width=width, depth=depth, resolution=resolution / EFFICIENTNET_B0.resolution)


def product(multipliers: Multipliers) -> float:
    """d * w^2 * r^2: the factor of multiply-adds before rounding (paper §3.3)."""
    return float(multipliers.depth * multipliers.width**2 * multipliers.resolution**2)


def _operator(stage: Stage) -> str:
    """An MBConv row's operator in the paper's words: MBConv6, k3x3."""
    return f"MBConv{stage.expand_ratio:g}, k{stage.kernel_size}x{stage.kernel_size}"


def _table1() -> Table:
    architecture = EFFICIENTNET_B0
    groups: dict[int, list[Block]] = {}
    for block in architecture.blocks():
        groups.setdefault(block.stage, []).append(block)
    operators = ("Conv3x3", *map(_operator, architecture.stages), "Conv1x1 & Pooling & FC")
    last = len(architecture.stages) + 1
    rows: list[tuple[Cell, ...]] = []
    for (number, blocks), operator, printed in zip(groups.items(), operators, published.TABLE1, strict=True):
        layers = 1 if number == last else len(blocks)
        channels = (blocks[0] if number == last else blocks[-1]).out_channels
        ours = {"resolution": blocks[0].in_size, "channels": channels, "layers": layers}
        v5 = {"resolution": printed.resolution, "channels": printed.channels, "layers": printed.layers}
        v1 = {**v5, "resolution": published.TABLE1_V1_STAGE6_RESOLUTION} if printed.stage == 6 else v5
        spent = blocks_cost(blocks)
        rows.append((number + 1, operator, *ours.values(), spent.parameters, spent.multiply_adds,
                     _differing(ours, v1), _differing(ours, v5)))  # fmt: skip
    return Table(
        number="1",
        title="EfficientNet-B0, stage by stage",
        source="version 1 (ICML) and version 5",
        columns=(
            _label("stage"), Column(name="operator"), Column(name="resolution"), Column(name="channels"),
            Column(name="layers"), Column(name="parameters"), Column(name="multiply-adds"), _paper("v1"), _paper("v5"),
        ),
        rows=tuple(rows),
        notes=("Resolution is that of the stage's input. Version 1 misprints it for stage 6; the authors confirmed "
               "14 (tensorflow/tpu issue 383).",),
    )  # fmt: skip


def _differing(ours: dict[str, int], printed: dict[str, int]) -> str:
    """What a version prints otherwise than recomputed; "same" if nothing."""
    return ", ".join(f"{name} {value}" for name, value in printed.items() if value != ours[name]) or "same"


def _table2() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for size in published.TABLE2_SIZES:
        ours = cost(find(size.name))
        rows.append((
            short(size.name),
            ours.parameters, size.parameters_m, difference(ours.parameters / 1e6, size.parameters_m),
            ours.multiply_adds, size.flops_b, difference(ours.multiply_adds / 1e9, size.flops_b),
        ))  # fmt: skip
    return Table(
        number="2",
        title="Parameters and multiply-adds of the family",
        source="version 5; every version prints the same",
        columns=(
            _label("network"), Column(name="parameters"), _paper("params M"), _PERCENT,
            Column(name="multiply-adds"), _paper("FLOPS B"), _PERCENT,
        ),
        rows=tuple(rows),
        notes=("The published code and its ports have the recomputed numbers; the paper's FLOPS of B4 and B5 lie "
               "furthest below them.",),
    )  # fmt: skip


def _table2_rivals() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for rival in published.TABLE2_RIVALS:
        ours = cost(find(rival.against))
        parameters_ratio = rival.parameters_m * 1e6 / ours.parameters
        flops: tuple[Cell, ...] = (None, None, None, None)
        if rival.flops_b is not None and rival.flops_ratio is not None:
            ratio = rival.flops_b * 1e9 / ours.multiply_adds
            flops = (rival.flops_b, rival.flops_ratio, ratio, difference(ratio, rival.flops_ratio))
        rows.append((
            rival.name, short(rival.against), rival.parameters_m, rival.parameters_ratio, parameters_ratio,
            difference(parameters_ratio, rival.parameters_ratio), *flops,
        ))  # fmt: skip
    return Table(
        number="2-rivals",
        title="How many times larger the rivals are",
        source="version 5",
        columns=(
            _label("rival"), _label("beside"), _paper("params M"), _paper("ratio"), Column(name="ratio"), _PERCENT,
            _paper("FLOPS B"), _paper("ratio"), Column(name="ratio"), _PERCENT,
        ),
        rows=tuple(rows),
        notes=("A recomputed ratio is the rival's printed number over our exact one.", *_own_ratios()),
    )  # fmt: skip


def _ratio_notes(rows: Iterable[tuple[str, float | None, float | None, float | None]]) -> tuple[str, ...]:
    """A note for each printed ratio more than 5 % off the numbers printed beside it: (where, rival, own, ratio)."""
    return tuple(
        f"{where}: the paper prints a ratio of {ratio:g}, and {rival:g} over {own:g}, which is {rival / own:.2f}."
        for where, rival, own, ratio in rows
        if rival and own and ratio and abs(difference(rival / own, ratio)) > 5
    )


def _own_ratios() -> tuple[str, ...]:
    own = {size.name: size for size in published.TABLE2_SIZES}
    rivals = published.TABLE2_RIVALS
    return (
        *_ratio_notes((r.name, r.parameters_m, own[r.against].parameters_m, r.parameters_ratio) for r in rivals),
        *_ratio_notes((r.name, r.flops_b, own[r.against].flops_b, r.flops_ratio) for r in rivals),
    )


def _table2_accuracy() -> Table:
    versions = (published.ACCURACY_V1, published.ACCURACY_MIDDLE, published.ACCURACY_V5, published.TABLE8)
    rows = tuple(
        (short(v1.name), v1.top1, v1.top5, middle.top1, v5.top1, v5.top5, exact.val_top1, exact.test_top1)
        for v1, middle, v5, exact in zip(*versions, strict=True)
    )
    return Table(
        number="2-accuracy",
        title="ImageNet accuracy of the family, percent, as the versions print it",
        source="version 1 (ICML), tensorflow/tpu's README before July 2020 (middle), version 5, its Table 8 (exact)",
        columns=(
            _label("network"), _paper("v1 top-1"), _paper("v1 top-5"), _paper("middle top-1"), _paper("v5 top-1"),
            _paper("v5 top-5"), _paper("exact val", 2), _paper("exact test", 2),
        ),
        rows=rows,
        notes=("None of this is recomputed: it needs training on ImageNet.",
               "Version 5 chose its checkpoint on 25,000 held-out training images; the earlier ones did not."),
    )  # fmt: skip


def _scaled_cost(net: ScaledNet, rounding: Rounding | None = None) -> Cost:
    multipliers = Multipliers(depth=net.depth, width=net.width, resolution=net.resolution)
    return cost(scale(find(net.baseline), multipliers, rounding))


def scaled_by(net: ScaledNet) -> str:
    """The row's multipliers as text: "baseline", "d=4" or "d=1.4 w=1.2 r=1.3"; a star where the row prints none."""
    named = (("d", net.depth), ("w", net.width), ("r", net.resolution))
    text = " ".join(f"{letter}={value:g}" for letter, value in named if value != 1) or "baseline"
    return text if net.printed else f"{text} *"


_SCALED_COLUMNS = (
    _label("baseline"), _label("scaled by"), Column(name="multiply-adds"), Column(name="x base"),
    Column(name="d*w^2*r^2"), _paper("FLOPS B"), _PERCENT, Column(name="nearest B"), _paper("top-1"),
)  # fmt: skip
_NEAREST_NOTE = '"nearest B": the same with layers rounded to nearest instead of up, in 10^9 multiply-adds.'


def _scaled_rows(nets: Iterable[ScaledNet]) -> tuple[tuple[Cell, ...], ...]:
    rows: list[tuple[Cell, ...]] = []
    for net in nets:
        ours = _scaled_cost(net)
        multipliers = Multipliers(depth=net.depth, width=net.width, resolution=net.resolution)
        rows.append((
            short(net.baseline), scaled_by(net), ours.multiply_adds,
            ours.multiply_adds / cost(find(net.baseline)).multiply_adds, product(multipliers), net.flops_b,
            difference(ours.multiply_adds / 1e9, net.flops_b),
            _scaled_cost(net, Rounding(depth="nearest")).multiply_adds / 1e9, net.top1,
        ))  # fmt: skip
    return tuple(rows)


def _departures(nets: Iterable[ScaledNet], limit_percent: float = 5) -> tuple[str, ...]:
    """A note for each scaled row whose printed FLOPS do not follow from its multipliers."""
    notes = []
    for net in nets:
        ours = _scaled_cost(net).multiply_adds / 1e9
        apart = difference(ours, net.flops_b)
        if scaled_by(net) != "baseline" and abs(apart) > limit_percent:
            notes.append(f"{short(net.baseline)}, {scaled_by(net)}: the multipliers give {ours:.2f} B, "
                         f"the paper prints {net.flops_b:g} B ({apart:+.0f} %).")  # fmt: skip
    return tuple(notes)


def _exchanged() -> tuple[str, ...]:
    """A note if two printed FLOPS of one baseline in Table 3 fit each other's multipliers within 2 %, not their own."""
    notes = []
    for first in published.TABLE3:
        for second in published.TABLE3:
            if first.baseline == second.baseline and first.flops_b > second.flops_b:
                ours = [_scaled_cost(net).multiply_adds / 1e9 for net in (first, second)]
                crossed = abs(difference(ours[0], second.flops_b)) < 2 and abs(difference(ours[1], first.flops_b)) < 2
                if crossed and abs(difference(ours[0], first.flops_b)) > 5:
                    notes.append(f"{first.baseline}: the printed FLOPS of {scaled_by(first)} and {scaled_by(second)} "
                                 "fit each other's row, as if they had been exchanged.")  # fmt: skip
    return tuple(notes)


def _table3() -> Table:
    return Table(
        number="3",
        title="Scaling existing networks",
        source="version 5",
        columns=_SCALED_COLUMNS,
        rows=_scaled_rows(published.TABLE3),
        notes=(
            "* The paper prints these multipliers for MobileNetV1 alone and calls the row only \"compound scale\".",
            _NEAREST_NOTE, *_departures(published.TABLE3), *_exchanged(),
        ),
    )  # fmt: skip


def _table5() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for half in published.TABLE5:
        ours = cost(find(half.name), num_classes=0).parameters
        rival = half.rival_parameters_m
        rows.append((
            half.dataset, half.comparison, short(half.name), ours, half.parameters_m,
            half.rival, rival, half.ratio, rival * 1e6 / ours if rival else None,
            half.accuracy, half.rival_accuracy,
        ))  # fmt: skip
    means = ", ".join(f"{ratio:g} beside the best {kind}" for kind, ratio in published.TABLE5_MEAN_RATIO.items())
    return Table(
        number="5",
        title="Transfer: parameters without the classifier",
        source="version 5",
        columns=(
            _label("data set"), _label("beside"), _label("network"), Column(name="params"), _paper("M"),
            _label("rival"), _paper("M"), _paper("ratio"), Column(name="ratio"), _paper("acc"), _paper("rival"),
        ),
        rows=tuple(rows),
        notes=(
            f"Geometric mean of the ratios, as printed: {means}.",
            *_ratio_notes((f"{half.dataset}, {half.rival}", half.rival_parameters_m, half.parameters_m, half.ratio)
                          for half in published.TABLE5),
        ),
    )  # fmt: skip


def transfer(dataset: str, accuracy: float | None = None) -> Table:
    """The paper's results on one of its transfer data sets, to print beside one's own.

    dataset: by its name in `published.TRANSFER_SETS`. accuracy: one's own, in percent; the last column is how many
    points it lies above each.

    Raises InvalidInput if the paper has no such data set.
    """
    if dataset not in published.TRANSFER_SETS:
        raise InvalidInput(f"data set must be one of {', '.join(published.TRANSFER_SETS)}, got {dataset!r:.60}")
    title = published.TRANSFER_SETS[dataset]
    rows: list[tuple[Cell, ...]] = []
    for half in published.TABLE5:
        if half.dataset == title:
            rows.append((short(half.name), "EfficientNet", half.parameters_m, half.accuracy))
            rows.append((half.rival, f"best {half.comparison}", half.rival_parameters_m, half.rival_accuracy))
    own: tuple[Column, ...] = ()
    if accuracy is not None:
        rows = [(*row, accuracy - printed) for row in rows if isinstance(printed := row[3], float)]
        own = (Column(name="points", kind="difference", digits=1),)
    return Table(
        number="5",
        title=f"Transfer to {title}",
        source="version 5, pretrained on ImageNet",
        columns=(_label("network"), _label("as"), _paper("M"), _paper("acc"), *own),
        rows=tuple(rows),
    )


def _table6() -> Table:
    small, large = find("efficientnet_b0"), find("efficientnet_b7")
    rows: list[tuple[Cell, ...]] = []
    for dataset in published.TABLE6:
        costs = [cost(architecture, num_classes=dataset.classes) for architecture in (small, large)]
        rows.append((
            dataset.name, dataset.train, dataset.test, dataset.classes, dataset.train / dataset.classes,
            *(value for one in costs for value in (one.parameters, one.multiply_adds)),
        ))  # fmt: skip
    return Table(
        number="6",
        title="Transfer data sets, and what B0 and B7 cost with their classes",
        source="version 5",
        columns=(
            _label("data set"), _paper("train"), _paper("test"), _paper("classes"), Column(name="per class", digits=0),
            Column(name="B0 params"), Column(name="B0 mult-adds"), Column(name="B7 params"),
            Column(name="B7 mult-adds"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _table7() -> Table:
    return Table(
        number="7",
        title="Networks of the class activation maps, scaled from B0",
        source="version 5",
        columns=_SCALED_COLUMNS,
        rows=_scaled_rows(published.TABLE7),
        notes=(_NEAREST_NOTE, *_departures(published.TABLE7)),
    )


def _figure3() -> Table:
    sweeps = {
        "width": published.FIGURE3_WIDTHS,
        "depth": published.FIGURE3_DEPTHS,
        "resolution": published.FIGURE3_RESOLUTIONS,
    }
    rows: list[tuple[Cell, ...]] = []
    for dimension, values in sweeps.items():
        for value in values:
            scaled = scale(EFFICIENTNET_B0, Multipliers(**{dimension: value}))
            spent = cost(scaled)
            rows.append((dimension, value, scaled.num_blocks, scaled.stem.channels, scaled.resolution,
                         spent.parameters, spent.multiply_adds))  # fmt: skip
    return Table(
        number="figure-3",
        title="Costs of the sweeps of one dimension from B0",
        source="version 5 prints the multipliers",
        columns=(
            _label("dimension"), _paper("multiplier"), Column(name="blocks"), Column(name="stem channels"),
            Column(name="resolution"), Column(name="parameters"), Column(name="multiply-adds"),
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _phi() -> Table:
    base = cost(EFFICIENTNET_B0)
    rows: list[tuple[Cell, ...]] = []
    for name, (width, depth, resolution) in EFFICIENTNET_MULTIPLIERS.items():
        if name == EFFICIENTNET_B0.name:
            continue
        multipliers, ours = multipliers_of(name), cost(find(name))
        ratio = ours.multiply_adds / base.multiply_adds
        rows.append((
            short(name), depth, width, resolution,
            implied_phi(depth, PAPER.alpha), implied_phi(width, PAPER.beta),
            implied_phi(multipliers.resolution, PAPER.gamma), product(multipliers),
            ratio, math.log2(ratio), implied_phi(ratio, PAPER.growth),
            ours.activations / base.activations, ours.parameters / base.parameters,
        ))  # fmt: skip
    return Table(
        number="phi",
        title="The phi that each published network implies",
        source="tensorflow/tpu efficientnet_builder.py (depth, width, resolution)",
        columns=(
            _label("network"), _paper("d"), _paper("w"), _paper("r px"), Column(name="phi(d)"),
            Column(name="phi(w)"), Column(name="phi(r)"), Column(name="d*w^2*r^2"),
            Column(name="MAdds x"), Column(name="log2"), Column(name="phi(MAdds)"), Column(name="acts x", digits=1),
            Column(name="params x"),
        ),
        rows=tuple(rows),
        notes=(
            f"phi(d), phi(w), phi(r): logarithms in base {PAPER.alpha:g}, {PAPER.beta:g} and {PAPER.gamma:g}; "
            f"phi(MAdds) in base {PAPER.growth:.5f}, which is alpha * beta^2 * gamma^2.",
            "One phi would give three equal columns; the paper prints no phi.",
        ),
    )  # fmt: skip


_TABLES: dict[str, Callable[[], Table]] = {
    "1": _table1,
    "2": _table2,
    "2-rivals": _table2_rivals,
    "2-accuracy": _table2_accuracy,
    "3": _table3,
    "5": _table5,
    "6": _table6,
    "7": _table7,
    "figure-3": _figure3,
    "phi": _phi,
}


def table(number: int | str) -> Table:
    """One table of the paper, recomputed: 1, 2, "2-rivals", "2-accuracy", 3, 5, 6, 7, "figure-3" or "phi".

    Raises InvalidInput for any other, saying why where it needs training.
    """
    wanted = str(number).strip().lower()
    if wanted in _TABLES:
        return _TABLES[wanted]()
    for part in _NEEDS_TRAINING:
        if part.what.lower() in (f"table {wanted}", wanted.replace("-", " ")):
            raise InvalidInput(f"{part.what} cannot be recomputed: {part.why}")
    raise InvalidInput(f"table must be one of {', '.join(_TABLES)}, got {number!r}")


def tables(number: int | str | None = None) -> tuple[Table, ...]:
    """All recomputed tables, or those of one number: "2" has three.

    Raises InvalidInput as `table` does.
    """
    if number is None:
        return tuple(make() for make in _TABLES.values())
    first = table(number)
    return (first, *(make() for name, make in _TABLES.items() if name.startswith(f"{first.number}-")))


_NEEDS_TRAINING = (
    NeedsTraining("Table 2, accuracy", "each network is trained on ImageNet; the versions' numbers are shown instead"),
    NeedsTraining("Table 3, accuracy", "each scaled network is trained on ImageNet"),
    NeedsTraining("Table 4", "latency is measured, on the paper's processor, and the accuracies need training"),
    NeedsTraining("Table 5, accuracy", "each network is pretrained on ImageNet and fine-tuned on eight data sets"),
    NeedsTraining("Table 7, accuracy", "each network is trained on ImageNet"),
    NeedsTraining("Table 8", "the networks are trained on ImageNet and its test server is asked"),
    NeedsTraining("Figure 1", "accuracy over parameters: every point is a trained network"),
    NeedsTraining("Figure 3, accuracy", "every point of the sweeps is a trained network; their costs are in figure-3"),
    NeedsTraining("Figure 4", "every point of the width sweeps is a trained network"),
    NeedsTraining("Figure 5", "accuracy over FLOPS: every point is a trained network"),
    NeedsTraining("Figure 6", "transfer accuracy: every point is a fine-tuned network"),
    NeedsTraining("Figure 7", "class activation maps are those of trained networks"),
    NeedsTraining("Figure 8", "every point of the ablation is a trained network"),
    NeedsTraining("alpha, beta, gamma", "the grid search of step 1 trains small networks; its grid is not published"),
    NeedsTraining("EfficientNet-B0", "its search trains candidates; the budget of that search is not published"),
)


def needs_training() -> tuple[NeedsTraining, ...]:
    """What of the paper cannot be recomputed without training or its machine, and why."""
    return _NEEDS_TRAINING
