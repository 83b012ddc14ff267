"""Random search and regularised evolution, and the table of all samplers by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from numpy.random import Generator

from trifold.errors import InvalidInput
from trifold.search.asking import Allowed, Sampler, Told, at_least, uniform
from trifold.search.policy import Policy
from trifold.search.space import Tokens
from trifold.search.tpe import Tpe

__all__ = ["SAMPLERS", "Evolution", "Random", "Sampler"]


class Random:
    """Every candidate alike, none twice: what the others are measured against. What it is told it only remembers."""

    def __init__(self, sizes: Iterable[int], *, seed: int) -> None:
        self.told = Told(sizes, seed=seed)

    def ask(self, number: int, allowed: Allowed) -> Tokens:
        """As `Sampler.ask`."""
        return self.told.first(uniform(self.told.sizes, self.told.generator(number)), allowed)

    def tell(self, tokens: Tokens, reward: float | None) -> None:
        """As `Sampler.tell`; a failure counts as seen."""
        self.told.check(tokens, reward)
        self.told.seen.add(tuple(tokens))


class Evolution:
    """Regularised evolution (Real et al. 2019, 1802.01548, algorithm 1): mutation only, and the oldest dies.

    population: candidates alive, the last ones told that did not fail; while there are fewer, proposals are uniform.
    sample: how many of them, drawn with replacement, a tournament compares; its best is the parent. The child differs
    from it in one decision. Where the child was seen or is not allowed, another tournament and mutation follow, and
    after every 50 of them the mutation changes one decision more, so that nothing in the space is out of reach.

    The published 100 and 25 are for 20,000 candidates; these defaults are for some hundreds.

    A failed candidate never joins the population. Raises InvalidInput unless 2 <= sample <= population.
    """

    def __init__(self, sizes: Iterable[int], *, seed: int, population: int = 20, sample: int = 10) -> None:
        self.told = Told(sizes, seed=seed)
        self.population = at_least("population", population, 2)
        self.sample = at_least("sample", sample, 2)
        if sample > population:
            raise InvalidInput(f"sample must be at most the population, {population}, got {sample}")
        self.alive: deque[tuple[float, Tokens]] = deque(maxlen=population)
        """Oldest first."""

    def ask(self, number: int, allowed: Allowed) -> Tokens:
        """As `Sampler.ask`."""
        generator = self.told.generator(number)
        grown = len(self.alive) == self.population
        draws = self._children(generator) if grown else uniform(self.told.sizes, generator)
        return self.told.first(draws, allowed)

    def tell(self, tokens: Tokens, reward: float | None) -> None:
        """As `Sampler.tell`."""
        self.told.check(tokens, reward)
        self.told.seen.add(tuple(tokens))
        if reward is not None:
            self.alive.append((reward, tuple(tokens)))

    def _children(self, generator: Generator) -> Iterator[Tokens]:
        free = [place for place, size in enumerate(self.told.sizes) if size > 1]
        drawn = 0
        while True:
            contest = generator.integers(0, self.population, size=self.sample)
            parent = max((self.alive[place] for place in contest), key=lambda one: one[0])[1]
            child = list(parent)
            for place in generator.permutation(free)[: 1 + drawn // 50]:
                step = int(generator.integers(1, self.told.sizes[place]))
                child[place] = (child[place] + step) % self.told.sizes[place]
            yield tuple(child)
            drawn += 1


SAMPLERS: Mapping[str, Callable[..., Sampler]] = {
    "random": Random,
    "evolution": Evolution,
    "policy": Policy,
    "tpe": Tpe,
}
"""Each takes (sizes, *, seed) and settings of its own."""
