"""Where a run began: its network before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trifold.data.decode import printable
from trifold.doctor.case import Case
from trifold.errors import InvalidInput
from trifold.network import Network
from trifold.train.assemble import make_network
from trifold.train.task import CPU
from trifold.weights.loading import load_pretrained, pretrained


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A network before its first step; fresh: names of its tensors without pretrained values (`Task.fresh`)."""

    network: Network
    fresh: frozenset[str]


def start_of(case: Case, begun_with: str | Path | None) -> Start | str:
    """The run's network before its first step, or one line that says why it cannot be had.

    begun_with: the pretrained weights that the run began with, if it did.

    Raises InvalidInput if they are not those; InvalidData if they cannot be read.
    """
    if not case.own:
        return "needs the images that the run was trained on"
    if case.plan.weights and begun_with is None:
        return "the run began with weights whose file is not known: name it (--weights)"
    if begun_with is not None and not case.plan.weights:
        raise InvalidInput(f"weights must be absent: the run began at random, got {printable(begun_with)}")
    recipe = replace(case.plan.recipe, sync_bn=False, compile=False)  # neither changes where it begins
    network = make_network(case.dataset, replace(case.plan, recipe=recipe), CPU)
    if begun_with is None:
        return Start(network=network, fresh=frozenset())
    found = pretrained(begun_with)
    if found.digest != case.plan.weights:
        raise InvalidInput(
            f"{found.source}: must be the weights that the run began with, whose digest is {case.plan.weights:.12}, "
            f"got {found.digest:.12}"
        )
    return Start(network=network, fresh=frozenset(load_pretrained(network, found).initial))
