"""AutoAugment and RandAugment: rows, probabilities, signs and frequencies; neighbours in the batch change nothing."""

from collections import Counter

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tests.test_operators import apply, photograph, uniform
from trifold.data.operators import AUTO_CONSTANTS, OPERATORS, RAND_CONSTANTS
from trifold.data.policy import AUTO_DRAWS, AUTO_POLICY, auto_augment, rand_augment, rand_draws


def test_no_sub_policy_moves_an_image_out_of_sight() -> None:
    farthest = max(
        OPERATORS[name].argument(level, AUTO_CONSTANTS)
        for row in AUTO_POLICY
        for name, _, level in row
        if name.startswith("Translate")
    )
    pixels = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    assert int((apply("TranslateY", pixels, farthest)[0, 0, :, 0] == 0).sum()) == 10


def test_the_policy_has_25_rows_and_each_is_what_its_draw_takes() -> None:
    assert len(AUTO_POLICY) == 25
    pixels = photograph(1, 3, 16, 16)
    for number, row in enumerate(AUTO_POLICY):
        draws = torch.full((1, AUTO_DRAWS), 0.7)
        draws[0, 0] = (number + 0.5) / 25
        draws[0, [1, 4]] = 0.0  # both operators, unless their probability is 0
        expected = pixels
        for name, probability, level in row:
            if probability:
                expected = apply(name, expected, OPERATORS[name].argument(level, AUTO_CONSTANTS))
        assert torch.equal(auto_augment(pixels, draws), expected), row


def test_an_operator_is_applied_below_its_probability_and_its_sign_flipped_below_a_half() -> None:
    pixels = photograph(4, 3, 16, 16)
    draws = torch.full((4, AUTO_DRAWS), 0.9999)
    draws[:, 0] = 15.5 / 25  # Rotate 1.0 7, TranslateY 0.8 9
    draws[:, 4] = torch.tensor([0.79, 0.81, 0.81, 0.79])
    draws[:, 2] = torch.tensor([0.6, 0.6, 0.4, 0.6])
    draws[:, 5] = torch.tensor([0.6, 0.6, 0.6, 0.4])
    turned, other = apply("Rotate", pixels, 21.0), apply("Rotate", pixels, -21.0)
    found = auto_augment(pixels, draws)
    assert torch.equal(found[0], apply("TranslateY", turned, 225.0)[0])
    assert torch.equal(found[1], turned[1])
    assert torch.equal(found[2], other[2])
    assert torch.equal(found[3], apply("TranslateY", turned, -225.0)[3])


def test_sub_policies_are_equally_frequent() -> None:
    # Twenty-five rows told apart by what they do to one image where every draw but the first is fixed.
    pixels = photograph(1, 3, 16, 16)
    draws = torch.full((5000, AUTO_DRAWS), 0.3)
    draws[:, 0] = uniform(5000, seed=3)
    found = auto_augment(pixels.expand(5000, -1, -1, -1), draws)
    rows = (draws[:, 0] * 25).long()
    results = Counter(hash(image.numpy().tobytes()) for image in found)
    by_row = {number: hash(found[int((rows == number).nonzero()[0, 0])].numpy().tobytes()) for number in range(25)}
    shares = Counter(by_row.values())  # rows that do the same to it count together
    assert set(results) == set(shares)
    assert len(shares) >= 18
    expected = [5000 / 25 * shares[key] for key in results]
    assert chisquare(list(results.values()), expected).pvalue > 0.001


def test_randaugment_draws_all_16_operators_equally_often_in_every_place() -> None:
    assert rand_draws(2) == 6
    pixels = photograph(1, 3, 16, 16)
    names = list(OPERATORS)
    for number in (0, 7, 15):
        draws = torch.full((1, 6), 0.7)
        draws[0, 0], draws[0, 3] = (number + 0.5) / 16, (15.5 - number) / 16
        expected = pixels
        for name in (names[number], names[15 - number]):
            expected = apply(name, expected, OPERATORS[name].argument(9.0, RAND_CONSTANTS), draws[:, 1:3])
        assert torch.equal(rand_augment(pixels, draws, num_ops=2, magnitude=9.0), expected)
    many = torch.full((4000, 3), 0.7)
    many[:, 0] = uniform(4000, seed=4)
    found = rand_augment(pixels.expand(4000, -1, -1, -1), many, num_ops=1, magnitude=9.0)
    counts = Counter(hash(image.numpy().tobytes()) for image in found)
    assert len(counts) == 16
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_the_largest_draw_takes_the_last_row() -> None:
    pixels = photograph(1, 3, 16, 16)
    draws = torch.full((1, 3), 1 - 2**-24)
    expected = apply("SolarizeAdd", pixels, 99.0)
    assert torch.equal(rand_augment(pixels, draws, num_ops=1, magnitude=9.0), expected)


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 24),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(3, 33), st.integers(3, 33)),
    magnitude=st.floats(0, 10),
)
@settings(deadline=None, max_examples=20)
def test_an_images_result_is_a_function_of_its_own_draws(
    seed: int, batch: int, channels: int, size: tuple[int, int], magnitude: float
) -> None:
    pixels, order = photograph(batch, channels, *size, seed=seed), torch.randperm(batch, generator=torch.Generator())
    auto_draws, draws = uniform(batch, AUTO_DRAWS, seed=seed), uniform(batch, rand_draws(3), seed=seed + 5)
    auto = auto_augment(pixels, auto_draws)
    rand = rand_augment(pixels, draws, num_ops=3, magnitude=magnitude)
    assert torch.equal(auto_augment(pixels[order], auto_draws[order]), auto[order])
    assert torch.equal(rand_augment(pixels[order], draws[order], num_ops=3, magnitude=magnitude), rand[order])
    for part in torch.arange(batch).split(1 + seed % 7):
        assert torch.equal(auto_augment(pixels[part], auto_draws[part]), auto[part])
        assert torch.equal(rand_augment(pixels[part], draws[part], num_ops=3, magnitude=magnitude), rand[part])


def test_the_order_of_pixels_in_memory_changes_nothing() -> None:
    pixels, draws = photograph(64, 3, 32, 32), uniform(64, 7)
    last = pixels.contiguous(memory_format=torch.channels_last)
    assert torch.equal(auto_augment(pixels, draws), auto_augment(last, draws))
    found = [rand_augment(p, draws, num_ops=2, magnitude=9.0) for p in (pixels, last)]
    assert torch.equal(*found)


def test_the_images_given_are_left_as_they_are() -> None:
    pixels, draws = photograph(64, 3, 16, 16), uniform(64, 7)
    before = pixels.clone()
    auto_augment(pixels, draws)
    rand_augment(pixels, draws, num_ops=2, magnitude=10.0)
    assert torch.equal(pixels, before)
