"""How well a supernet ranks networks that a search trained in full: Kendall's tau, beside that of the short trainings.

    python supernet_rank.py SEARCH DATA OUT [EPOCHS]

SEARCH is a finished search's folder, DATA the images that it was given, OUT the supernet's folder; it goes on where it
was stopped. Every network that the search trained in full and that lies in its space is judged by its part of one
supernet of that space, trained for EPOCHS (8), without looking at what the full trainings gave. The first seed of each
is compared.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from trifold.data.sources import open_data
from trifold.errors import InvalidInput
from trifold.search.supernet_evaluate import evaluate_candidate
from trifold.search.supernet_run import train_supernet
from trifold.study.contest import rank
from trifold.study.folder import read_study
from trifold.study.searched import kept_search
from trifold.train.machine import Machine
from trifold.train.progress import progress_bar


def main(folder: Path, data: str, out: Path, epochs: int) -> None:
    """Trains or reads the supernet, judges the networks, writes ranks.jsonl in OUT and prints both taus."""
    searched = kept_search(folder, read_study(folder))
    search, contest = searched.search, searched.contest
    if contest is None:
        raise SystemExit(f"{folder}: trained nothing in full yet")
    with progress_bar() as progress:
        made = train_supernet(
            open_data(data),
            search.space,
            replace(search.common.recipe, epochs=epochs, warmup_epochs=1.0),
            folder=out,
            seed=search.seed,
            split_seed=search.common.split_seed,
            machine=Machine(threads=1),
            progress=progress,
        )
    lines = []
    for number, (entrant, name) in enumerate(zip(contest.entrants, contest.names, strict=True)):
        if (number, 0) not in searched.full:
            continue
        try:
            share = evaluate_candidate(made.supernet, entrant.architecture, made.task)
        except InvalidInput as error:  # the baseline at the found network's cost need not lie in the space
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        lines.append(
            {
                "network": name,
                "supernet": 100 * share,
                "short": entrant.estimate,
                "full": searched.full[number, 0].score,
                "multiply_adds": entrant.costs["multiply_adds"],
            }
        )
    (out / "ranks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for kind in ("supernet", "short"):
        known = [line for line in lines if line[kind] is not None]
        found = rank([line[kind] for line in known], [line["full"] for line in known])
        print(f"{kind}: tau {found.tau:.2f}, {found.low:.2f} to {found.high:.2f}, over {found.networks} networks")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 8)
