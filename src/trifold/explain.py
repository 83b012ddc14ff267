"""How far a published network is from the formula of compound scaling, and why, in numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from trifold.architecture import Architecture
from trifold.baselines import EFFICIENTNET_MULTIPLIERS, Family, family_of, find
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.paper import difference, implied_phi, multipliers_of, product, short
from trifold.published import NOMINAL_PHI, PAPER_GROWTH
from trifold.scaling import PAPER, Coefficients, Multipliers, Rounding, round_channels
from trifold.table import Cell, Column, Table

HAND_STEP = 0.1
HAND_STEP_PIXELS = 20
"""Steps of the published depth and width, and of the published resolution, of B1 to B3: rounded to them, the formula at
phi 1/2, 1 and 2 gives those three (recomputed in the tests)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhiFit:
    """The one phi nearest to three multipliers; residual: root mean square of the three log errors (0.02 is 2 %)."""

    phi: float
    residual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One dimension of a published network beside the formula.

    published: its multiplier (for resolution: pixels over the baseline's pixels).
    implied_phi: the phi at which the formula gives exactly this multiplier.
    phi_low, phi_high: any phi between them gives it, once rounded to HAND_STEP or HAND_STEP_PIXELS.
    at_fit: the formula at the one phi nearest to all dimensions; fit_percent: how far published lies above it.
    at_nominal, nominal_percent: the same at the phi that users read into the name; None where they read none.
    """

    name: str
    published: float
    implied_phi: float
    phi_low: float
    phi_high: float
    at_fit: float
    fit_percent: float
    at_nominal: float | None
    nominal_percent: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A shipped network beside the formula.

    single_phi: the lowest and highest phi that give all three dimensions, rounded by hand; None if no phi does.
    product: d * w^2 * r^2; multiply_adds_ratio: the exact multiply-adds over those of the family's baseline.
    sentences: the same in words, one thought each.
    """

    name: str
    baseline: str
    nominal_phi: float | None
    fit: PhiFit
    single_phi: tuple[float, float] | None
    product: float
    multiply_adds_ratio: float
    dimensions: tuple[Dimension, ...]
    sentences: tuple[str, ...] = ()


def best_phi(multipliers: Multipliers, coefficients: Coefficients = PAPER) -> PhiFit:
    """The phi of least squared log error over depth, width and resolution, and the error it leaves.

    Raises InvalidInput if alpha, beta and gamma are all 1, which scale nothing.
    """
    wanted = [math.log(m) for m in (multipliers.depth, multipliers.width, multipliers.resolution)]
    rates = [math.log(c) for c in (coefficients.alpha, coefficients.beta, coefficients.gamma)]
    if not any(rates):
        raise InvalidInput("alpha, beta or gamma must be above 1, got 1, 1 and 1")
    phi = sum(w * rate for w, rate in zip(wanted, rates, strict=True)) / sum(rate**2 for rate in rates)
    errors = [w - phi * rate for w, rate in zip(wanted, rates, strict=True)]
    return PhiFit(phi=phi, residual=math.sqrt(sum(error**2 for error in errors) / len(errors)))


def explain(name: str) -> Explanation:
    """How far a shipped network is from alpha^phi, beta^phi and gamma^phi (paper eq. 3), and why.

    Raises InvalidArchitecture if there is no network of that name.
    """
    family, full = family_of(name)
    member, baseline = find(full), family.baseline
    width, depth, resolution = family.members.get(full, (1.0, 1.0, baseline.resolution))
    multipliers = Multipliers(depth=depth, width=width, resolution=resolution / baseline.resolution)
    fit, nominal = best_phi(multipliers), NOMINAL_PHI.get(full)
    dimensions = _dimensions(multipliers, baseline.resolution, fit.phi, nominal)
    low, high = max(d.phi_low for d in dimensions), min(d.phi_high for d in dimensions)
    explanation = Explanation(
        name=full,
        baseline=baseline.name,
        nominal_phi=nominal,
        fit=fit,
        single_phi=(low, high) if low <= high else None,
        product=product(multipliers),
        multiply_adds_ratio=cost(member).multiply_adds / cost(baseline).multiply_adds,
        dimensions=dimensions,
    )
    if full == baseline.name:
        return replace(explanation, sentences=_baseline_sentences(family))
    sentences = (
        *_opening_sentences(explanation, member, family),
        *_formula_sentences(explanation, baseline),
        *_name_sentences(explanation, baseline),
        *_cost_sentences(explanation, member, baseline),
        *_rounding_sentences(multipliers.width, family),
    )
    return replace(explanation, sentences=sentences)


def as_table(explanation: Explanation) -> Table:
    """The explanation's dimensions as a table; its notes are the sentences."""
    columns = [
        Column(name="dimension", kind="label"), Column(name="published", kind="paper", digits=3), Column(name="phi"),
        Column(name="phi if rounded"), *_formula_columns(explanation.fit.phi),
    ]  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (d.name, d.published, d.implied_phi, f"{d.phi_low:.2f} to {d.phi_high:.2f}", d.at_fit, d.fit_percent)
        for d in explanation.dimensions
    ]
    if explanation.nominal_phi is not None:
        columns += _formula_columns(explanation.nominal_phi)
        rows = [(*row, d.at_nominal, d.nominal_percent) for row, d in zip(rows, explanation.dimensions, strict=True)]
    return Table(
        number="explain",
        title=f"{short(explanation.name)} beside the formula",
        source="its published multipliers",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=explanation.sentences,
    )


