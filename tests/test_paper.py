from __future__ import annotations

import json
from pathlib import Path

import pytest

from trifold import published
from trifold.baselines import EFFICIENTNET_MULTIPLIERS, find
from trifold.cost import cost
from trifold.errors import InvalidInput
from trifold.paper import implied_phi, multipliers_of, needs_training, product, short, table, tables, transfer
from trifold.table import KINDS, Cell, Table, lines

DATA = Path(__file__).parent / "data"
COSTS = json.loads((DATA / "costs.json").read_text())["networks"]
IMPLIED_PHI = json.loads((DATA / "implied_phi.json").read_text())


def column(shown: Table, number: int) -> list[Cell]:
    return [row[number] for row in shown.rows]


def same_as_printed(value: object, printed: str) -> bool:
    """Whether the value, rounded to the digits of the printed text, is that text."""
    assert isinstance(value, int | float)
    digits = len(printed.partition(".")[2])
    return round(value, digits) == float(printed)


@pytest.mark.parametrize("shown", tables(), ids=lambda shown: shown.number)
def test_every_table_fits_110_columns_and_says_where_each_column_comes_from(shown: Table) -> None:
    assert max(map(len, lines(shown))) <= 110
    assert all(len(row) == len(shown.columns) for row in shown.rows)
    assert {col.kind for col in shown.columns} <= set(KINDS)
    assert any(col.kind != "label" for col in shown.columns)
    assert shown.source


def test_table_1_is_version_5_and_version_1_errs_in_stage_6() -> None:
    shown = table(1)
    assert column(shown, 7) == ["same"] * 5 + ["resolution 28"] + ["same"] * 3
    assert column(shown, 8) == ["same"] * 9
    assert [row[0:5] for row in shown.rows] == [
        (row.stage, row.operator, row.resolution, row.channels, row.layers) for row in published.TABLE1
    ]
    whole = cost(find("b0"))
    assert (sum(column(shown, 5)), sum(column(shown, 6))) == (whole.parameters, whole.multiply_adds)  # type: ignore[arg-type]


def test_table_2_has_the_exact_integers_beside_the_printed_numbers() -> None:
    shown = table(2)
    stored = [COSTS[size.name] for size in published.TABLE2_SIZES]
    assert column(shown, 1) == [row["parameters"] for row in stored]
    assert column(shown, 4) == [row["multiply_adds"] for row in stored]
    assert column(shown, 2) == [5.3, 7.8, 9.2, 12, 19, 30, 43, 66]
    assert column(shown, 5) == [0.39, 0.70, 1.0, 1.8, 4.2, 9.9, 19, 37]


def test_the_flops_of_b4_and_b5_differ_most_from_the_printed_ones() -> None:
    apart = {str(row[0]): abs(float(str(row[6]))) for row in table(2).rows}
    assert sorted(apart, key=lambda name: -apart[name])[:2] == ["B4", "B5"]
    assert 3.5 < apart["B5"] < apart["B4"] < 5


def test_recomputed_ratios_to_rivals_are_the_printed_ones_within_5_percent_but_for_one() -> None:
    off = [row[0] for row in table("2-rivals").rows if any(abs(d or 0) > 5 for d in (row[5], row[9]))]  # type: ignore[arg-type]
    assert off == ["PNASNet"]
    rows = {row[0]: row for row in table("2-rivals").rows}
    assert round(float(str(rows["ResNet-50"][4])), 1) == 4.9
    assert round(float(str(rows["GPipe"][4])), 1) == 8.4
    assert rows["GPipe"][6:] == (None, None, None, None)


def test_a_printed_ratio_that_its_own_numbers_do_not_give_is_named() -> None:
    assert [note.split(":")[0] for note in table("2-rivals").notes[1:]] == ["PNASNet"]
    assert [note.split(":")[0] for note in table(5).notes[1:]] == ["Oxford-IIIT Pets, ResNet-152"]


def test_the_accuracies_of_the_three_versions_stand_side_by_side() -> None:
    rows = {row[0]: row for row in table("2-accuracy").rows}
    assert rows["B4"] == ("B4", 82.6, 96.3, 83.0, 82.9, 96.4, 82.89, 82.94)
    assert rows["B0"][1:5] == (76.3, 93.2, 77.3, 77.1)
    assert {col.kind for col in table("2-accuracy").columns} == {"label", "paper"}


def test_table_3_recomputes_the_baselines_and_single_dimensions() -> None:
    counted = {(row[0], row[1]): row[2] for row in table(3).rows}
    for name in ("mobilenet_v1", "mobilenet_v2", "resnet50"):
        assert counted[name, "baseline"] == COSTS[name]["multiply_adds"]
    follow = {key: round(float(str(counted[key])) / 1e9, 1) for key in counted}
    assert follow["mobilenet_v1", "w=2"] == 2.2
    assert follow["mobilenet_v2", "d=4"] == 1.2
    assert follow["mobilenet_v2", "w=2"] == 1.1
    assert follow["mobilenet_v2", "r=2"] == 1.2
    assert follow["resnet50", "r=2"] == 16.4


