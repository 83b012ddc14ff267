from __future__ import annotations

import pytest

from trifold import published
from trifold.baselines import EFFICIENTNET_MULTIPLIERS, find

B0_TO_B7 = [f"efficientnet_b{i}" for i in range(8)]


def test_b4_reads_82_6_then_83_0_then_82_9() -> None:
    versions = (published.ACCURACY_V1, published.ACCURACY_MIDDLE, published.ACCURACY_V5)
    assert [version[4].top1 for version in versions] == [82.6, 83.0, 82.9]
    assert (published.TABLE8[4].val_top1, published.TABLE8[4].test_top1) == (82.89, 82.94)


@pytest.mark.parametrize(
    "rows",
    [
        published.TABLE2_SIZES,
        published.ACCURACY_V1,
        published.ACCURACY_MIDDLE,
        published.ACCURACY_V5,
        published.TABLE8,
    ],
)
def test_the_tables_of_the_family_hold_b0_to_b7_in_order(rows: tuple[published.Size, ...]) -> None:
    assert [row.name for row in rows] == B0_TO_B7


def test_version_5_is_its_exact_validation_accuracy_rounded_but_for_the_top_5_of_b1() -> None:
    apart = []
    for printed, exact in zip(published.ACCURACY_V5, published.TABLE8, strict=True):
        assert abs(printed.top1 - exact.val_top1) <= 0.0501
        if printed.top5 is None or abs(printed.top5 - exact.val_top5) > 0.0501:
            apart.append((printed.name, printed.top5, exact.val_top5))
    assert apart == [("efficientnet_b1", 94.4, 94.47)]


def test_larger_networks_are_printed_as_better_in_every_version() -> None:
    for version in (published.ACCURACY_V1, published.ACCURACY_MIDDLE, published.ACCURACY_V5):
        top1 = [row.top1 for row in version]
        assert top1 == sorted(top1)


def test_the_rivals_stand_beside_b0_to_b5_and_b7() -> None:
    beside = [rival.against.removeprefix("efficientnet_") for rival in published.TABLE2_RIVALS]
    assert {name: beside.count(name) for name in beside} == {
        "b0": 2, "b1": 4, "b2": 2, "b3": 2, "b4": 4, "b5": 1, "b7": 1
    }  # fmt: skip


def test_no_rival_is_printed_as_smaller_or_clearly_better() -> None:
    accuracy = {row.name: row.top1 for row in published.ACCURACY_V5}
    for rival in published.TABLE2_RIVALS:
        assert rival.parameters_ratio > 1
        assert rival.flops_ratio is None or rival.flops_ratio > 1
        assert rival.top1 <= accuracy[rival.against]


def test_table_4_s_speedups_follow_from_its_latencies() -> None:
    for row in published.TABLE4:
        assert round(row.rival_latency_s / row.latency_s, 1) == row.speedup


def test_table_5_has_two_comparisons_for_each_data_set_of_table_6() -> None:
    names = [dataset.name for dataset in published.TABLE6]
    assert len(names) == 8
    for comparison in ("public", "reported"):
        assert [row.dataset for row in published.TABLE5 if row.comparison == comparison] == names


def test_efficientnet_is_printed_as_best_reported_on_5_of_8_data_sets() -> None:
    """As the paper counts: Aircraft and Food-101 are level, and printed in bold for EfficientNet."""
    reported = [row for row in published.TABLE5 if row.comparison == "reported"]
    assert sum(row.accuracy >= row.rival_accuracy for row in reported) == 5


def test_table_6_is_the_published_one() -> None:
    assert [(d.train, d.test, d.classes) for d in published.TABLE6] == [
        (50000, 10000, 10), (50000, 10000, 100), (47386, 2443, 500), (8144, 8041, 196),
        (2040, 6149, 102), (6667, 3333, 100), (3680, 3369, 37), (75750, 25250, 101),
    ]  # fmt: skip


def test_every_named_network_is_shipped() -> None:
    for row in (*published.TABLE3, *published.TABLE7):
        assert find(row.baseline).name == row.baseline
    for name in published.NOMINAL_PHI:
        assert name in EFFICIENTNET_MULTIPLIERS
    assert set(published.DROPOUT) == set(EFFICIENTNET_MULTIPLIERS)


def test_table_1_of_version_5_is_the_shipped_baseline() -> None:
    assert [row.layers for row in published.TABLE1] == [1, 1, 2, 2, 3, 3, 4, 1, 1]
    assert [row.channels for row in published.TABLE1] == [32, 16, 24, 40, 80, 112, 192, 320, 1280]
    assert [row.resolution for row in published.TABLE1] == [224, 112, 112, 56, 28, 14, 14, 7, 7]


def test_the_sweeps_of_figure_3_start_at_the_baseline() -> None:
    for values in (published.FIGURE3_WIDTHS, published.FIGURE3_DEPTHS, published.FIGURE3_RESOLUTIONS):
        assert values[0] == 1
        assert list(values) == sorted(values)
    assert published.FIGURE3_RESOLUTIONS[-1] * 224 == 560
    assert [(curve.depth, curve.resolution) for curve in published.FIGURE4] == [
        (1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3)
    ]  # fmt: skip


def test_the_tinynets_are_timm_s() -> None:
    timm = pytest.importorskip("timm")
    rows = find("b0").stages
    for net in published.TINYNETS:
        built = timm.create_model(net.name).blocks
        channels = [stage[-1].conv_pwl.out_channels for stage in built[1:]]
        assert [len(stage) for stage in built] == [max(1, round(row.layers * net.depth)) for row in rows]
        assert channels == [timm.layers.make_divisible(row.channels * net.width, 8) for row in rows[1:]]
        assert timm.models.get_pretrained_cfg(net.name).input_size[1] == net.resolution
