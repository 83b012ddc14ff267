"""Gathers the finished runs of run.sh into records.jsonl and prints their table, three seeds a start."""

from __future__ import annotations

import json
from pathlib import Path

from trifold.study.choose import mean_and_interval
from trifold.train.record import Record, read_record

HERE = Path(__file__).parent
RUNS = HERE.parent.parent / "runs" / "results-trashnet"
STARTS = ("random", "pretrained")


def interval(values: list[float]) -> str:
    """The mean with its 95 % interval over the seeds (Student's t)."""
    mean, half = mean_and_interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def row(records: list[Record], start: str) -> str:
    """One start's line: mean with its interval, least and most of test accuracy over the seeds, in percent."""
    accuracies = [100 * record.accuracy for record in records]
    seconds = [record.result.seconds for record in records]
    kept = sorted(record.result.epoch for record in records)
    return (
        f"| {start} | {len(records)} | {interval(accuracies)} | {min(accuracies):.2f} to {max(accuracies):.2f} "
        f"| {kept[0]} to {kept[-1]} of {records[0].result.epochs} | {min(seconds):.0f} to {max(seconds):.0f} |"
    )


def main() -> None:
    """Writes records.jsonl, one run a line, and prints the table. Seeds that both starts have finished are compared."""
    lines: list[str] = []
    nearest: dict[int, float] = {}
    accuracy: dict[str, dict[int, float]] = {}
    print("| start | seeds | mean, 95 % interval | least to most | epoch kept | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for start in STARTS:
        records = [read_record(path) for path in sorted(RUNS.glob(f"{start}-*/record.json"))]
        if len(records) < 2:
            raise SystemExit(f"{RUNS}: {len(records)} finished runs from {start} weights; run.sh makes three")
        print(row(records, start))
        accuracy[start] = {record.asked["seed"]: 100 * record.accuracy for record in records}
        lines += [json.dumps(record.to_dict()) for record in records]
        nearest |= {record.asked["split_seed"]: 100 * record.result.nearest.accuracy for record in records}
    both = sorted(set(accuracy["random"]) & set(accuracy["pretrained"]))
    gains = [accuracy["pretrained"][seed] - accuracy["random"][seed] for seed in both]
    print(f"\nPretrained less random, seed by seed: {interval(gains)} points.")
    print(f"Three nearest neighbours on the same splits: {interval(list(nearest.values()))} %.")
    (HERE / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
