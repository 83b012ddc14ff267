"""One contract for every sampler, then what is particular to each."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trifold.errors import InvalidInput
from trifold.search.asking import N_TRIES, Told, uniform
from trifold.search.policy import Controller, Policy, advantages, draw, objective, weights_of
from trifold.search.samplers import SAMPLERS, Evolution, Random, Sampler
from trifold.search.space import Tokens
from trifold.search.tpe import Tpe

NAMES = tuple(SAMPLERS)
SIZES = (3, 2, 4, 1, 3)
MNASNET = (3, 3, 2, 2, 2, 3, 3) * 4

History = Sequence[tuple[Tokens, float | None]]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def everything(tokens: Tokens) -> bool:
    return True


def planted(tokens: Tokens) -> float:
    """Separable: each decision's last option is its best."""
    return float(sum(token * (1 + place % 3) for place, token in enumerate(tokens)))


def searched(sampler: Sampler, count: int, score: Callable[[Tokens], float | None] = planted) -> History:
    """What the sampler proposed and was told."""
    history: list[tuple[Tokens, float | None]] = []
    for number in range(count):
        tokens = sampler.ask(number, everything)
        history.append((tokens, score(tokens)))
        sampler.tell(*history[-1])
    return history


def make(name: str, sizes: Sequence[int] = SIZES, seed: int = 0) -> Sampler:
    return SAMPLERS[name](tuple(sizes), seed=seed)


def told(sampler: Sampler, history: History) -> Sampler:
    for tokens, reward in history:
        sampler.tell(tokens, reward)
    return sampler


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_history_give_the_same_proposals(name: str) -> None:
    history = searched(make(name), 35)
    assert searched(make(name), 35) == history
    for length in (0, 9, 10, 23, 35):  # as a killed search is gone on with, or another worker joins
        again = told(make(name), history[:length])
        assert [again.ask(number, everything) for number in (length, length + 1)] == [
            told(make(name), history[:length]).ask(number, everything) for number in (length, length + 1)
        ]
        if length < 35:
            assert again.ask(length, everything) == history[length][0]


@pytest.mark.parametrize("name", NAMES)
def test_asking_changes_nothing(name: str) -> None:
    asked, plain = make(name), make(name)
    for number in range(25):
        for other in (number, number + 7, number):
            asked.ask(other, everything)
        tokens = plain.ask(number, everything)
        assert asked.ask(number, everything) == tokens
        asked.tell(tokens, planted(tokens))
        plain.tell(tokens, planted(tokens))


@pytest.mark.parametrize("name", NAMES)
def test_neither_global_generators_nor_torch_threads_are_touched(name: str) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    searched(make(name), 21)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_switched_off_by_the_caller_changes_nothing(name: str) -> None:
    with torch.no_grad():
        off = searched(make(name), 21)
    assert off == searched(make(name), 21)


@pytest.mark.parametrize("name", NAMES)
def test_different_seeds_and_numbers_differ(name: str) -> None:
    sizes = (4,) * 8
    assert len({make(name, sizes, seed).ask(0, everything) for seed in range(8)}) > 6
    sampler = told(make(name, sizes), searched(make(name, sizes), 24))
    assert len({sampler.ask(number, everything) for number in range(24, 34)}) > 3


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=7), seed=st.integers(0, 2**64), data=st.data())
def test_tokens_are_in_range_whatever_the_sizes(name: str, sizes: list[int], seed: int, data: st.DataObject) -> None:
    reward = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    sampler = make(name, sizes, seed)
    for number in range(14):
        tokens = sampler.ask(number, everything)
        assert len(tokens) == len(sizes)
        assert all(type(token) is int and 0 <= token < size for token, size in zip(tokens, sizes, strict=True))
        sampler.tell(tokens, data.draw(reward))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [(1,), (1, 1, 1), (2,), (9,)])
def test_a_space_that_is_used_up_is_asked_again(name: str, sizes: tuple[int, ...]) -> None:
    count = int(np.prod(sizes))
    asked = [tokens for tokens, _ in searched(make(name, sizes), count + 3)]
    assert len(set(asked[:count])) == count
    assert set(asked[count:]) <= set(asked[:count])


@pytest.mark.parametrize("name", NAMES)
def test_no_candidate_is_asked_twice_while_another_is_found(name: str) -> None:
    sizes = (3, 3, 3, 3)
    asked = [tokens for tokens, _ in searched(make(name, sizes), 50)]
    assert len(set(asked)) == 50


