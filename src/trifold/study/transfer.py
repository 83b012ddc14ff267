"""What trained networks bring to other data: fine-tuned there, beside the same from random weights (paper §5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trifold.architecture import Architecture, from_dict, to_dict
from trifold.claimed import Common
from trifold.data.decode import printable
from trifold.errors import InvalidData, InvalidInput
from trifold.study.choose import half_of_difference, pooled_noise, verdict
from trifold.study.measured import Measured, measure
from trifold.study.run import TrainedToTheEnd, rounds
from trifold.train.folder import RECORD, WEIGHTS
from trifold.train.recipe import Recipe
from trifold.train.recipe import from_dict as recipe_from_dict
from trifold.train.record import Plan, Record, read_record
from trifold.trials import Job, Trained
from trifold.weights.readers import pretrained


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A network that was trained, with the weights of its runs.

    name: what it is called. weights: each run's digest. accuracy: the runs' mean on test of their own data, in percent.
    """

    name: str
    architecture: Architecture
    weights: tuple[str, ...]
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(TrainedToTheEnd):
    """Everything that the trainings depend on.

    sources: the networks. origin: the data that they were trained on, as their records call it. common: of the
    fine-tunings; one with seed s begins with the weights of run s, and from the first again where there are fewer.
    scratch: how the same networks are trained from random weights; None: they are not. seeds: of each, in [1, 100].
    seen: how many of the data's images trained the sources, or chose their weights.

    Raises InvalidInput for no sources, two of one name, and seeds out of range.
    """

    sources: tuple[Source, ...]
    origin: str
    common: Common
    scratch: Recipe | None
    seeds: int
    seen: int = 0

    def __post_init__(self) -> None:
        if type(self.seeds) is not int or not 1 <= self.seeds <= 100:
            raise InvalidInput(f"seeds must be a whole number from 1 to 100, got {self.seeds!r}")
        if not self.sources:
            raise InvalidInput("a trained network is needed, got none")
        named = [source.name for source in self.sources]
        if len(set(named)) < len(named):
            raise InvalidInput(f"networks must have different names, got {', '.join(named)}")

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two of these studies apart."""
        return {
            "kind": "transfer",
            "sources": [
                {**asdict(source), "architecture": to_dict(source.architecture), "weights": list(source.weights)}
                for source in self.sources
            ],
            "origin": self.origin,
            "common": asdict(self.common),
            "scratch": None if self.scratch is None else asdict(self.scratch),
            "seeds": self.seeds,
            "seen": self.seen,
        }

    @property
    def networks(self) -> tuple[Architecture, ...]:
        """Those that are fine-tuned, then the same from random weights."""
        once = tuple(source.architecture for source in self.sources)
        return once if self.scratch is None else once * 2

    @property
    def names(self) -> tuple[str, ...]:
        """Each by its source and what it begins with."""
        ways = ("pretrained",) if self.scratch is None else ("pretrained", "random weights")
        return tuple(f"{source.name}, {way}" for way in ways for source in self.sources)

    def plan(self, job: Job) -> Plan:
        """Of a training."""
        number, seed = job
        begun = self.common.plan(self.networks[number], seed)
        if number < len(self.sources):
            weights = self.sources[number].weights
            return replace(begun, weights=weights[seed % len(weights)])
        assert self.scratch is not None
        return replace(begun, recipe=self.scratch)

    def wanted(self, found: Mapping[Job, Trained]) -> list[Job]:
        """The trainings to come: one seed of all networks after another."""
        return rounds([self.seeds] * len(self.networks), found)


def transfer_from(question: Mapping[str, Any]) -> Transfer:
    """The study whose `question` this was."""
    return Transfer(
        sources=tuple(
            Source(
                name=one["name"],
                architecture=from_dict(one["architecture"]),
                weights=tuple(one["weights"]),
                accuracy=float(one["accuracy"]),
            )
            for one in question["sources"]
        ),
        origin=question["origin"],
        common=Common.from_dict(question["common"]),
        scratch=None if question["scratch"] is None else recipe_from_dict(question["scratch"]),
        seeds=question["seeds"],
        seen=question["seen"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Finished runs as sources.

    files: the weights by digest. recipe: the first run's. origin: the data of all. used: digests of the images that
    trained them, or chose their weights.
    """

    sources: tuple[Source, ...]
    files: Mapping[str, Path]
    recipe: Recipe
    origin: str
    used: frozenset[str]


