"""Gathers the finished runs of run.sh into records.jsonl and prints their table, five seeds a budget."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from trifold.train.record import Record, read_record

HERE = Path(__file__).parent
RUNS = HERE.parent.parent / "runs" / "results-digits"


def row(records: list[Record], budget: str) -> str:
    """One budget's line: mean, least and most of test accuracy over the seeds, in percent."""
    accuracies = [100 * record.accuracy for record in records]
    seconds = [record.result.seconds for record in records]
    cost = records[0].result.cost
    return (
        f"| {budget} | {cost['multiply_adds']:,} | {cost['parameters']:,} | {len(records)} "
        f"| {statistics.mean(accuracies):.2f} | {min(accuracies):.2f} to {max(accuracies):.2f} "
        f"| {min(seconds):.0f} to {max(seconds):.0f} |"
    )


def main() -> None:
    """Writes records.jsonl, one run a line, and prints the table."""
    lines, nearest = [], {}
    print("| budget | multiply-adds | parameters | seeds | mean | least to most | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for budget in ("1M", "3M"):
        paths = sorted(RUNS.glob(f"{budget}-*/record.json"))
        records = [read_record(path) for path in paths]
        print(row(records, budget))
        lines += [json.dumps(record.to_dict()) for record in records]
        nearest |= {record.asked["split_seed"]: 100 * record.result.nearest.accuracy for record in records}
    values = list(nearest.values())
    print(f"\nThree nearest neighbours on the same splits: {statistics.mean(values):.2f} %, "
          f"{min(values):.2f} to {max(values):.2f} %.")  # fmt: skip
    (HERE / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
