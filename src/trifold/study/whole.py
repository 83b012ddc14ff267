"""An architecture search from first candidate to answer: the search, random search beside it, full trainings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna

from trifold.architecture import to_toml
from trifold.claimed import Shown
from trifold.data.dataset import Dataset
from trifold.report.markup import duration
from trifold.search.judges import by_supernet, by_training
from trifold.search.question import Search
from trifold.search.run import Evaluate, Found, Length, ranked, run_search, spent
from trifold.search.space import Measure
from trifold.search.supernet_run import TrainedSupernet, train_supernet
from trifold.study.folder import open_in, write_records, write_study
from trifold.study.page import draw
from trifold.study.run import run_study
from trifold.study.searched import BESIDE, Extent, Searched, full_name, standing
from trifold.train.assemble import Progress
from trifold.train.machine import Machine
from trifold.train.record import write_atomic
from trifold.trials import Claim, Job, NoStudy, Storage, Trained, finished, load_study, open_study, work

CHOSEN = "found.toml"
"""The network found, as far as is known, in a search's folder."""

WRITTEN_EVERY = 10.0
"""Seconds between two drawings of the page while a search goes on; a supernet's candidates may take less than one."""

Say = Callable[[str], AbstractContextManager[Progress | None]]
"""Tells the user what begins now, and shows its progress within."""


@dataclass(kw_only=True)
class Sitting:
    """A worker's part in a search. measures: every cost by name. runs: of run folders. say: None is silent.

    found, beside, full: what is finished, as it grows.
    """

    search: Search
    extent: Extent
    dataset: Dataset
    storage: Storage
    folder: Path
    measures: Mapping[str, Measure]
    runs: Path | None = None
    machine: Machine | None = None
    say: Say | None = None
    found: Found = field(default_factory=dict)
    beside: Found = field(default_factory=dict)
    full: Found = field(default_factory=dict)
    _judge: Evaluate | None = field(default=None, init=False, repr=False)
    _written: float = field(default=-math.inf, init=False, repr=False)

    def go(self, about: Mapping[str, Any]) -> Searched:
        """Does whatever is to be done, beside any other workers. about: `data` and `command`, for the page.

        Raises InvalidInput if the storage or the folder cannot be used, or asks something else; what trainings raise.
        """
        trials = open_in(self.folder, self.storage, self.search.question)
        self._begin(about)
        length = Length(candidates=self.extent.candidates)
        self.found = self._searched(self.search, trials, length, self._shown("found", "candidate"))
        if self.extent.beside and ranked(self.found):
            beside = self._beside
            trials = open_study(self._part("random"), beside.question)
            length = Length(candidates=0, spend=spent(self.found))
            self.beside = self._searched(beside, trials, length, self._shown("beside", "random candidate"))
        contest = self.standing.contest
        if contest is not None:
            trials = open_study(self._part(full_name(contest)), contest.question)
            names = contest.names
            shown = self._shown("full", "full training", lambda job: f" {names[job[0]]}, seed {job[1]}")
            self.full = run_study(
                contest,
                self.dataset,
                trials,
                folder=self.folder,
                runs=self.runs,
                machine=self.machine,
                shown=shown,
            )
        self.write()
        return self.standing

    def collect(self, about: Mapping[str, Any]) -> Searched:
        """Reads what is finished, and trains nothing. Raises InvalidInput as `go` does, or where there is no search."""
        self.found = finished(load_study(self.storage, self.search.question))
        self._begin(about)
        with suppress(NoStudy):
            self.beside = finished(load_study(self._part("random"), self._beside.question))
        contest = self.standing.contest
        if contest is not None:
            with suppress(NoStudy):
                self.full = finished(load_study(self._part(full_name(contest)), contest.question))
        self.write()
        return self.standing

    @property
    def standing(self) -> Searched:
        """What is known so far."""
        return standing(self.search, self.extent, self.found, self.beside, self.full)

    def write(self) -> Path:
        """Writes the records and the page, whose path it gives, and the best network so far as a description."""
        write_records(self.folder, self.found)
        if self.beside:
            write_records(self.folder, self.beside, BESIDE)
        known = self.standing
        if known.contest is not None and self.full:
            write_records(self.folder, self.full, f"{full_name(known.contest)}.jsonl")
        chosen = known.chosen
        if chosen is not None:
            write_atomic(
                self.folder / CHOSEN, to_toml(replace(chosen, name=f"{self.search.space.baseline.name}-found"))
            )
        path = draw(self.folder)
        self._written = time.monotonic()
        return path

    @property
    def _beside(self) -> Search:
        return replace(self.search, sampler="random")

    def _part(self, name: str) -> Storage:
        return replace(self.storage, name=f"{self.storage.name}-{name}")

    def _begin(self, about: Mapping[str, Any]) -> None:
        write_study(self.folder, self.search.question, {**about, "extent": asdict(self.extent)}, renewed=True)

    def _searched(self, search: Search, trials: optuna.Study, length: Length, shown: Shown) -> Found:
        return run_search(search, trials, self._evaluate(), measures=self.measures, length=length, shown=shown)

    def _evaluate(self) -> Evaluate:
        """Who judges; a supernet is trained here first, by one worker while the others wait."""
        if self.search.evaluator == "training":
            return by_training(self.search, self.dataset, folder=self.folder, runs=self.runs, machine=self.machine)
        if self._judge is None:
            question = {name: self.search.question[name] for name in ("space", "common", "seed")}
            trials = open_study(self._part("supernet"), {"kind": "supernet", **question})
            work(trials, lambda found: [] if found else [(0, 0)], self._supernet)
            self._judge = by_supernet(self._trained(None))
        return self._judge

    def _supernet(self, claim: Claim) -> Trained:  # noqa: ARG002  as every claim's
        with nullcontext() if self.say is None else self.say("the shared network") as progress:
            began = time.perf_counter()
            self._trained(progress)
        return Trained(score=0.0, facts={"seconds": time.perf_counter() - began})

    def _trained(self, progress: Progress | None) -> TrainedSupernet:
        search = self.search
        return train_supernet(
            self.dataset,
            search.space,
            search.common.recipe,
            folder=self.folder / "supernet",
            seed=search.seed,
            split_seed=search.common.split_seed,
            machine=self.machine,
            progress=progress,
        )

    def _shown(self, kept: str, what: str, which: Callable[[Job], str] = lambda job: f" {job[0]}") -> Shown:
        """Before each training: what is finished is written, and the user told how far it is and what is left."""

        def begin(job: Job, found: Found) -> AbstractContextManager[Progress | None]:
            setattr(self, kept, found)
            if time.monotonic() - self._written > WRITTEN_EVERY:
                self.write()
            return nullcontext() if self.say is None else self.say(f"{what}{which(job)}{self._left(kept, found)}")

        return begin

    def _left(self, kept: str, found: Found) -> str:
        """How much of this part is to come, and the best so far."""
        took = [float(one.facts["seconds"]) for one in found.values() if one.facts.get("seconds")]
        if kept == "full":
            contest = self.standing.contest
            left = 0.0 if contest is None else float(contest.to_come(found))
        elif kept == "found":
            left = float(self.extent.candidates - len(found))
        else:
            share = 1 - spent(found) / spent(self.found)
            left = max(1.0, share * len(self.found))
        text = f"; {left:.0f} to come"
        if took:
            text += f", {duration(left * sum(took) / len(took))} on one worker"
        best = ranked(found) if kept != "full" else ()
        return text + (f"; the best so far is {best[0][0]} with a reward of {found[best[0]].score:.2f}" if best else "")
