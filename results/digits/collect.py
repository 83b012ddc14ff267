"""Gathers the finished runs of run.sh into records.jsonl and prints their table, five seeds a budget."""

from __future__ import annotations

import json
from pathlib import Path

from trifold.study.choose import mean_and_interval
from trifold.train.record import Record, read_record

HERE = Path(__file__).parent
RUNS = HERE.parent.parent / "runs" / "results-digits"


def interval(values: list[float]) -> str:
    """The mean with its 95 % interval over the seeds (Student's t)."""
    mean, half = mean_and_interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def row(records: list[Record], budget: str) -> str:
    """One budget's line: mean with its interval, least and most of test accuracy over the seeds, in percent."""
    accuracies = [100 * record.accuracy for record in records]
    seconds = [record.result.seconds for record in records]
    cost = records[0].result.cost
    return (
        f"| {budget} | {cost['multiply_adds']:,} | {cost['parameters']:,} | {len(records)} "
        f"| {interval(accuracies)} | {min(accuracies):.2f} to {max(accuracies):.2f} "
        f"| {min(seconds):.0f} to {max(seconds):.0f} |"
    )


def main() -> None:
    """Writes records.jsonl, one run a line, and prints the table."""
    lines, nearest, accuracy = [], {}, {}
    print("| budget | multiply-adds | parameters | seeds | mean, 95 % interval | least to most | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for budget in ("1M", "3M"):
        paths = sorted(RUNS.glob(f"{budget}-*/record.json"))
        records = [read_record(path) for path in paths]
        print(row(records, budget))
        accuracy[budget] = {record.asked["split_seed"]: 100 * record.accuracy for record in records}
        lines += [json.dumps(record.to_dict()) for record in records]
        nearest |= {record.asked["split_seed"]: 100 * record.result.nearest.accuracy for record in records}
    print(f"\nThree nearest neighbours on the same splits: {interval(list(nearest.values()))} %.")
    for name, one, other in (("3M less 1M", accuracy["3M"], accuracy["1M"]), ("3M less 3-NN", accuracy["3M"], nearest)):
        print(f"{name}, seed by seed: {interval([one[seed] - other[seed] for seed in one])} points.")
    (HERE / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
