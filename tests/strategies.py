"""Hypothesis strategies for descriptions: small enough to build, wide enough to meet every operator and option."""

from __future__ import annotations

from hypothesis import strategies as st

from trifold.architecture import ACTIVATIONS, OPERATORS, Architecture, Head, Stage, Stem
from trifold.scaling import RULES, Coefficients, Multipliers, Rounding


def widths() -> st.SearchStrategy[int]:
    """Channels of which some are equal, double or half of others, so that rounding can make them meet."""
    return st.sampled_from((4, 8, 12, 16, 24, 32, 48)) | st.integers(1, 72)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    operator = draw(st.sampled_from(OPERATORS))
    ratio, of = 1.0, "input"
    if operator in ("mbconv", "fused_mbconv", "bottleneck"):
        ratio = draw(st.sampled_from((0.25, 0.5, 0.9, 1, 1.05, 1.5, 2, 3, 6)) | st.floats(0.1, 8))
        of = draw(st.sampled_from(("input", "output")))
    return Stage(
        operator=operator,
        channels=draw(widths()),
        layers=draw(st.integers(1, 3)),
        kernel_size=draw(st.sampled_from((1, 3, 5, 7))),
        stride=draw(st.sampled_from((1, 2))),
        expand_ratio=ratio,
        expand_of=of,
        se_ratio=draw(st.sampled_from((0, 0.0625, 0.25, 1)) | st.floats(0.01, 2)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        skip=draw(st.booleans()),
    )


@st.composite
def architectures(draw: st.DrawFn, *, max_stages: int = 4) -> Architecture:
    return Architecture(
        name=draw(st.sampled_from(("net", "my net", 'a"b', "größe", "π-😀"))),
        resolution=draw(st.integers(4, 70)),
        stem=Stem(
            channels=draw(widths()),
            kernel_size=draw(st.sampled_from((1, 3, 7))),
            stride=draw(st.sampled_from((1, 2))),
            activation=draw(st.sampled_from(ACTIVATIONS)),
            max_pool=draw(st.booleans()),
        ),
        stages=tuple(draw(st.lists(stages(), min_size=1, max_size=max_stages))),
        head=Head(channels=draw(st.sampled_from((0, 1, 8, 100))), activation=draw(st.sampled_from(ACTIVATIONS))),
    )


def coefficients() -> st.SearchStrategy[Coefficients]:
    factor = st.floats(1, 2)
    own = st.builds(Coefficients, alpha=factor, beta=factor, gamma=factor)
    return st.sampled_from(tuple(RULES.values())) | own


def multipliers() -> st.SearchStrategy[Multipliers]:
    factor = st.floats(0.1, 3)
    return st.builds(Multipliers, depth=factor, width=factor, resolution=factor)


def roundings() -> st.SearchStrategy[Rounding]:
    return st.builds(
        Rounding,
        divisor=st.sampled_from((1, 4, 8, 16)),
        keep_ratio=st.sampled_from((0, 0.9, 1)),
        depth=st.sampled_from(("ceil", "nearest")),
        resolution_step=st.sampled_from((1, 4, 32)),
        fixed_ends=st.booleans(),
    )