def _formula_columns(phi: float) -> tuple[Column, Column]:
    return Column(name=f"at phi {phi:.2f}", digits=3), Column(name="%", kind="difference", digits=1)


def _dimensions(
    multipliers: Multipliers, pixels: int, phi: float, nominal: float | None
) -> tuple[Dimension, Dimension, Dimension]:
    """Depth, width and resolution beside the formula at two values of phi."""
    at_fit = PAPER.multipliers(phi)
    at_nominal = None if nominal is None else PAPER.multipliers(nominal)

    def dimension(name: str, factor: float, step: float) -> Dimension:
        published, fitted = getattr(multipliers, name), getattr(at_fit, name)
        named = None if at_nominal is None else getattr(at_nominal, name)
        return Dimension(
            name=name,
            published=published,
            implied_phi=implied_phi(published, factor),
            phi_low=implied_phi(published - step / 2, factor),
            phi_high=implied_phi(published + step / 2, factor),
            at_fit=fitted,
            fit_percent=difference(published, fitted),
            at_nominal=named,
            nominal_percent=None if named is None else difference(published, named),
        )

    return (
        dimension("depth", PAPER.alpha, HAND_STEP),
        dimension("width", PAPER.beta, HAND_STEP),
        dimension("resolution", PAPER.gamma, HAND_STEP_PIXELS / pixels),
    )


def _baseline_sentences(family: Family) -> tuple[str, ...]:
    """What there is to say of a network that is its family's own baseline."""
    name = short(family.baseline.name)
    if family.members:
        others = [short(member) for member in family.members if member != family.baseline.name]
        return (
            f"{name} is the baseline of its family: its multipliers are 1 by definition, and its phi is 0.",
            f"{', '.join(others)} are made from it by the published multipliers.",
        )
    if family.baseline.name.startswith("efficientnetv2_"):
        return (
            f"{name} has no compound formula: its stages are published row by row, as a network of its own.",
            "Its multipliers are 1 by definition; only EfficientNetV2's B1 to B3 are multiples of another network, B0.",
        )
    return (
        f"{name} is a baseline: its multipliers are 1 by definition, and no published multiples of it are shipped.",
        "Any phi may be tried on it; whether alpha, beta and gamma found for EfficientNet-B0 suit it, training tells.",
    )


def _opening_sentences(explanation: Explanation, member: Architecture, family: Family) -> tuple[str, ...]:
    """What the network is made of, and for other families than the paper's where its multipliers come from."""
    depth, width, resolution = explanation.dimensions
    name = short(explanation.name)
    said = [
        f"{name} is {short(explanation.baseline)} with depth x {depth.published:g}, width x {width.published:g} and "
        f"images of {member.resolution} instead of {family.baseline.resolution} pixels (x {resolution.published:.3f})."
    ]
    if explanation.name in EFFICIENTNET_MULTIPLIERS:
        return tuple(said)
    for twin, (w, d, pixels) in EFFICIENTNET_MULTIPLIERS.items():
        if (w, d) == (width.published, depth.published):
            own = "too" if pixels == member.resolution else f"not: {member.resolution} pixels, where it has {pixels}"
            said.append(f"Its depth and width are those of EfficientNet-{short(twin)}, its resolution {own}.")
    if family.rounding.fixed_ends:
        ends = family.baseline.stages[0].layers, family.baseline.stages[-1].layers
        said.append(f"Its ends are fixed: the stem keeps {member.stem.channels} channels, the head "
                    f"{member.head.channels}, the first and last stage {ends[0]} and {ends[1]} layers.")  # fmt: skip
    return tuple(said)


