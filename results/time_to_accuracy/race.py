"""Runs Trifold and the peer in turn, seed by seed, each for fifteen minutes, and notes when each epoch was evaluated.

Usage: race.py CIFAR10 [FOLDER]. CIFAR10 has train/ and test/, one folder a class. What is finished in FOLDER
(runs/race) is not run again. Each run computes with two threads: it needs two cores on which nothing else runs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from trifold.data.sources import open_data
from trifold.data.split import split

HERE = Path(__file__).parent
SEEDS, SECONDS = (0, 1, 2), 900
RECIPE = {
    "batch_size": 128, "lr": 4e-3, "warmup_epochs": 1.0, "weight_decay": 0.05, "label_smoothing": 0.1,
    "drop_rate": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0, "pad_crop": 4, "horizontal_flip": "true",
}  # fmt: skip


def command(who: str, data: Path, seed: int, folder: Path) -> list[str]:
    """The command of one run."""
    if who == "peer":
        minival = folder / f"minival-{seed}.txt"
        return [
            sys.executable,
            str(HERE / "peer.py"),
            str(data),
            str(minival),
            str(seed),
            str(SECONDS),
            str(folder / f"peer-{seed}.jsonl"),
        ]
    changes = [word for name, value in RECIPE.items() for word in ("--set", f"{name}={value}")]
    options = ["--time", f"{SECONDS}s", "--seed", str(seed), "--split-seed", str(seed), "--threads", "2", "--overwrite"]
    net = ["--net", str(HERE / "shape.toml"), "--recipe", "small", *changes]
    return [
        sys.executable,
        "-m",
        "trifold",
        "train",
        str(data),
        *net,
        *options,
        "--out",
        str(folder / f"trifold-{seed}"),
    ]


def epochs(who: str, path: Path) -> list[float]:
    """The minival accuracy of each epoch in a log so far."""
    if not path.exists():
        return []
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    if who == "peer":
        return [entry["minival"] for entry in entries if "minival" in entry]
    return [entry["minival_accuracy"] for entry in entries if entry["type"] == "epoch"]


def run(who: str, data: Path, seed: int, folder: Path) -> dict[str, object]:
    """One run: the wall seconds at which each epoch's accuracy stood in its log, and what came of it."""
    log = folder / (f"peer-{seed}.jsonl" if who == "peer" else f"trifold-{seed}/log.jsonl")
    log.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, seen = time.monotonic(), []
    with (folder / f"{who}-{seed}.out").open("w") as out:
        process = subprocess.Popen(command(who, data, seed, folder), stdout=out, stderr=out)
        while process.poll() is None:
            time.sleep(0.2)
            now, accuracies = time.monotonic() - began, epochs(who, log)
            seen += [(round(now, 1), accuracy) for accuracy in accuracies[len(seen) :]]
    if process.returncode:
        raise SystemExit(f"{who} {seed} failed; see {folder / f'{who}-{seed}.out'}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "who": who,
        "seed": seed,
        "epochs": seen,
        "test": test_accuracy(who, seed, folder),
        "wall_seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def test_accuracy(who: str, seed: int, folder: Path) -> float:
    """The accuracy on test of the epoch chosen on minival."""
    if who == "peer":
        return float(json.loads((folder / f"peer-{seed}.jsonl").read_text().splitlines()[-1])["test"])
    test = json.loads((folder / f"trifold-{seed}" / "record.json").read_text())["result"]["test"]
    return float(test["accuracy"])


def main() -> None:
    """Runs what is not finished."""
    data = Path(sys.argv[1]).resolve()
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/race")
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_data(str(data))
    for seed in SEEDS:
        held = [dataset.samples[i].name for i in split(dataset, seed=seed).minival]
        (folder / f"minival-{seed}.txt").write_text("\n".join(held))
        for who in ("trifold", "peer"):
            done = folder / f"{who}-{seed}.json"
            if not done.exists():
                done.write_text(json.dumps(run(who, data, seed, folder)) + "\n")
                print(done.read_text(), flush=True)


if __name__ == "__main__":
    main()