def test_table_3_says_where_the_printed_flops_do_not_follow() -> None:
    notes = " ".join(table(3).notes)
    assert "resnet50, d=4: the multipliers give 14.57 B, the paper prints 16.2 B (-10 %)." in notes
    assert "resnet50, w=2: the multipliers give 16.12 B, the paper prints 14.7 B (+10 %)." in notes
    assert "resnet50: the printed FLOPS of d=4 and w=2 fit each other's row" in notes
    assert "mobilenet_v1, w=2" not in notes


def test_table_5_recomputes_the_parameters_without_the_classifier() -> None:
    for row in table(5).rows:
        name = f"efficientnet_{str(row[2]).lower()}"
        assert row[3] == COSTS[name]["parameters_without_classifier"]
        assert row[4] is None or abs(int(str(row[3])) / 1e6 - float(str(row[4]))) < 0.75


def test_transfer_gives_the_rows_of_one_data_set_and_how_far_one_s_own_accuracy_lies_above_each() -> None:
    assert transfer("oxford_pets").rows == (
        ("B4", "EfficientNet", 17, 94.8),
        ("ResNet-152", "best public", 58, 94.5),
        ("B6", "EfficientNet", 41, 95.4),
        ("GPipe", "best reported", 556, 95.9),
    )
    assert lines(transfer("cifar10", 97.5)) == (
        "                         paper  paper    diff",
        "network   as                 M    acc  points",
        "--------  -------------  -----  -----  ------",
        "B0        EfficientNet       4   98.1    -0.6",
        "NASNet-A  best public       85   98.0    -0.5",
        "B7        EfficientNet      64   98.9    -1.4",
        "GPipe     best reported    556   99.0    -1.5",
    )
    with pytest.raises(InvalidInput, match=r"data set must be one of cifar10, .*, got 'digits'"):
        transfer("digits")


def test_every_data_set_of_table_5_has_four_rows_by_its_short_name() -> None:
    assert list(published.TRANSFER_SETS.values()) == [dataset.name for dataset in published.TABLE6]
    assert [len(transfer(name, 90.0).rows) for name in published.TRANSFER_SETS] == [4] * 8


def test_table_6_costs_the_classifier_of_each_data_set() -> None:
    for row, dataset in zip(table(6).rows, published.TABLE6, strict=True):
        without = COSTS["efficientnet_b0"]["parameters_without_classifier"]
        assert row[:4] == (dataset.name, dataset.train, dataset.test, dataset.classes)
        assert row[5] == without + 1281 * dataset.classes


def test_table_7_s_compound_network_costs_what_the_paper_prints_and_the_others_less() -> None:
    apart = {row[1]: row[6] for row in table(7).rows}
    assert apart.pop("d=1.4 w=1.2 r=1.3") == pytest.approx(0, abs=0.05)
    assert apart.pop("baseline") == pytest.approx(-3.5, abs=0.1)
    assert set(apart) == {"d=4", "w=2", "r=2"}
    assert all(float(str(value)) < -12 for value in apart.values())
    assert len(table(7).notes) == 4


def test_figure_3_s_sweeps_end_within_its_axes_but_for_width() -> None:
    last = {row[0]: float(str(row[6])) / 1e9 for row in table("figure-3").rows}
    assert {name: round(value, 1) for name, value in last.items()} == {"width": 8.7, "depth": 3.2, "resolution": 2.4}


@pytest.mark.parametrize("printed", IMPLIED_PHI, ids=lambda row: row["name"])
def test_implied_phi_of_each_published_network(printed: dict[str, str]) -> None:
    row = next(row for row in table("phi").rows if row[0] == printed["name"])
    for value, name in zip(
        row[4:], ("depth", "width", "resolution", "product", "ratio", "log2", "phi", "activations", "parameters"),
        strict=True,
    ):  # fmt: skip
        assert same_as_printed(value, printed[name]), name


def test_implied_phi_inverts_the_formula() -> None:
    assert implied_phi(1.2**2.5, 1.2) == pytest.approx(2.5)
    assert product(multipliers_of("efficientnet_b0")) == 1
    assert short("efficientnet_b3") == "B3"
    assert short("efficientnet_lite0") == "efficientnet_lite0"


def test_tables_of_one_number_are_that_and_its_parts() -> None:
    assert [shown.number for shown in tables("2")] == ["2", "2-rivals", "2-accuracy"]
    assert [shown.number for shown in tables(7)] == ["7"]
    assert [shown.number for shown in tables()] == [
        "1", "2", "2-rivals", "2-accuracy", "3", "5", "6", "7", "figure-3", "phi"
    ]  # fmt: skip
    assert len(table("phi").rows) == len(EFFICIENTNET_MULTIPLIERS) - 1


def test_a_table_that_needs_training_says_so() -> None:
    with pytest.raises(InvalidInput, match="Table 4 cannot be recomputed: latency is measured"):
        table(4)
    with pytest.raises(InvalidInput, match="Figure 7 cannot be recomputed"):
        table("figure-7")
    with pytest.raises(InvalidInput, match="table must be one of 1, 2, 2-rivals"):
        table("9")


def test_every_table_and_figure_of_results_is_recomputed_or_listed_as_needing_training() -> None:
    covered = {f"Table {shown.number}" for shown in tables()} | {part.what.split(",")[0] for part in needs_training()}
    assert {f"Table {i}" for i in range(1, 9)} <= covered
    assert {f"Figure {i}" for i in (1, 3, 4, 5, 6, 7, 8)} <= covered
    assert all(part.why for part in needs_training())