def _formula_sentences(explanation: Explanation, baseline: Architecture) -> tuple[str, ...]:
    """The three implied phi, the nearest one, and whether rounding by hand explains the rest."""
    depth, width, resolution = explanation.dimensions
    name, fit = short(explanation.name), explanation.fit
    said = [
        f"The formula is depth = {PAPER.alpha:g}^phi, width = {PAPER.beta:g}^phi, resolution = {PAPER.gamma:g}^phi. "
        f"Asked for phi, the depth answers {depth.implied_phi:.2f}, the width {width.implied_phi:.2f}, the resolution "
        f"{resolution.implied_phi:.2f}.",
        f"The one phi nearest to all three is {fit.phi:.2f}: depth {depth.at_fit:.2f}, width {width.at_fit:.2f}, "
        f"{resolution.at_fit * baseline.resolution:.0f} pixels, typically {100 * fit.residual:.1f} % off.",
        "The published numbers are a list rounded by hand, and the paper prints no phi for them.",
    ]
    wants = ", ".join(f"{d.name} {d.phi_low:.2f} to {d.phi_high:.2f}" for d in explanation.dimensions)
    if explanation.single_phi:
        low, high = explanation.single_phi
        said.append(f"Depth and width rounded to {HAND_STEP:g} and resolution to {HAND_STEP_PIXELS} pixels, any phi "
                    f"from {max(low, 0):.2f} to {high:.2f} gives {name}.")  # fmt: skip
    else:
        ordered = sorted(explanation.dimensions, key=lambda d: d.implied_phi)
        said.append(f"Yet with depth and width rounded to {HAND_STEP:g} and resolution to {HAND_STEP_PIXELS} pixels "
                    f"no single phi gives {name}: it would have to be in all of {wants}.")  # fmt: skip
        said.append(f"The {ordered[-1].name} runs ahead of the formula at phi {fit.phi:.2f} "
                    f"({ordered[-1].fit_percent:+.1f} %), the {ordered[0].name} lags behind "
                    f"({ordered[0].fit_percent:+.1f} %).")  # fmt: skip
    return tuple(said)


def _name_sentences(explanation: Explanation, baseline: Architecture) -> tuple[str, ...]:
    """Whether the number in the name may be read as phi."""
    name, nominal = short(explanation.name), explanation.nominal_phi
    said = []
    if nominal is not None:
        read = PAPER.multipliers(nominal)
        said.append(f"Users read {name} as phi {nominal:g} (tensorflow/tpu issue 390, not the authors): that is depth "
                    f"{read.depth:.2f}, width {read.width:.2f}, "
                    f"{read.resolution * baseline.resolution:.0f} pixels.")  # fmt: skip
    if explanation.name in EFFICIENTNET_MULTIPLIERS and name.startswith("B"):
        number = int(name[1:])
        nearest = min(EFFICIENTNET_MULTIPLIERS, key=lambda member: abs(best_phi(multipliers_of(member)).phi - number))
        if nearest != explanation.name:
            here = PAPER.multipliers(number)
            said.append(f"The number in the name is not phi: at phi {number} the formula gives depth {here.depth:.2f}, "
                        f"width {here.width:.2f}, {here.resolution * baseline.resolution:.0f} pixels, "
                        f"and the published network nearest to that is {short(nearest)}.")  # fmt: skip
    return tuple(said)


def _cost_sentences(explanation: Explanation, member: Architecture, baseline: Architecture) -> tuple[str, ...]:
    """What the formula promises of multiply-adds, and what they are."""
    phi, ratio = explanation.fit.phi, explanation.multiply_adds_ratio
    depth = explanation.dimensions[0].published
    name = short(explanation.name)
    said = [
        f"alpha * beta^2 * gamma^2 is {PAPER.growth:.2f}, where the paper asks for about {PAPER_GROWTH:g}: phi "
        f"{phi:.2f} stands for {PAPER.growth**phi:.2f} times the multiply-adds, not for {PAPER_GROWTH:g}^{phi:.2f} = "
        f"{PAPER_GROWTH**phi:.2f} times.",
        f"The published multipliers give d * w^2 * r^2 = {explanation.product:.2f}; counted, {name} does {ratio:.2f} "
        f"times the multiply-adds of {short(explanation.baseline)}.",
    ]
    if ratio > explanation.product:
        said.append(f"It is more because every stage rounds its layers up: {member.num_blocks} blocks, where "
                    f"{depth:g} x {baseline.num_blocks} is {depth * baseline.num_blocks:.1f}; "
                    "channels are rounded too.")  # fmt: skip
    else:
        said.append("It is less because not all of a network grows with w^2: depthwise convolutions and the stem "
                    "grow with w.")  # fmt: skip
    return tuple(said)


def _rounding_sentences(width: float, family: Family) -> tuple[str, ...]:
    """A sentence for each channel count that the 0.9 rule changes, or would change where the family has none."""
    rule, without = Rounding(divisor=family.rounding.divisor), replace(family.rounding, keep_ratio=0)
    ends = () if family.rounding.fixed_ends else (family.baseline.stem.channels, family.baseline.head.channels)
    said = []
    for channels in sorted({stage.channels for stage in family.baseline.stages} | set(ends)):
        kept, plain = round_channels(channels, width, rule), round_channels(channels, width, without)
        if kept == plain:
            continue
        what = (f"{channels} channels x {width:g} = {channels * width:g}; the nearest multiple of {rule.divisor} is "
                f"{plain}, less than {rule.keep_ratio:g} of that")  # fmt: skip
        if family.rounding.keep_ratio:
            said.append(f"{what}, so it becomes {kept}.")
        else:
            said.append(f"{what}; this family's code allows it, where EfficientNet's would take {kept}.")
    return tuple(said)