@pytest.mark.parametrize("name", NAMES)
def test_what_is_allowed_is_honoured(name: str) -> None:
    sampler, sizes = make(name, (4,) * 5), (4,) * 5
    for number in range(45):
        tokens = sampler.ask(number, lambda one: sum(one) <= 6)  # a quarter of the space; the best lie outside
        assert sum(tokens) <= 6
        sampler.tell(tokens, planted(tokens))
    one = (3, 3, 0, 0, 1)
    assert make(name, sizes).ask(0, lambda tokens: tokens == one) == one  # one of 1,024


@pytest.mark.parametrize("name", NAMES)
def test_impossible_limits_are_one_line_at_any_time(name: str) -> None:
    sampler = make(name, (4,) * 5)
    for start in (0, 25):
        told(sampler, searched(make(name, (4,) * 5), start))
        calls: list[Tokens] = []

        def never(tokens: Tokens, calls: list[Tokens] = calls) -> bool:
            calls.append(tokens)
            return False

        with pytest.raises(InvalidInput, match=rf"^limits: {N_TRIES:,} candidates were drawn and none") as caught:
            sampler.ask(start, never)
        assert "\n" not in str(caught.value)
        assert len(calls) == len(set(calls)) <= 4**5  # a limit costs time: none is asked for twice


@pytest.mark.parametrize("name", NAMES)
def test_failures_are_survived(name: str) -> None:
    alone = searched(make(name), 24, lambda _: None)
    assert len(alone) == 24
    some = searched(make(name, (4,) * 5), 45, lambda tokens: None if tokens[0] == 0 else planted(tokens))
    late = [tokens for tokens, _ in some[25:]]
    assert all(0 <= token < 4 for tokens in late for token in tokens)
    if name in ("evolution", "policy"):
        assert sum(tokens[0] == 0 for tokens in late) < len(late) / 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("score", [lambda _: 0.0, lambda _: -1e308, lambda tokens: (planted(tokens) - 9) * 1e306])
def test_rewards_may_be_equal_huge_and_negative(name: str, score: Callable[[Tokens], float]) -> None:
    asked = [tokens for tokens, _ in searched(make(name, (4,) * 5), 34, score)]
    assert len(set(asked)) == 34


