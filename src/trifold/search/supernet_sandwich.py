"""How a supernet is trained: the sandwich rule with in-place distillation (1903.05134 §3; 2003.11142 §3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trifold.errors import InvalidInput
from trifold.search.space import Decision, Space, Tokens
from trifold.search.supernet import Supernet
from trifold.search.supernet_evaluate import BATCHES, candidate
from trifold.train.loop import autocast, batch_loss
from trifold.train.prepare import Batch
from trifold.train.recipe import Recipe
from trifold.train.task import Task

UNORDERED = ("operator", "skip")
"""Decisions of which no option is the larger one."""

_REFUSED = {"freeze_bn": False, "head_epochs": 0, "sync_bn": False, "compile": False, "grad_checkpointing": False}
"""Fields of a recipe that mean nothing to a supernet, or that its candidates cannot be run with."""


def check_recipe(recipe: Recipe) -> None:
    """Raises InvalidInput if the recipe asks for what a supernet has not."""
    for name, allowed in _REFUSED.items():
        value = getattr(recipe, name)
        if value != allowed:
            raise InvalidInput(f"recipe: {name} must be {str(allowed).lower()} for a supernet, got {value!r}")


def drawn(space: Space) -> Tokens:
    """A candidate from torch's global generator, each option of a decision as likely as the others."""
    shares = torch.rand(len(space.decisions), dtype=torch.float64).tolist()
    return tuple(int(share * size) for share, size in zip(shares, space.sizes, strict=True))


def outermost(space: Space, tokens: Tokens, *, largest: bool) -> Tokens:
    """The candidate with the largest, or the least, option of everything that has one; the rest is that of the tokens.

    So no operator is the largest network's, and learns from the labels, in every step while others wait to be drawn.
    """
    pick = max if largest else min

    def chosen(one: Decision, token: int) -> int:
        return token if one.field in UNORDERED else one.options.index(pick(one.options))

    return tuple(chosen(one, token) for one, token in zip(space.decisions, tokens, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandwich:
    """The objective of a supernet's training (`train.loop.Objective`).

    A step's loss is a sum: of the largest candidate's, from the labels, with dropout and drop path; and those of the
    smallest and of `num_random` candidates drawn evenly, whose targets are in part the largest one's probabilities for
    the same images (2003.11142 §3.1), in part the labels. Operators and skips, which have no order, are drawn for the
    two ends as well. All their graphs are held until the step's one backward pass.
    num_random: at least 0. label_share: in [0, 1], how much of the others' loss is from the labels. With none, as in
    the source, whose largest network is always the same one, a supernet of MnasNet's space learned nothing in 8 epochs:
    each step's teacher is another network, still without knowledge, and most of the loss asks to answer as it does
    (results/miniature). batches: as in `supernet_evaluate.candidate`, for the largest after each epoch.
    """

    num_random: int = 2
    label_share: float = 0.5
    batches: int = BATCHES

    def __post_init__(self) -> None:
        for name, least in (("num_random", 0), ("batches", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InvalidInput(f"sandwich: {name} must be a whole number of at least {least}, got {value!r}")
        if not 0 <= self.label_share <= 1:
            raise InvalidInput(f"sandwich: label_share must be a number from 0 to 1, got {self.label_share!r}")

    def loss(self, runner: nn.Module, batch: Batch, task: Task, weights: Tensor | None) -> Tensor:
        """The sum of the losses. runner: the supernet."""
        assert isinstance(runner, Supernet)
        space = runner.space
        largest, smallest = (outermost(space, drawn(space), largest=end) for end in (True, False))
        others = [smallest, *(drawn(space) for _ in range(self.num_random))]
        with autocast(task):
            outputs = runner(batch.images, space.architecture(largest), regularised=True).float()

        def from_labels(outputs: Tensor) -> Tensor:
            return batch_loss(outputs, batch.targets, task.recipe.label_smoothing, weights)

        total = from_labels(outputs)
        taught = outputs.detach().softmax(1)
        for tokens in others:
            with autocast(task):
                outputs = runner(batch.images, space.architecture(tokens)).float()
            distilled = batch_loss(outputs, taught, 0.0, weights)
            total = total + self.label_share * from_labels(outputs) + (1 - self.label_share) * distilled
        return total

    def to_evaluate(self, network: nn.Module, task: Task) -> nn.Module:
        """The largest candidate, its statistics computed."""
        assert isinstance(network, Supernet)
        return candidate(network, network.largest, task, batches=self.batches)