def by_network(folders: Sequence[str]) -> dict[str, list[str]]:
    """Run folders by the name of their network; different networks of one name are told apart by a number.

    Raises InvalidInput if a folder is given twice; InvalidData if one holds no finished run.
    """
    groups: dict[Architecture, list[str]] = {}
    for folder in folders:
        groups.setdefault(_architecture(_finished(Path(folder))), []).append(folder)
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise InvalidInput("runs must be different, and one was given twice")
    named: dict[str, list[str]] = {}
    for number, (network, own) in enumerate(groups.items(), start=1):
        named[network.name if network.name not in named else f"{network.name}-{number}"] = own
    return named


def open_sources(runs: Mapping[str, Sequence[str | Path]]) -> Opened:
    """The networks of finished runs. runs: by name, the folders of each network's runs.

    Raises InvalidInput for none; InvalidData if a folder holds no finished run, the runs of one name have different
    networks, or the runs were trained on different data.
    """
    found = {
        name: [(path, _finished(path), pretrained(path).digest) for path in map(Path, folders)]
        for name, folders in runs.items()
    }
    if not found or not all(found.values()):
        raise InvalidInput("a run is needed: the folder of a finished training")
    everything = [one for ones in found.values() for one in ones]
    first_path, first, _ = everything[0]
    for path, record, _ in everything:
        if record.asked["data"] != first.asked["data"]:
            raise InvalidData(
                f"{printable(path)}: was trained on {printable(record.result.data)}, and {printable(first_path)} on "
                f"{printable(first.result.data)}: networks are compared that come from the same data"
            )
    sources, files = [], {}
    for name, ones in found.items():
        architecture = _architecture(ones[0][1])
        for path, record, digest in ones:
            if replace(_architecture(record), name=architecture.name) != architecture:
                raise InvalidData(f"{printable(path)}: has another network than {printable(ones[0][0])}")
            files[digest] = path / WEIGHTS
        accuracy = float(np.mean([100 * record.accuracy for _, record, _ in ones]))
        weights = tuple(digest for _, _, digest in ones)
        sources.append(Source(name=name, architecture=architecture, weights=weights, accuracy=accuracy))
    recipe = recipe_from_dict(first.asked["recipe"])
    used = frozenset(digest for _, record, _ in everything for digest in record.used)
    return Opened(sources=tuple(sources), files=files, recipe=recipe, origin=first.result.data, used=used)


def _finished(path: Path) -> Record:
    if not (path / RECORD).is_file():
        raise InvalidData(f"{printable(path)}: holds no finished run: it has no {RECORD}")
    return read_record(path / RECORD)


def _architecture(record: Record) -> Architecture:
    return from_dict(record.asked["architecture"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """How much better on test, in points, a source's weights are than random ones; half: of its 95 % interval."""

    name: str
    points: float
    half: float

    @property
    def verdict(self) -> str:
        """In a word or two."""
        return verdict(self.points, self.half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What the trainings so far say. measured: by number in `Transfer.networks`.

    gains: of each source that has both; the intervals hold together (Bonferroni), with the noise of all pooled.
    """

    measured: Mapping[int, Measured]
    gains: tuple[Gain, ...]
    trained: int
    full: int


def carried(transfer: Transfer, found: Mapping[Job, Trained]) -> Carried:
    """The means, and what the weights bring."""
    measured, count = measure(found), len(transfer.sources)
    both = [i for i in range(count) if i in measured and count + i in measured]
    groups = [[one.facts["test"] for (number, _), one in found.items() if number == i] for i in measured]
    noise, freedom = pooled_noise(groups)
    gains = tuple(
        Gain(
            name=transfer.sources[i].name,
            points=measured[i].test[0] - measured[count + i].test[0],
            half=half_of_difference(noise, freedom, len(both), measured[i].seeds, measured[count + i].seeds),
        )
        for i in both
    )
    return Carried(
        measured=measured,
        gains=gains,
        trained=len(found),
        full=len(transfer.networks) * transfer.seeds,
    )
