"""An architecture search as it stands: candidates, random search beside it, the full trainings, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trifold.architecture import Architecture
from trifold.search.question import Search, question_from
from trifold.search.run import Found, first_for, ranked, spent
from trifold.study.contest import FOUND, Contest, Outcome, Rules, make_contest, outcome
from trifold.study.folder import Kept, read_records
from trifold.train.recipe import Recipe, from_dict
from trifold.train.record import run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """An architecture search with what is finished of it.

    beside: random search's candidates; contest, full: the trainings in full, once they are known, and what is finished
    of them. candidates: how many the search is to have. judged: whether full trainings are to follow.
    """

    search: Search
    found: Found
    beside: Found
    contest: Contest | None
    full: Found
    candidates: int
    judged: bool

    @property
    def outcome(self) -> Outcome | None:
        """What the full trainings say."""
        return None if self.contest is None else outcome(self.search, self.contest, self.full)

    @property
    def to_come(self) -> bool:
        """Whether anything of it is still to come."""
        reached = self.outcome
        return len(self.found) < self.candidates or (self.judged and (reached is None or reached.to_come > 0))

    @property
    def measures(self) -> tuple[str, ...]:
        """The costs that accuracy was weighed against; multiply-adds where there was none."""
        return tuple(target.measure for target in self.search.targets) or ("multiply_adds",)

    @property
    def chosen(self) -> Architecture | None:
        """The search's answer: the finalist of the best full trainings by minival; before, of the best estimate."""
        reached = self.outcome
        if self.contest is not None and reached is not None and FOUND in reached.chosen:
            return self.contest.entrants[reached.chosen[FOUND]].architecture
        best = ranked(self.found)
        return self.search.space.architecture(tuple(self.found[best[0]].facts["tokens"])) if best else None


BESIDE = "random.jsonl"
"""The records of random search, in a search's folder."""


def full_name(contest: Contest) -> str:
    """What a contest's storage and records are called by: a search that is made longer has another one."""
    return f"full-{run_id(contest.question)[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How far a search is to go; none of it changes what a candidate is worth.

    candidates: how many. beside: whether random search goes as far with the same compute. rules: who is trained in full
    afterwards, by the recipe; None: nobody.
    """

    candidates: int
    beside: bool
    rules: Rules | None
    recipe: Recipe

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Extent:
        """What `dataclasses.asdict` made plain values of."""
        rules = None if data["rules"] is None else Rules(**data["rules"])
        return cls(candidates=data["candidates"], beside=data["beside"], rules=rules, recipe=from_dict(data["recipe"]))


def standing(search: Search, extent: Extent, found: Found, beside: Found, full: Found) -> Searched:
    """What stands, the contest among it once the candidates that it follows from are all there."""
    contest, done = None, len(found) >= extent.candidates
    if done and extent.beside:
        enough = first_for(beside, spent(found))
        done, beside = enough is not None, enough or beside
    if done and extent.rules is not None and ranked(found):
        contest = make_contest(search, found, beside, replace(search.common, recipe=extent.recipe), extent.rules)
    return Searched(
        search=search,
        found=found,
        beside=beside,
        contest=contest,
        full=full,
        candidates=extent.candidates,
        judged=extent.rules is not None,
    )


def kept_search(folder: Path, kept: Kept) -> Searched:
    """The search that a study's folder holds. Raises InvalidData as `folder.read_records` does."""
    known = standing(
        question_from(kept.question),
        Extent.from_dict(kept.about["extent"]),
        kept.found,
        read_records(folder, BESIDE),
        {},
    )
    if known.contest is None:
        return known
    return replace(known, full=read_records(folder, f"{full_name(known.contest)}.jsonl"))
