"""Mixup and CutMix: shares, boxes and targets by hand, and what holds for any draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trifold.data.mixing import beta_share, mix
from trifold.errors import InvalidInput


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(images: int, side: int = 8, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = (uniform(images, seed=seed) * classes).long()
    return uniform(images, 3, side, side, seed=seed + 1), torch.nn.functional.one_hot(labels, classes).float()


def test_mixup_is_the_weighted_mean_with_the_reversed_batch() -> None:
    images, targets = batch_of(4)
    draws = uniform(4, 4, seed=5)
    draws[:, 0] = torch.tensor([0.25, 0.5, 0.75, 0.9])  # Beta(1, 1) is uniform: shares as drawn, at least a half
    found, mixed = mix(images, targets, draws, mixup=1.0)
    for i, weight in enumerate((0.75, 0.5, 0.75, 0.9)):
        assert torch.allclose(found[i], weight * images[i] + (1 - weight) * images[3 - i], atol=1e-6)
        assert torch.allclose(mixed[i], weight * targets[i] + (1 - weight) * targets[3 - i], atol=1e-6)


def test_cutmix_takes_a_box_of_the_partner_and_counts_what_is_kept() -> None:
    images, targets = torch.zeros(2, 1, 8, 8), torch.eye(2)
    images[1] = 1
    draws = torch.tensor([[0.75, 0.5, 0.25, 0.9], [0.75, 0.0, 0.99, 0.9]])  # a quarter of the area: 4 by 4 pixels
    found, mixed = mix(images, targets, draws, cutmix=1.0)
    expected = torch.zeros(8, 8)
    expected[0:4, 2:6] = 1
    assert torch.equal(found[0, 0], expected)
    corner = torch.ones(8, 8)
    corner[5:8, 0:2] = 0  # the box sticks out to the left and below
    assert torch.equal(found[1, 0], corner)
    assert mixed.tolist() == [[48 / 64, 16 / 64], [6 / 64, 58 / 64]]


def test_the_share_is_the_inverse_of_the_beta_distribution() -> None:
    draws = torch.tensor([0.0, 0.2, 0.5, 0.8, 0.999])
    assert torch.allclose(beta_share(draws, 1.0), draws)
    # Beta(1/2, 1/2), the arcsine distribution: F(x) = 2/pi asin(sqrt(x))
    assert torch.allclose(beta_share(draws, 0.5), torch.sin(torch.pi / 2 * draws) ** 2, atol=1e-6)
    shares = beta_share(uniform(20_000), 0.2).double()
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.005)


@pytest.mark.parametrize(("first", "alone"), [(0.49, "mixup"), (0.5, "cutmix")])
def test_where_both_are_given_the_first_images_last_draw_takes_one(first: float, alone: str) -> None:
    images, targets = batch_of(6)
    draws = uniform(6, 4, seed=5)
    draws[0, 3] = first
    both, expected = (
        mix(images, targets, draws, mixup=0.4, cutmix=1.0),
        mix(images, targets, draws, **{alone: {"mixup": 0.4, "cutmix": 1.0}[alone]}),
    )
    assert torch.equal(both[0], expected[0])
    assert torch.equal(both[1], expected[1])
    assert not torch.equal(both[0], images)


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 9),
    side=st.integers(4, 17),
    mixup=st.floats(0, 10),
    cutmix=st.floats(0, 10),
)
@settings(deadline=None, max_examples=100)
def test_targets_rows_sum_to_1_and_pixels_stay_in_range(
    seed: int, images: int, side: int, mixup: float, cutmix: float
) -> None:
    pixels, targets = batch_of(images, side=side, seed=seed)
    found, mixed = mix(pixels, targets, uniform(images, 4, seed=seed + 7), mixup=mixup, cutmix=cutmix)
    assert torch.allclose(mixed.sum(1), torch.ones(images), atol=1e-6)
    assert float(mixed.min()) >= 0
    assert float(found.min()) >= float(pixels.min()) - 1e-6
    assert float(found.max()) <= float(pixels.max()) + 1e-6


@given(seed=st.integers(0, 10_000), alpha=st.floats(0.01, 10))
@settings(deadline=None, max_examples=50)
def test_cutmix_targets_are_the_exact_shares_of_pixels(seed: int, alpha: float) -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 7, 9)
    found, mixed = mix(images, torch.eye(4), uniform(4, 4, seed=seed), cutmix=alpha)
    shares = torch.stack([(found == image).float().mean((1, 2, 3)) for image in range(4)], dim=1)
    assert torch.allclose(mixed, shares, atol=1e-6)


def test_the_result_follows_from_the_draws_and_the_arguments_are_left_alone() -> None:
    images, targets = batch_of(6)
    before, draws = images.clone(), uniform(6, 4, seed=5)
    torch.manual_seed(0)
    first = mix(images, targets, draws, cutmix=1.0)
    state = torch.get_rng_state()
    second = mix(images, targets, draws, cutmix=1.0)
    assert torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)


def test_neither_changes_nothing_and_a_negative_alpha_is_refused() -> None:
    images, targets = batch_of(3)
    assert mix(images, targets, uniform(3, 4))[0] is images
    with pytest.raises(InvalidInput, match=r"^cutmix must be 0 or more, got -0\.5$"):
        mix(images, targets, uniform(3, 4), cutmix=-0.5)
