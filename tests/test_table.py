from __future__ import annotations

from trifold.table import Column, Table, lines

SMALL = Table(
    number="0",
    title="a table",
    source="nowhere",
    columns=(
        Column(name="word", kind="label"),
        Column(name="whole"),
        Column(name="broken", digits=1),
        Column(name="as printed", kind="paper", digits=None),
        Column(name="%", kind="difference"),
    ),
    rows=(("one", 1234567, 2.0, 5.25, -1.5), ("three", 4, 1234.56, None, None)),
)


def test_words_stand_left_numbers_right_and_each_column_says_where_it_comes_from() -> None:
    assert lines(SMALL) == (
        "            ours     ours       paper   diff",
        "word       whole   broken  as printed      %",
        "-----  ---------  -------  ----------  -----",
        "one    1,234,567      2.0        5.25  -1.50",
        "three          4  1,234.6           -      -",
    )
