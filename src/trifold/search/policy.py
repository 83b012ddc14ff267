"""Policy gradient as in MnasNet's search: a recurrent controller that proposes, trained by PPO on the rewards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from trifold.errors import InvalidInput
from trifold.search.asking import Allowed, Told, at_least
from trifold.search.space import Tokens

Array = NDArray[np.float32]

HEAT = 1.5
"""By which the softmax's temperature grows from one block of draws for a proposal to the next."""

_FIRST_BLOCK, _LAST_BLOCK = 8, 256
"""How many candidates the first block of draws holds; each next one twice as many, up to the last."""


class Controller(nn.Module):
    """An LSTM over the decisions: each one's softmax is computed from the choices before it.

    It begins as the uniform distribution, since its heads begin at 0; generator: of the other weights, which begin
    uniform within 0.1.
    """

    def __init__(self, sizes: Sequence[int], *, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.most = max(sizes)
        with torch.device("meta"):  # so that nothing is drawn from torch's global generator
            self.embedding = nn.Embedding(1 + len(sizes) * self.most, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.from_numpy(generator.uniform(-0.1, 0.1, size=tuple(weight.shape))))
        self.heads = nn.Parameter(torch.zeros(len(sizes), hidden, self.most, device="cpu"))
        self.biases = nn.Parameter(torch.zeros(len(sizes), 1, self.most, device="cpu"))
        ranges = np.arange(self.most) < np.array(sizes)[:, None]
        self.mask = torch.from_numpy(np.where(ranges, 0, -1e9).astype(np.float32))
        self.offsets = torch.from_numpy(1 + self.most * np.arange(len(sizes)))

    def forward(self, tokens: Tensor) -> Tensor:
        """The log-probability of every option, given the choices before it.

        tokens: (batch, decisions), int. Result: (batch, decisions, largest size), options beyond a size at -1e9.
        """
        inputs = nn.functional.pad((tokens + self.offsets)[:, :-1], (1, 0))
        states, _ = self.lstm(self.embedding(inputs))
        logits = torch.baddbmm(self.biases, states.transpose(0, 1), self.heads).transpose(0, 1)
        return (logits + self.mask).log_softmax(dim=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A controller's weights as arrays, to draw from.

    inputs: (choices, 4 · hidden), what each previous choice adds to the gates; recurrent: (hidden, 4 · hidden); both
    halved where a gate is a sigmoid, which is 1/2 + tanh(x / 2) / 2.
    heads: (decisions, hidden, largest size); biases: (decisions, largest size).
    """

    inputs: Array
    recurrent: Array
    heads: Array
    biases: Array


@torch.no_grad()
def weights_of(controller: Controller) -> Weights:
    """A copy of the controller's weights."""
    held = {name: weight.numpy() for name, weight in controller.named_parameters()}
    inputs = held["embedding.weight"] @ held["lstm.weight_ih_l0"].T + held["lstm.bias_ih_l0"] + held["lstm.bias_hh_l0"]
    halves = np.repeat(
        np.array([0.5, 0.5, 1, 0.5], inputs.dtype), len(inputs.T) // 4
    )  # torch's order: the third is tanh
    return Weights(
        inputs=inputs * halves,
        recurrent=held["lstm.weight_hh_l0"].T * halves,
        heads=held["heads"].copy(),
        biases=held["biases"][:, 0] + controller.mask.numpy(),
    )


def draw(weights: Weights, noise: Array, temperature: float = 1) -> NDArray[np.intp]:
    """Candidates (count, decisions), each choice drawn from the softmax of the logits divided by the temperature.

    noise: (count, decisions, largest size), standard Gumbel. In numpy, since torch takes ten times as long for steps
    as small as these.
    """
    count, decisions, most = noise.shape
    hidden = len(weights.recurrent)
    state: Array = np.zeros((count, hidden), np.float32)
    memory: Array = np.zeros((count, hidden), np.float32)
    half = np.float32(0.5)
    chosen = np.empty((count, decisions), np.intp)
    previous = np.zeros(count, np.intp)
    for place in range(decisions):
        gates = weights.inputs[previous] + state @ weights.recurrent
        opened = np.tanh(gates)
        enter, keep, leave = (half + half * opened[:, at : at + hidden] for at in (0, hidden, 3 * hidden))
        memory = keep * memory + enter * opened[:, 2 * hidden : 3 * hidden]
        state = leave * np.tanh(memory)
        logits = state @ weights.heads[place] + weights.biases[place]
        chosen[:, place] = (logits / temperature + noise[:, place]).argmax(axis=1)
        previous = chosen[:, place] + (1 + place * most)
    return chosen


def advantages(rewards: Sequence[float | None]) -> list[float]:
    """Each reward's rank within its batch, with mean 0 and, without ties, a standard deviation near 1.

    None ranks below every number; equal rewards share their rank. Ranks rather than distances, so that one broken
    candidate does not make all others look alike, and the unit of the reward does not matter.
    """
    values = np.array([-math.inf if reward is None else reward for reward in rewards])
    below = (values[None] < values[:, None]).mean(axis=1) + (values[None] <= values[:, None]).mean(axis=1)
    return [float(one) for one in (below - 1) * math.sqrt(3)]


def objective(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """PPO's clipped objective, to be maximised (Schulman et al. 2017, 1707.06347, eq. 7), before the mean.

    ratio: the probability of each choice under the new policy over that under the old one.
    """
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


class Policy:
    """MnasNet's sampler: an LSTM controller trained by PPO on the rewards of finished candidates (1807.11626 §4.2).

    batch: an update follows each so many candidates told, and learns from these alone: their ranks (`advantages`),
    clipped ratios of each choice, `epochs` steps of Adam, and an entropy bonus. Until the first update proposals are
    uniform. hidden: of the LSTM and the embedding.

    A failed candidate ranks last in its batch. A candidate told before is not proposed again: the temperature grows by
    HEAT from block to block of draws until another is found.

    Raises InvalidInput for a setting out of its range.
    """

    def __init__(
        self,
        sizes: Iterable[int],
        *,
        seed: int,
        batch: int = 10,
        hidden: int = 32,
        epochs: int = 3,
        lr: float = 0.02,
        clip: float = 0.2,
        entropy: float = 0.02,
    ) -> None:
        self.told = Told(sizes, seed=seed)
        self.batch, self.epochs = at_least("batch", batch, 2), at_least("epochs", epochs, 1)
        self.clip, self.entropy = _between("clip", clip, 0, 1), _between("entropy", entropy, -1e-9, 10)
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
        self.controller = Controller(self.told.sizes, hidden=at_least("hidden", hidden, 1), generator=generator)
        self.optimizer = torch.optim.Adam(self.controller.parameters(), lr=_between("lr", lr, 0, 1), fused=True)
        self.weights = weights_of(self.controller)
        self.waiting: list[tuple[Tokens, float | None]] = []
        """Told since the last update."""

    def ask(self, number: int, allowed: Allowed) -> Tokens:
        """As `Sampler.ask`."""
        return self.told.first(self._draws(self.told.generator(number)), allowed)

    def tell(self, tokens: Tokens, reward: float | None) -> None:
        """As `Sampler.tell`; the candidate that completes a batch also updates the policy."""
        self.told.check(tokens, reward)
        self.told.seen.add(tuple(tokens))
        self.waiting.append((tuple(tokens), reward))
        if len(self.waiting) == self.batch:
            with _one_thread(), torch.enable_grad():
                self._learn()
            self.weights = weights_of(self.controller)
            self.waiting = []

    def _draws(self, generator: Generator) -> Iterator[Tokens]:
        count, temperature = _FIRST_BLOCK, 1.0
        while True:
            noise = generator.gumbel(size=(count, *self.weights.biases.shape)).astype(np.float32)
            yield from map(tuple, draw(self.weights, noise, temperature).tolist())
            count, temperature = min(2 * count, _LAST_BLOCK), temperature * HEAT

    def _learn(self) -> None:
        tokens = torch.tensor([tokens for tokens, _ in self.waiting], device="cpu")
        advantage = torch.tensor(
            advantages([reward for _, reward in self.waiting]), dtype=self.controller.heads.dtype, device="cpu"
        )[:, None]
        before: Tensor | None = None
        for _ in range(self.epochs):
            every = self.controller(tokens)
            chosen = every.gather(-1, tokens[..., None])[..., 0]
            before = chosen.detach() if before is None else before
            gain = objective((chosen - before).exp(), advantage, self.clip).mean()
            bonus = -(every.exp() * every).sum(dim=-1).mean()
            self.optimizer.zero_grad()
            (-gain - self.entropy * bonus).backward()
            self.optimizer.step()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch uses one thread: more cost time at these sizes, and would make sums depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _between(field: str, value: Any, above: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value <= most:
        raise InvalidInput(f"{field} must be a number from {max(above, 0):g} to {most:g}, got {value!r}")
    return float(value)
