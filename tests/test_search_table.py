"""A table of candidates and its reading; and NATS-Bench's real one, with a short search on it."""

import gzip
from pathlib import Path

import pytest

from benchmarks.nats_samplers import SIZES, best, problems, read_nats, tokens_of
from trifold.errors import InvalidInput
from trifold.search.samplers import Random
from trifold.search.table import Table, number, read_csv

TABLE = Table(
    sizes=(2, 2),
    rows={(0, 0): {"accuracy": 50, "ms": 2}, (0, 1): {"accuracy": 60}, (1, 1): {"accuracy": 70, "ms": 4.5}},
)


def test_a_candidate_is_looked_up_by_its_tokens() -> None:
    assert TABLE.evaluate((1, 1)) == {"accuracy": 70, "ms": 4.5}
    assert TABLE.evaluate((1, 1), "ms") == {"ms": 4.5}
    assert TABLE.evaluate((0, 1)) == {"accuracy": 60}
    assert TABLE.column("ms") == [2, 4.5]


@pytest.mark.parametrize(
    ("tokens", "names", "complaint"),
    [((0, 1), ("ms",), r"ms of candidate \(0, 1\) was not measured"), ((1, 0), (), r"\(1, 0\) is not in it")],
)
def test_what_was_not_measured_is_refused(tokens: tuple[int, ...], names: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        TABLE.evaluate(tokens, *names)


def test_only_candidates_with_all_values_are_allowed() -> None:
    every = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [TABLE.allowed("accuracy")(one) for one in every] == [True, True, False, True]
    assert [TABLE.allowed("accuracy", "ms")(one) for one in every] == [True, False, False, True]
    sampler = Random(TABLE.sizes, seed=0)
    for asked in range(2):
        tokens = sampler.ask(asked, TABLE.allowed("ms"))
        assert tokens in {(0, 0), (1, 1)}
        sampler.tell(tokens, TABLE.evaluate(tokens)["ms"])
    assert len(sampler.told.seen) == 2


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({}, "table must hold at least one candidate"),
        ({(0, 2): {"a": 1.0}}, r"table: tokens must be 2 indices below \(2, 2\), got \(0, 2\)"),
        ({(0,): {"a": 1.0}}, r"table: tokens must be 2 indices below \(2, 2\), got \(0,\)"),
        ({(0, 1): {"a": float("nan")}}, r"table: a of \(0, 1\) must be a finite number, got nan"),
    ],
)
def test_a_table_is_checked(rows: dict[tuple[int, ...], dict[str, float]], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        Table(sizes=(2, 2), rows=rows)


@pytest.mark.parametrize("name", ["plain.csv", "packed.csv.gz"])
def test_csv_is_read_plain_and_compressed(name: str, tmp_path: Path) -> None:
    text = b"cell,ms\na,1.5\nb,0\n"
    (tmp_path / name).write_bytes(gzip.compress(text, mtime=0) if name.endswith("gz") else text)
    rows = list(read_csv(tmp_path / name, "ms"))
    assert rows == [{"cell": "a", "ms": "1.5"}, {"cell": "b", "ms": "0"}]
    assert [number(row, "ms") for row in rows] == [1.5, 0]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", None, "cannot be read: No such file or directory"),
        ("a.csv", b"cell\na\n", "columns must include cell, ms; 'ms' is not there"),
        ("a.csv", b"", "columns must include cell, ms; 'cell' is not there"),
        ("a.csv", b"cell,ms\na\n", "line 2: must have 2 fields"),
        ("a.csv", b"cell,ms\na,1,2\n", "line 2: must have 2 fields"),
        ("a.csv", b"cell,ms\n\xff,1\n", "cannot be read: 'utf-8' codec"),
        ("a.csv.gz", b"cell,ms\na,1\n", "cannot be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"cell,ms\na,1\n" * 99, mtime=0)[:-12], "cannot be read: "),
        ("a.csv.gz", gzip.compress(b"cell,ms\na,1\n" * 99, mtime=0)[:30] + bytes(40), "cannot be read: "),
    ],
)
def test_a_file_that_is_no_such_table_is_one_line(
    name: str, content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        list(read_csv(tmp_path / name, "cell", "ms"))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "fast", "nan", "inf"])
def test_a_cell_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=f"ms must be a finite number, got '{text}'"):
        number({"ms": text}, "ms")


def test_a_cell_of_nats_bench_becomes_six_operations() -> None:
    cell = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    assert tokens_of(cell) == (4, 2, 1, 0, 3, 1)
    for wrong in ("", "|none~0|", cell.replace("none", "conv_7x7")):
        with pytest.raises(ValueError, match="a cell must have 6 edges"):
            tokens_of(wrong)


def test_nats_bench_as_published(data_dir: Path) -> None:
    table = read_nats(data_dir)
    assert table.sizes == SIZES
    assert len(table.rows) == 5**6
    most = {name: max(table.column(name)) for name in ("CIFAR-10", "CIFAR-100", "ImageNet16-120")}
    assert {name: round(value, 2) for name, value in most.items()} == {  # the published optima
        "CIFAR-10": 94.37,
        "CIFAR-100": 73.51,
        "ImageNet16-120": 47.31,
    }
    assert table.evaluate((4, 2, 1, 2, 1, 1), "pi5 onnx") == {"pi5 onnx": 1.8305045}  # row 0 of both files
    assert min(table.column("pi5 onnx")) > 0
    accuracy, *_, timed = problems(table)
    for problem in (accuracy, timed):
        assert best("evolution", problem, table, seed=0, evaluations=150) > best(
            "random", problem, table, seed=0, evaluations=150
        )
