"""Gathers what race.py wrote into records.jsonl, prints the tables of README.md and draws race.png.

Usage: collect.py [FOLDER] (runs/race).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trifold.study.choose import mean_and_interval

HERE = Path(__file__).parent
LEVEL, SECONDS = 0.70, 900
NAMES = {"trifold": "Trifold", "peer": "timm's model, plain loop"}
COLOURS = {"trifold": "#0072B2", "peer": "#D55E00"}


def time_to(record: dict[str, Any]) -> float | None:
    """Wall seconds from the command's start until an epoch with the level on minival was logged, or None."""
    return next((when for when, accuracy in record["epochs"] if accuracy >= LEVEL), None)


def best(record: dict[str, Any]) -> float:
    """The best accuracy on minival within the time, in percent."""
    return 100 * max(accuracy for when, accuracy in record["epochs"] if when <= SECONDS)


def interval(values: list[float]) -> str:
    """The mean with its 95 % interval over the seeds (Student's t)."""
    mean, half = mean_and_interval(values)
    return f"{mean:.1f} ± {half:.1f}"


def main() -> None:
    """Writes records.jsonl and race.png, prints the tables."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/race")
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9].json"))]
    (HERE / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print("| | seed | seconds to 70 % | best on minival, % | test, % | epochs | seconds an epoch |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for record in records:
        gaps = [later[0] - earlier[0] for earlier, later in zip(record["epochs"], record["epochs"][1:], strict=False)]
        print(
            f"| {NAMES[record['who']]} | {record['seed']} | {time_to(record) or 'not reached'} | {best(record):.2f} "
            f"| {100 * record['test']:.2f} | {len(record['epochs'])} | {statistics.median(gaps):.0f} |"
        )
    for who, name in NAMES.items():
        own = [record for record in records if record["who"] == who]
        if len(own) > 1:
            reached = [when for record in own if (when := time_to(record)) is not None]
            print(f"{name}: to 70 % {interval(reached)} s; best {interval([best(record) for record in own])} %;"
                  f" test {interval([100 * record['test'] for record in own])} %.")  # fmt: skip
    draw(records, HERE / "race.png")


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Accuracy on minival over wall seconds, a line a run."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for record in records:
        seconds, accuracies = zip(*record["epochs"], strict=True)
        label = NAMES[record["who"]] if record["seed"] == 0 else None
        style = "o-" if record["who"] == "trifold" else "s--"
        axes.plot(
            seconds, [100 * value for value in accuracies], style, color=COLOURS[record["who"]], label=label, ms=4
        )
    axes.axhline(100 * LEVEL, color="#595959", lw=0.8, ls=":")
    axes.set(xlabel="seconds since the command began", ylabel="correct on minival, %", xlim=(0, SECONDS))
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
