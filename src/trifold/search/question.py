"""What a search asks, as a value: the space, what accuracy is weighed against, who proposes and who judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trifold.claimed import Common
from trifold.errors import InvalidInput
from trifold.search.reward import Limit, Target
from trifold.search.samplers import SAMPLERS
from trifold.search.space import Space, space_from_dict, space_to_dict

EVALUATORS = ("training", "supernet")
"""How a candidate's accuracy is estimated: by a short training of its own, or as a part of one network of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Everything that the candidates and their scores depend on; how long the search goes on is not part of it.

    targets: what accuracy is weighed against; none: accuracy alone. limits: what no candidate may exceed. sampler: of
    SAMPLERS. evaluator: of EVALUATORS. common: its recipe is that of the short trainings, or of the supernet. seed: of
    sampler and weights.

    Raises InvalidInput naming what is not allowed.
    """

    space: Space
    targets: tuple[Target, ...]
    limits: tuple[Limit, ...]
    sampler: str
    evaluator: str
    common: Common
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("sampler", self.sampler, tuple(SAMPLERS)), ("evaluator", self.evaluator, EVALUATORS)
        ):  # fmt: skip
            if value not in allowed:
                raise InvalidInput(f"{name} must be {' or '.join(allowed)}, got {value!r}")
        for kind, ones in (("target", self.targets), ("limit", self.limits)):
            names = [one.measure for one in ones]
            if len(set(names)) < len(names):
                raise InvalidInput(f"{kind} must be given once for each measure, got {', '.join(names)}")

    @property
    def question(self) -> dict[str, Any]:
        """Plain values that tell two searches apart."""
        return {
            "kind": "search",
            "space": space_to_dict(self.space),
            "targets": [asdict(one) for one in self.targets],
            "limits": [asdict(one) for one in self.limits],
            "sampler": self.sampler,
            "evaluator": self.evaluator,
            "common": asdict(self.common),
            "seed": self.seed,
        }


def question_from(question: Mapping[str, Any]) -> Search:
    """The search whose `question` this was."""
    return Search(
        space=space_from_dict(question["space"]),
        targets=tuple(Target(**one) for one in question["targets"]),
        limits=tuple(Limit(**one) for one in question["limits"]),
        sampler=question["sampler"],
        evaluator=question["evaluator"],
        common=Common.from_dict(question["common"]),
        seed=question["seed"],
    )