@pytest.mark.parametrize("name", ["random", "evolution", "policy", "tpe"])
def test_only_the_order_of_rewards_matters(name: str) -> None:
    ours = [tokens for tokens, _ in searched(make(name), 30)]
    assert [tokens for tokens, _ in searched(make(name), 30, lambda one: planted(one) * 1e6 - 1e9)] == ours


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("tokens", "reward", "complaint"),
    [
        ((0, 0, 0, 0, 0), float("nan"), "reward must be a finite number, or None .*, got nan"),
        ((0, 0, 0, 0, 0), float("inf"), "reward must be a finite number, or None .*, got inf"),
        ((0, 0, 0, 0), 1.0, "tokens must be 5 indices below"),
        ((0, 2, 0, 0, 0), 1.0, "tokens must be 5 indices below"),
        ((-1, 0, 0, 0, 0), 1.0, "tokens must be 5 indices below"),
    ],
)
def test_what_cannot_be_told_is_refused_and_leaves_no_trace(
    name: str, tokens: Tokens, reward: float, complaint: str
) -> None:
    sampler = make(name)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        sampler.tell(tokens, reward)
    assert "\n" not in str(caught.value)
    assert searched(sampler, 12) == searched(make(name), 12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("sizes", "settings", "complaint"),
    [
        ((), {}, "sizes must be whole numbers of at least 1"),
        ((2, 0), {}, "sizes must be whole numbers of at least 1"),
        ((2, 1.5), {}, "sizes must be whole numbers of at least 1"),
        ((2,), {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ((2,), {"seed": 0.5}, "seed must be a whole number of at least 0, got 0.5"),
    ],
)
def test_sizes_and_seeds_are_checked(
    name: str, sizes: tuple[int, ...], settings: Mapping[str, int], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        SAMPLERS[name](sizes, **{"seed": 0, **settings})
    with pytest.raises(InvalidInput, match="number must be a whole number of at least 0, got -1"):
        make(name).ask(-1, everything)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("evolution", "population", 1),
        ("evolution", "sample", 1),
        ("evolution", "sample", 21),
        ("policy", "batch", 1),
        ("policy", "hidden", 0),
        ("policy", "epochs", 0),
        ("policy", "lr", 0),
        ("policy", "clip", 1.5),
        ("policy", "entropy", -0.1),
        ("tpe", "startup", 0),
    ],
)
def test_settings_are_checked(name: str, setting: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=f"{setting} must be .*, got {value}"):
        SAMPLERS[name]((2, 2), seed=0, **{setting: value})


@pytest.mark.parametrize(("name", "evaluations", "seeds"), [("evolution", 120, 6), ("policy", 120, 4), ("tpe", 60, 2)])
def test_each_method_beats_random_search_where_decisions_are_separable(name: str, evaluations: int, seeds: int) -> None:
    def best(kind: str, seed: int) -> float:
        return max(reward or 0 for _, reward in searched(make(kind, MNASNET, seed), evaluations))

    gains = [best(name, seed) - best("random", seed) for seed in range(seeds)]
    assert float(np.mean(gains)) > 5  # of planted's spread: random candidates have a standard deviation of 7


def test_random_search_is_even() -> None:
    draws = uniform((3, 2), np.random.default_rng(0))
    counts: dict[Tokens, int] = dict.fromkeys(product(range(3), range(2)), 0)
    for _ in range(6000):
        counts[next(draws)] += 1
    assert all(abs(count - 1000) < 120 for count in counts.values())  # four standard deviations


def test_evolution_begins_as_random_search() -> None:
    ours, theirs = searched(make("evolution"), 20), searched(make("random"), 20)
    assert ours == theirs


def test_the_oldest_dies_however_good_it_was() -> None:
    sampler = Evolution((5,) * 4, seed=0, population=3, sample=2)
    told(sampler, [((0, 0, 0, 0), 100.0), ((1, 1, 1, 1), 1.0), ((2, 2, 2, 2), 2.0)])
    assert [reward for reward, _ in sampler.alive] == [100, 1, 2]
    sampler.tell((3, 3, 3, 3), 0.0)
    assert [reward for reward, _ in sampler.alive] == [1, 2, 0]
    sampler.tell((4, 4, 4, 4), None)
    assert [reward for reward, _ in sampler.alive] == [1, 2, 0]


def test_a_child_differs_from_the_tournaments_best_in_one_decision() -> None:
    parent, other = (0, 0, 0, 0, 0, 0), (4, 4, 4, 4, 4, 4)
    sampler = Evolution((5,) * 6, seed=0, population=12, sample=12)
    told(sampler, [(parent, 1.0)] * 11 + [(other, 0.0)])
    children = {sampler.ask(number, everything) for number in range(12, 60)}
    assert all(sum(one != 0 for one in child) == 1 for child in children)
    assert len(children) > 15  # of 24


def test_mutation_goes_further_where_every_neighbour_was_seen() -> None:
    sampler = Evolution((2, 2, 2), seed=0, population=2, sample=2)
    told(sampler, [((0, 0, 0), 1.0), ((1, 0, 0), 0.0), ((0, 1, 0), 0.0), ((0, 0, 1), 0.0), ((0, 0, 0), 1.0)])
    told(sampler, [((0, 0, 0), 1.0)])
    assert sum(sampler.ask(6, everything)) == 2


def test_the_policy_begins_uniform_and_comes_to_favour_what_is_rewarded() -> None:
    sampler = Policy((3, 2, 4), seed=0)
    every = torch.tensor(list(product(range(3), range(2), range(4))))

    def likelihood() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = sampler.controller(every).gather(-1, every[..., None])[..., 0].sum(dim=1).exp()
        return found

    assert torch.allclose(likelihood(), torch.full((24,), 1 / 24))
    rewarded = [1.0 if one[0] == 2 else 0.0 for one in every.tolist()]
    history = list(zip([tuple(one) for one in every.tolist()], rewarded, strict=True))
    np.random.default_rng(0).shuffle(history)
    shares = [float((likelihood() * torch.tensor(rewarded)).sum())]
    for at in (0, 10, 4, 14):
        told(sampler, history[at : at + 10])
        shares.append(float((likelihood() * torch.tensor(rewarded)).sum()))
    assert all(before < after for before, after in pairwise(shares))
    assert shares[-1] > 0.45
    assert float(likelihood().sum()) == pytest.approx(1, abs=1e-5)


def test_an_update_follows_a_whole_batch_only() -> None:
    sampler = Policy((3, 3), seed=0, batch=4)
    before = sampler.weights
    told(sampler, [((0, 0), 1.0), ((1, 1), 2.0), ((2, 2), None)])
    assert sampler.weights is before
    sampler.tell((0, 1), 3.0)
    assert sampler.weights is not before
    assert sampler.waiting == []


def test_equal_rewards_teach_nothing_but_entropy() -> None:
    sampler = Policy((3, 3), seed=0, batch=4, entropy=0)
    told(sampler, [((0, 0), 1.0), ((1, 1), 1.0), ((2, 2), 1.0), ((0, 1), 1.0)])
    probabilities = sampler.controller(torch.tensor([[0, 0]])).exp()
    assert torch.allclose(probabilities, torch.full((1, 2, 3), 1 / 3))


def test_draws_have_the_probabilities_that_the_update_computes() -> None:
    controller = Controller((3, 2, 3), hidden=4, generator=np.random.default_rng(0))
    with torch.no_grad():
        for number, weight in enumerate(controller.parameters()):
            weight.copy_(torch.from_numpy(np.random.default_rng(number).normal(size=tuple(weight.shape))))
    noise = np.random.default_rng(1).gumbel(size=(40_000, 3, 3)).astype(np.float32)
    drawn = draw(weights_of(controller), noise)
    every = torch.tensor(list(product(range(3), range(2), range(3))))
    with torch.no_grad():
        expected = controller(every).gather(-1, every[..., None])[..., 0].sum(dim=1).exp().numpy()
    seen = [(drawn == np.array(one)).all(axis=1).mean() for one in every.tolist()]
    assert np.abs(np.array(seen) - expected).max() < 0.01  # four standard deviations of a half
    assert expected.max() > 0.12


def test_advantages_are_ranks_with_failures_last() -> None:
    found = advantages([5.0, None, 1e300, 5.0])
    assert found[1] < found[0] == found[3] < found[2]
    assert sum(found) == pytest.approx(0)
    assert np.std(advantages([float(one) for one in range(1000)])) == pytest.approx(1, abs=1e-3)
    assert advantages([2.0, 2.0]) == advantages([None, None]) == [0, 0]


def test_the_objective_is_clipped_as_in_ppo() -> None:
    ratio = torch.tensor([0.5, 1.0, 1.5, 0.5, 1.0, 1.5], requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    gain = objective(ratio, advantage, 0.2)
    assert torch.allclose(gain, torch.tensor([0.5, 1.0, 1.2, -0.8, -1.0, -1.5]))
    gain.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [1, 1, 0, 0, -1, -1]  # none where the policy has gone far enough already


def test_no_step_of_a_policy_goes_far_beyond_the_clip() -> None:
    sampler = Policy((4,) * 6, seed=0, epochs=40, lr=0.003, entropy=0)
    history = searched(make("random", (4,) * 6), 10)
    tokens = torch.tensor([tokens for tokens, _ in history])
    told(sampler, history)
    with torch.no_grad():
        ratio = (sampler.controller(tokens).gather(-1, tokens[..., None])[..., 0].exp() * 4).numpy()
    assert 1.15 < np.quantile(ratio, 0.9) < 1.6
    unbound = told(Policy((4,) * 6, seed=0, epochs=40, lr=0.003, entropy=0, clip=1), history)
    assert isinstance(unbound, Policy)
    with torch.no_grad():
        free = (unbound.controller(tokens).gather(-1, tokens[..., None])[..., 0].exp() * 4).numpy()
    assert np.quantile(free, 0.9) > np.quantile(ratio, 0.9) + 0.2


def test_tpe_tells_a_failure_as_the_worst_so_far() -> None:
    sampler = Tpe((3, 3), seed=0)
    told(sampler, [((0, 0), None), ((1, 1), 2.0), ((2, 2), 1.0), ((0, 1), None), ((0, 2), 0.5)])
    assert sampler.rewards == [2, 1, 1, 0.5]
    assert sampler.told.seen == {(0, 0), (1, 1), (2, 2), (0, 1), (0, 2)}


def test_tpe_leaves_optunas_log_level_alone() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    Tpe((3, 3), seed=0)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_first_gives_up_on_the_new_where_all_that_is_allowed_was_told() -> None:
    told_one = Told((2, 2), seed=0)
    told_one.seen.add((1, 1))
    draws = uniform((2, 2), np.random.default_rng(0))
    assert told_one.first(draws, lambda tokens: tokens == (1, 1)) == (1, 1)


def test_random_search_remembers_only_what_was_seen() -> None:
    sampler = Random(SIZES, seed=0)
    history = searched(sampler, 12)
    assert sampler.told.seen == {tokens for tokens, _ in history}
