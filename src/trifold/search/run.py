"""A search at work: candidates are proposed, checked on their description, evaluated, and kept as trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import optuna
import torch

from trifold.architecture import Architecture
from trifold.claimed import Shown
from trifold.errors import InvalidInput
from trifold.search.question import Search
from trifold.search.reward import reward
from trifold.search.samplers import SAMPLERS
from trifold.search.space import Measure, Tokens
from trifold.search.survey import within
from trifold.train.assemble import Progress
from trifold.train.loop import Diverged
from trifold.trials import Claim, Job, Trained, finished, work

Evaluate = Callable[[Claim, Architecture, Progress | None], Trained]
"""Gives a candidate's accuracy in percent as the score, with facts of its own to keep."""

Found = Mapping[Job, Trained]

AHEAD = 64
"""How many workers may be at candidates of their own, at least, where a search ends by what it has spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a search goes on: so many candidates, or until they cost so much to train.

    spend: multiply-adds of one image, summed over the candidates trained; None: candidates alone count.
    """

    candidates: int
    spend: float | None = None

    def reached(self, found: Found) -> bool:
        """Whether what is finished is enough."""
        return len(found) >= self.candidates if self.spend is None else first_for(found, self.spend) is not None


def spent(found: Found) -> float:
    """Multiply-adds of one image, summed over the candidates trained: alike in searches of equal compute."""
    return sum(map(_spent, found.values()), 0.0)


def _spent(one: Trained) -> float:
    return 0.0 if "same" in one.facts else float(one.facts["costs"]["multiply_adds"])


def first_for(found: Found, spend: float) -> Found | None:
    """The first candidates by number that together cost so much; None while one of them is missing.

    Workers that were at others meanwhile finish those as well; the answer does not depend on how many there were.
    """
    total = 0.0
    for number in range(len(found)):
        if (number, 0) not in found:
            return None
        total += _spent(found[number, 0])
        if total >= spend:
            return {(own, 0): found[own, 0] for own in range(number + 1)}
    return None


def run_search(
    search: Search,
    trials: optuna.Study,
    evaluate: Evaluate,
    *,
    measures: Mapping[str, Measure],
    length: Length,
    shown: Shown | None = None,
) -> dict[Job, Trained]:
    """Proposes and evaluates candidates until the length is reached, beside any other worker on the same trials.

    A candidate's score is its reward; its facts have `tokens`, `accuracy` (percent, on minival) and `costs`. One whose
    network was evaluated before, by other choices or these, takes that accuracy (`same`: the other's number) and costs
    nothing. One that runs out of memory, or whose loss is no number, is kept as failed with the reason.

    Raises InvalidInput where nothing meets the limits; what `evaluate` and `trials.work` raise.
    """
    allowed = within(search.space, search.limits, measures)

    def wanted(found: Found) -> list[Job]:
        most = length.candidates if length.spend is None else len(found) + AHEAD
        return [] if length.reached(found) else [(n, 0) for n in range(most) if (n, 0) not in found]

    def one(claim: Claim) -> Trained:
        found, number = finished(trials), claim.job[0]
        noted = claim.noted("tokens")
        tokens = proposal(search, number, found, allowed) if noted is None else tuple(noted)
        claim.note("tokens", list(tokens))
        network = search.space.architecture(tokens)
        costs = {name: measure(network) for name, measure in measures.items()}
        claim.note("costs", costs)
        facts: dict[str, Any] = {"tokens": list(tokens), "costs": costs}
        with nullcontext() if shown is None else shown(claim.job, found) as progress:
            made = _made_before(search, network, found)
            if made is not None:
                return _the_same(search, found[made], {**facts, "same": made[0], "seconds": 0.0})
            try:
                seen = evaluate(claim, replace(network, name=f"{network.name}-{number}"[-100:]), progress)
            except (Diverged, MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and not _ended_memory(error):
                    raise
                first = (str(error).strip() or "out of memory").splitlines()[0]
                return Trained(score=0, facts={**facts, "seconds": 0.0}, failed=first)
            return _judged(search, seen, facts)

    return work(trials, wanted, one)


def _ended_memory(error: RuntimeError) -> bool:
    """Whether this is how torch says that memory has ended, on a GPU or a CPU."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def _judged(search: Search, seen: Trained, facts: Mapping[str, Any]) -> Trained:
    """What was seen, its accuracy weighed against its costs."""
    kept = {**seen.facts, **facts, "accuracy": seen.score}
    return replace(seen, score=reward(seen.score, facts["costs"], search.targets), facts=kept)


def _the_same(search: Search, made: Trained, facts: Mapping[str, Any]) -> Trained:
    """What is known of a network that was evaluated before."""
    if made.failed:
        return Trained(score=0, facts=facts, failed=made.failed)
    return _judged(search, Trained(score=made.facts["accuracy"], facts={}), facts)


def proposal(search: Search, number: int, found: Found, allowed: Callable[[Tokens], bool]) -> Tokens:
    """The candidate of this number, given what is finished: told in order of number, the same to every worker.

    Other choices of a network that is finished are not proposed while another one is found: they would tell nothing.
    """
    sampler = SAMPLERS[search.sampler](search.space.sizes, seed=search.seed)
    for one in found.values():
        sampler.tell(tuple(one.facts["tokens"]), None if one.failed else one.score)
    made = {search.space.architecture(tuple(one.facts["tokens"])) for one in found.values()}
    try:
        return sampler.ask(number, lambda tokens: allowed(tokens) and search.space.architecture(tokens) not in made)
    except InvalidInput:  # nothing new was found
        return sampler.ask(number, allowed)


def _made_before(search: Search, network: Architecture, found: Found) -> Job | None:
    """The first finished candidate with this very network."""
    for job, one in found.items():
        if "same" not in one.facts and search.space.architecture(tuple(one.facts["tokens"])) == network:
            return job
    return None


def front(found: Found, measures: Iterable[str]) -> tuple[Job, ...]:
    """The candidates that no other one beats in accuracy without costing more by any of these measures (Pareto)."""
    names = tuple(measures)
    points = {
        job: (-one.facts["accuracy"], *(one.facts["costs"][name] for name in names))
        for job, one in found.items()
        if not one.failed and "same" not in one.facts
    }
    return tuple(
        job
        for job, own in points.items()
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in points.values())
    )


def ranked(found: Found) -> tuple[Job, ...]:
    """The candidates by falling reward, each network once, those that failed left out."""
    ones = [job for job, one in found.items() if not one.failed and "same" not in one.facts]
    return tuple(sorted(ones, key=lambda job: -found[job].score))
