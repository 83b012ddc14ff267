"""What all samplers share: asking and telling, what was told so far, and the first draw that may be proposed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.random import Generator

from trifold.errors import InvalidInput
from trifold.search.space import Tokens

N_TRIES = 10_000
"""Draws for one proposal before a sampler gives up."""

N_FRESH = 1_000
"""Draws spent looking for a candidate that was not told yet, once one that was told has been drawn."""

Allowed = Callable[[Tokens], bool]


class Sampler(Protocol):
    """Proposes candidates, and learns only from what it is told.

    A sampler knows of a space only the sizes: how many options each decision has.
    """

    def ask(self, number: int, allowed: Allowed) -> Tokens:
        """The proposal for the candidate of this number, from 0; it changes nothing.

        It depends on the sampler's seed and settings, the number, and what was told so far in that order, and on
        nothing else. So a search that was killed and tells its history again is asked the same again, and each of many
        workers can hold a sampler of its own. (Policy's arithmetic is torch's: equal on one kind of machine.)

        No candidate that was told is proposed again while another is found: evaluating one costs minutes.

        Raises InvalidInput where nothing of N_TRIES draws is allowed.
        """
        ...

    def tell(self, tokens: Tokens, reward: float | None) -> None:
        """Notes how a candidate did. reward: finite, larger is better; None: it failed (out of memory, not a number).

        Raises InvalidInput for tokens out of range or a reward that is not a finite number.
        """
        ...


class Told:
    """What one sampler was told, and the sizes and seed it was made with, checked; samplers are built on it.

    sizes: options of each decision, each at least 1, at least one decision. seed: at least 0. Raises InvalidInput
    naming the field, the value and what is allowed.
    """

    def __init__(self, sizes: Iterable[int], *, seed: int) -> None:
        self.sizes = tuple(sizes)
        if not self.sizes or not all(type(size) is int and size >= 1 for size in self.sizes):
            raise InvalidInput(f"sizes must be whole numbers of at least 1, one or more of them, got {self.sizes}")
        self.seed = at_least("seed", seed, 0)
        self.seen: set[Tokens] = set()

    def check(self, tokens: Tokens, reward: float | None) -> None:
        """Raises InvalidInput for tokens out of range or a reward that is not a finite number."""
        tokens = tuple(tokens)
        if len(tokens) != len(self.sizes) or not all(
            0 <= token < size for token, size in zip(tokens, self.sizes, strict=True)
        ):
            raise InvalidInput(f"tokens must be {len(self.sizes)} indices below {self.sizes}, got {tokens}")
        if reward is not None and not math.isfinite(reward):
            raise InvalidInput(f"reward must be a finite number, or None for a candidate that failed, got {reward}")

    def generator(self, number: int) -> Generator:
        """The randomness of the proposal of this number: the same whenever it is asked for."""
        return np.random.default_rng((self.seed, at_least("number", number, 0)))

    def first(self, draws: Iterable[Tokens], allowed: Allowed) -> Tokens:
        """The first draw that is allowed and was not told yet; where N_FRESH more draws find none, one that was told.

        Raises InvalidInput where nothing of N_TRIES draws is allowed.
        """
        refused: set[Tokens] = set()
        again: Tokens | None = None
        since, tried = 0, 0
        for tokens in islice(draws, N_TRIES):
            tried += 1
            if tokens in refused or (again is not None and tokens in self.seen):
                pass
            elif not allowed(tokens):
                refused.add(tokens)
            elif tokens not in self.seen:
                return tokens
            else:
                again, since = tokens, tried
            if again is not None and tried - since >= N_FRESH:
                break
        if again is not None:
            return again
        raise InvalidInput(
            f"limits: {tried:,} candidates were drawn and none of them meets the limits; widen the limits"
        )


def uniform(sizes: tuple[int, ...], generator: Generator) -> Iterator[Tokens]:
    """Candidates drawn evenly over the whole space, without end."""
    count = 1
    while True:
        yield from map(tuple, generator.integers(0, sizes, size=(count, len(sizes))).tolist())
        count = min(2 * count, 256)


def at_least(field: str, value: int, least: int) -> int:
    """The value; raises InvalidInput unless it is a whole number of at least this."""
    if type(value) is not int or value < least:
        raise InvalidInput(f"{field} must be a whole number of at least {least}, got {value!r}")
    return value
