"""Wall time of a study with two workers on one storage to that of one worker, trainings of one thread each.

    .venv/bin/python benchmarks/study_workers.py [--rounds 1] [--seeds 3] [--epochs 3]

The study is `trifold ablate mini digits`; one worker and two take turns, each round in new folders. Time is from the
start of the first process to the end of the last, imports included. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(workers: int, folder: Path, seeds: int, epochs: int) -> tuple[float, int]:
    """Wall time of the whole study, and its number of trainings."""
    words = [
        sys.executable, "-m", "trifold", "ablate", "mini", "digits", "--factors", "2", "--kinds",
        "depth,width,resolution,compound", "--seeds", str(seeds), "--epochs", str(epochs), "--threads", "1", "--out",
        str(folder), "--json",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    running = []
    for number in range(workers):
        if number:
            time.sleep(0.5)  # the first makes the storage
        running.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
    outputs = [one.communicate()[0] for one in running]
    spent = time.monotonic() - began
    assert all(one.returncode == 0 for one in running)
    found = json.loads(outputs[0])["findings"]
    assert found["trained"] == found["full"]
    return spent, found["full"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rounds", 1), ("seeds", 3), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    ratios = []
    for _ in range(asked.rounds):
        spent = {}
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                spent[workers], trainings = seconds(workers, Path(folder) / "study", asked.seeds, asked.epochs)
            print(
                f"{workers} worker{'s' * (workers > 1)}: {spent[workers]:.1f} s for {trainings} trainings", flush=True
            )
        ratios.append(spent[2] / spent[1])
    print(f"two workers take {statistics.median(ratios):.2f} of one worker's time")


if __name__ == "__main__":
    main()
