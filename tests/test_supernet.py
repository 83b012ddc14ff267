"""A supernet's candidates against networks of their own, and the sandwich rule against sums worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tiny import QUICK
from trifold import weights
from trifold.architecture import OPERATORS, Architecture, Head, Stage, Stem
from trifold.data.images import Images
from trifold.data.loader import Held
from trifold.errors import InvalidInput
from trifold.network import Network, Numerics, build
from trifold.preprocessing import plain
from trifold.scaling import Rounding
from trifold.search.space import Option, Space, Tokens, around
from trifold.search.supernet import Supernet, largest_of, part, resized
from trifold.search.supernet_sandwich import Sandwich, check_recipe, drawn, outermost
from trifold.train.loop import batch_loss
from trifold.train.prepare import Batch
from trifold.train.recipe import Recipe
from trifold.train.task import Task

BASE = Architecture(
    name="base",
    resolution=8,
    stem=Stem(channels=4, stride=1),
    stages=(
        # At least 8 channels come into the stride: torch 2.13 writes beyond the weights' gradient of a strided 1x1
        # convolution (a shortcut) of fewer, channels-last, on a CPU.
        Stage(operator="mbconv", channels=16, layers=2, expand_ratio=2, se_ratio=0.25),
        Stage(operator="mbconv", channels=8, layers=2, stride=2, expand_ratio=2),
    ),
    head=Head(channels=8),
)
EVERY: dict[str, tuple[Option, ...]] = {
    "kernel_size": (3, 5),
    "se_ratio": (0, 0.25),
    "skip": (True, False),
    "expand_ratio": (1, 3),
    "width": (0.5, 1.5),
    "layers": (-1, 1),
}
NUMERICS = Numerics(bn_momentum=0.1)


def space_of(
    every: dict[str, tuple[Option, ...]], baseline: Architecture = BASE, resolutions: tuple[int, ...] = ()
) -> Space:
    return around(baseline, every, resolutions=resolutions, rounding=Rounding(divisor=2))


def of_operators(*operators: str) -> Space:
    """The space of every choice around blocks of these operators."""
    first = operators[0]
    stages = tuple(
        replace(stage, operator=first, expand_ratio=1 if first in ("separable", "basic", "conv") else 2)
        for stage in BASE.stages
    )
    return space_of({"operator": operators, **EVERY}, replace(BASE, stages=stages))


MIXED = of_operators(*OPERATORS)
MBCONV = space_of({name: options for name, options in EVERY.items() if name != "skip"})
KNOWN = MBCONV.architecture((0,) * len(MBCONV.sizes))


def supernet_of(space: Space, **given: float) -> Supernet:
    return Supernet(space, num_classes=5, in_channels=2, numerics=NUMERICS, **given)  # type: ignore[arg-type]


def channels_last(supernet: Supernet) -> Supernet:
    return supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's idiom


def images_of(count: int = 6, side: int = 8, seed: int = 0) -> Tensor:
    images = torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed))
    return images.contiguous(memory_format=torch.channels_last)


def tokens_of(space: Space, seed: int) -> Tokens:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return drawn(space)


def assert_is_part(supernet: Supernet, architecture: Architecture, images: Tensor) -> None:
    """The candidate's logits are those of the extracted network, bit for bit, and so are its gradients' values."""
    network = supernet.extract(architecture)
    ours, theirs = supernet(images, architecture), network(resized(images, architecture.resolution))
    assert torch.equal(ours, theirs)
    assert ours.isfinite().all()
    supernet.zero_grad(set_to_none=True)
    weighting = torch.linspace(-1, 2, ours.numel()).view_as(ours)
    (ours * weighting).sum().backward()
    (theirs * weighting).sum().backward()
    shared = dict(supernet.named_parameters())
    used = set()
    for name, parameter in network.named_parameters():
        place = name
        if name.startswith("stages."):
            _, stage, block, rest = name.split(".", 3)
            place = f"stages.{stage}.{block}.{architecture.stages[int(stage)].operator}.{rest}"
        used.add(place)
        whole, grad = shared[place].grad, parameter.grad
        assert whole is not None
        assert grad is not None
        assert torch.equal(part(whole, tuple(grad.shape)), grad), name
        outside = whole.double().square().sum() - grad.double().square().sum()
        assert abs(float(outside)) <= 1e-12 * (1 + float(grad.double().square().sum())), name
        assert (whole != 0).sum() == (grad != 0).sum()  # nothing outside the part
    assert all(tensor.grad is None for name, tensor in shared.items() if name not in used)


# ---- parts ----


@pytest.mark.parametrize(
    ("whole", "wanted", "where"),
    [
        ((6, 4, 5, 5), (4, 2, 3, 3), np.s_[:4, :2, 1:4, 1:4]),  # a convolution
        ((6, 1, 7, 7), (5, 1, 3, 3), np.s_[:5, :1, 2:5, 2:5]),  # a depthwise one
        ((6, 4, 3, 3), (6, 3, 1, 1), np.s_[:, :3, 1:2, 1:2]),
        ((6, 4, 1, 1), (2, 4, 1, 1), np.s_[:2]),
        ((10, 6), (10, 4), np.s_[:, :4]),  # the classifier
        ((6,), (4,), np.s_[:4]),  # a bias, a batch norm
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_part_is_the_first_channels_and_the_middle_of_the_kernel(
    whole: tuple[int, ...], wanted: tuple[int, ...], where: tuple[slice, ...], *, last: bool
) -> None:
    tensor = torch.arange(math.prod(whole)).view(whole).float()
    if last and tensor.ndim == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    found = part(tensor, wanted)
    assert np.array_equal(found.numpy(), tensor.numpy()[where])
    assert found.is_contiguous(
        memory_format=torch.channels_last if last and found.ndim == 4 else torch.contiguous_format
    )
    assert part(tensor, whole) is tensor


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_supernet_of_one_candidate_is_that_network(operator: str) -> None:
    space = of_operators(operator)
    architecture = space.architecture(tokens_of(space, 3))
    alone = Space(baseline=architecture, decisions=(space.decisions[0]._replace(options=(operator,)),))
    ours = supernet_of(alone, seed=7).extract(architecture).state_dict()
    theirs = build(architecture, num_classes=5, in_channels=2, numerics=NUMERICS, seed=7).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("last", [False, True])
def test_a_candidate_computes_what_its_own_network_does(operator: str, *, last: bool) -> None:
    space = of_operators(operator)
    supernet, images = supernet_of(space), images_of()
    if last:
        supernet = channels_last(supernet)
    else:
        images = images.contiguous()
    some = [tokens_of(space, seed) for seed in range(2)]
    for tokens in (*some, outermost(space, some[0], largest=True), outermost(space, some[1], largest=False)):
        assert_is_part(supernet, space.architecture(tokens), images)


@settings(max_examples=15)
@given(st.tuples(*(st.integers(0, size - 1) for size in MIXED.sizes)))
def test_every_candidate_of_mixed_operators_is_a_part(tokens: Tokens) -> None:
    assert_is_part(SHARED, MIXED.architecture(tokens), images_of(4))


SHARED = supernet_of(MIXED)


@pytest.mark.parametrize("head", [Head(), Head(channels=8)])
def test_stem_pool_and_no_head(head: Head) -> None:
    space = space_of(EVERY, replace(BASE, stem=replace(BASE.stem, max_pool=True), head=head, resolution=16))
    for seed in range(2):
        assert_is_part(supernet_of(space), space.architecture(tokens_of(space, seed)), images_of(side=16))


def test_a_block_may_expand_or_not_as_its_width_has_it() -> None:
    """Expansion over the output: in some candidates the width inside is the input's, and there is no expansion."""
    stages = (replace(BASE.stages[0], operator="mbconv", expand_of="output", expand_ratio=1, channels=4),)
    space = space_of({"width": (0.5, 1), "expand_ratio": (1, 2)}, replace(BASE, stages=stages))
    supernet = supernet_of(space)
    found = set()
    for tokens in ((i, j) for i in range(2) for j in range(2)):
        architecture = space.architecture(tokens)
        assert_is_part(supernet, architecture, images_of())
        found.add(isinstance(supernet.extract(architecture).get_submodule("stages.0.0.expand"), nn.Identity))
    assert found == {True, False}


def test_the_largest_candidate_has_all_of_every_tensor() -> None:
    supernet = supernet_of(MBCONV)
    network = supernet.extract(supernet.largest)
    shared = {name.replace(".mbconv.", "."): tuple(tensor.shape) for name, tensor in supernet.named_parameters()}
    assert {name: tuple(tensor.shape) for name, tensor in network.named_parameters()} == shared
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(0.5)
    before = supernet.extract(supernet.largest)
    assert all(bool((parameter == 0.5).all()) for parameter in before.parameters())
    assert not any(bool((parameter == 0.5).all()) for parameter in network.parameters())  # copies


def test_a_gradient_is_zero_outside_the_part() -> None:
    """By hand: 8 of 24 channels, 8 of 72 inside (ratio 1: no expansion), the middle 3x3 of 5x5, one block of three."""
    supernet = supernet_of(MBCONV)
    smallest = MBCONV.architecture(outermost(MBCONV, tokens_of(MBCONV, 0), largest=False))
    assert [(row.channels, row.layers, row.kernel_size, row.expand_ratio) for row in smallest.stages] == [
        (8, 1, 3, 1),
        (4, 1, 3, 1),
    ]
    supernet(images_of(), smallest).square().sum().backward()
    grads = {name: tensor.grad for name, tensor in supernet.named_parameters()}
    depthwise = grads["stages.1.0.mbconv.depthwise.conv.weight"]
    assert depthwise is not None
    assert depthwise.shape == (72, 1, 5, 5)
    assert bool((depthwise[:8, :, 1:4, 1:4] != 0).all())
    depthwise[:8, :, 1:4, 1:4] = 0
    assert not depthwise.any()
    project = grads["stages.1.0.mbconv.project.conv.weight"]
    assert project is not None
    assert project.shape == (12, 72, 1, 1)
    assert bool((project[:4, :8] != 0).all())
    assert int((project != 0).sum()) == 32
    assert grads["stages.1.0.mbconv.expand.conv.weight"] is None
    assert not any(grads[name] is not None for name in grads if name.startswith(("stages.0.1", "stages.1.2")))


def test_resolutions_are_resized_within() -> None:
    space = space_of({"width": (0.5, 1)}, resolutions=(6, 8))
    supernet, images = supernet_of(space), images_of()
    small = space.architecture((0, 1, 1))
    assert small.resolution == 6
    assert_is_part(supernet, small, images)
    assert not torch.equal(resized(images, 6), images[..., :6, :6])
    expected = F.interpolate(images, (6, 6), mode="bilinear", antialias=True)
    assert torch.equal(resized(images, 6), expected)
    assert resized(images, 6).is_contiguous(memory_format=torch.channels_last)
    assert resized(images, 8) is images


def test_an_extracted_network_is_saved_and_read_as_any_other(tmp_path: object) -> None:
    supernet = supernet_of(MBCONV)
    network = supernet.extract(MBCONV.architecture(tokens_of(MBCONV, 1)))
    assert isinstance(network, Network)
    path = f"{tmp_path}/weights.safetensors"
    weights.save(path, network)
    again, _ = weights.load(path)
    images = images_of()
    assert again.architecture == network.architecture
    assert torch.equal(again(images), network.eval()(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 9}, r"architecture base must have .* resolutions \(8,\), got 9 pixels"),
        ({"stem": Stem(channels=6, stride=1)}, "architecture base must have the space's stem"),
        ({"head": Head(channels=9)}, "architecture base must have the space's stem, head"),
        ({"stages": BASE.stages[:1]}, "must have 2 stages, got 1"),
        ({"stages": (replace(BASE.stages[0], kernel_size=7), BASE.stages[1])}, "stage 1 is not in the space: Stage"),
        ({"stages": (KNOWN.stages[0], replace(KNOWN.stages[1], channels=7))}, "stage 2 is not in the space: Stage"),
        ({"stages": (KNOWN.stages[0], replace(KNOWN.stages[1], layers=4))}, "stage 2 is not in the space: Stage"),
    ],
)
def test_what_is_not_in_the_space_is_refused_in_one_line(change: dict[str, object], message: str) -> None:
    supernet = supernet_of(MBCONV)
    other = replace(KNOWN, **change)  # type: ignore[arg-type]
    for act in (supernet.extract, lambda architecture: supernet(images_of(), architecture)):
        with pytest.raises(InvalidInput, match=message) as caught:
            act(other)
        assert "\n" not in str(caught.value)


def test_the_number_of_classes_and_the_rates_are_checked() -> None:
    for given_, message in (
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"num_classes": 2, "in_channels": 0}, "in_channels must be a whole number from 1"),
        ({"num_classes": 2, "drop_rate": 1.0}, "drop_rate must be a number in"),
        ({"num_classes": 2, "seed": -1}, "seed must be a whole number from 0"),
    ):
        with pytest.raises(InvalidInput, match=message):
            Supernet(MBCONV, **given_)


def test_a_supernet_is_not_evaluated_itself() -> None:
    supernet = supernet_of(MBCONV).eval()
    with pytest.raises(RuntimeError, match="extract a candidate and calibrate it"):
        supernet(images_of(), supernet.largest)


def test_equal_seeds_give_equal_supernets_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = (supernet_of(MIXED, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert not [name for name in one if "running" in name]


def test_the_modules_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trifold.search.supernet.MOST_BLOCKS", 3)
    supernet = supernet_of(MBCONV)
    for seed in range(3):
        assert_is_part(supernet, MBCONV.architecture(tokens_of(MBCONV, seed)), images_of())
    assert len(supernet._modules_of) <= 3


# ---- the sandwich rule ----


def task_with(recipe: Recipe = QUICK) -> Task:
    images = Images(
        pixels=torch.randint(0, 256, (70, 2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        labels=torch.arange(70) % 5,
    )
    preprocessing = replace(plain(8, "RGB"))
    return Task(
        train=Held(images=images),
        minival=Held(images=images[torch.arange(20)]),
        preprocessing=preprocessing,
        recipe=recipe,
        seed=0,
        flip=False,
        num_classes=5,
    )


def batch_of() -> Batch:
    return Batch(images_of(10), torch.arange(10) % 5)


def loss_at(
    seed: int, supernet: Supernet, sandwich: Sandwich, recipe: Recipe = QUICK, weights: Tensor | None = None
) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sandwich.loss(supernet, batch_of(), task_with(recipe), weights)


def test_draws_are_even_and_follow_the_global_generator() -> None:
    torch.manual_seed(5)
    first = [drawn(MIXED) for _ in range(400)]
    torch.manual_seed(5)
    assert first == [drawn(MIXED) for _ in range(400)]
    for decision, size in enumerate(MIXED.sizes):
        counts = torch.bincount(torch.tensor([tokens[decision] for tokens in first]), minlength=size)
        assert len(counts) == size
        expected = 400 / size
        assert float(((counts - expected) ** 2 / expected).sum()) < 30  # chi-square, at most 5 degrees of freedom


def test_the_ends_have_the_most_and_the_least_of_what_is_ordered() -> None:
    tokens = tokens_of(MIXED, 1)
    most, least = (outermost(MIXED, tokens, largest=end) for end in (True, False))
    for decision, drawn_, high, low in zip(MIXED.decisions, tokens, most, least, strict=True):
        if decision.field in ("operator", "skip"):
            assert high == low == drawn_
        else:
            assert decision.options[high] == max(decision.options)
            assert decision.options[low] == min(decision.options)
    assert MBCONV.architecture(outermost(MBCONV, tokens_of(MBCONV, 2), largest=True)) == largest_of(MBCONV)
    reversed_ = space_of({"width": (1.5, 0.5, 1)})
    assert outermost(reversed_, (2, 2), largest=True) == (0, 0)
    assert outermost(reversed_, (2, 2), largest=False) == (1, 1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("num_random", "label_share"), [(0, 0.5), (2, 0.0), (2, 0.25), (2, 1.0)])
def test_the_loss_is_the_sum_and_its_targets_are_detached(
    num_random: int, label_share: float, *, weighted: bool
) -> None:
    """Worked by hand with networks of the candidates' own, whose gradients are added where they belong."""
    supernet = supernet_of(MBCONV)
    class_weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.5]) if weighted else None
    recipe = replace(QUICK, label_smoothing=0.1)
    loss = loss_at(3, supernet, Sandwich(num_random=num_random, label_share=label_share), recipe, class_weights)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ends = [outermost(MBCONV, drawn(MBCONV), largest=end) for end in (True, False)]
        tokens = [*ends, *(drawn(MBCONV) for _ in range(num_random))]
    networks = [supernet.extract(MBCONV.architecture(one)) for one in tokens]
    images, labels = batch_of()
    outputs = [network(images) for network in networks]
    losses = [batch_loss(outputs[0], labels, 0.1, class_weights)]
    taught = outputs[0].detach().softmax(1)
    scale = torch.ones(5) if class_weights is None else class_weights
    for out in outputs[1:]:
        losses.append((1 - label_share) * (-(taught * out.log_softmax(1)).sum(1) * (taught @ scale)).mean())
        losses.append(label_share * batch_loss(out, labels, 0.1, class_weights))
    expected = torch.stack(losses).sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.backward()
    expected.backward()
    wholes = {name: torch.zeros_like(tensor) for name, tensor in supernet.named_parameters()}
    for network in networks:
        for name, parameter in network.named_parameters():
            pieces = name.split(".")
            place = ".".join([*pieces[:3], "mbconv", *pieces[3:]]) if pieces[0] == "stages" else name
            assert parameter.grad is not None
            part_in_place(wholes[place], parameter.grad)
    for name, tensor in supernet.named_parameters():
        assert tensor.grad is not None, name  # the largest candidate reaches all
        assert torch.allclose(tensor.grad, wholes[name], rtol=1e-4, atol=1e-6), name


def part_in_place(whole: Tensor, grad: Tensor) -> None:
    """Adds a part's gradient to the whole's."""
    where = []
    for dimension, (size, wanted) in enumerate(zip(whole.shape, grad.shape, strict=True)):
        start = (size - wanted) // 2 if dimension > 1 else 0
        where.append(slice(start, start + wanted))
    whole[tuple(where)] += grad


def test_a_step_is_a_function_of_the_generators_state() -> None:
    supernet = supernet_of(MIXED, drop_rate=0.3, drop_path_rate=0.3)
    losses = [float(loss_at(seed, supernet, Sandwich()).detach()) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_only_the_largest_candidate_is_regularised() -> None:
    supernet = supernet_of(MBCONV, drop_rate=0.5, drop_path_rate=0.5)
    images, architecture = images_of(), supernet.largest
    torch.manual_seed(0)
    plain_, again = supernet(images, architecture), supernet(images, architecture)
    assert torch.equal(plain_, again)
    noisy = supernet(images, architecture, regularised=True)
    assert not torch.equal(plain_, noisy)
    assert not torch.equal(noisy, supernet(images, architecture, regularised=True))
    drops = [part.rate for part in supernet.extract(architecture).modules() if type(part).__name__ == "DropPath"]
    assert drops  # an extracted network has the rates, to be trained further with


def test_soft_targets_of_mixed_images_reach_the_largest() -> None:
    supernet, batch = supernet_of(MBCONV), batch_of()
    soft = F.one_hot(batch.targets, 5).float()
    losses = []
    for targets in (batch.targets, soft):
        torch.manual_seed(1)
        losses.append(float(Sandwich().loss(supernet, Batch(batch.images, targets), task_with(), None).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_half_precision_is_the_recipes(precision: str) -> None:
    supernet = supernet_of(MBCONV)
    full = loss_at(1, supernet, Sandwich())
    half = loss_at(1, supernet, Sandwich(), replace(QUICK, precision=precision))
    assert half.dtype == torch.float32
    assert float(half.detach()) != float(full.detach())
    assert float(half.detach()) == pytest.approx(float(full.detach()), rel=0.05)
    half.backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in supernet.parameters())


def test_the_kernels_and_torchs_own_operators_agree_on_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for kernels in ("best", "off"):
        monkeypatch.setenv("TRIFOLD_KERNELS", kernels)
        supernet = channels_last(supernet_of(MBCONV))
        loss_at(4, supernet, Sandwich()).backward()
        grads.append({name: tensor.grad for name, tensor in supernet.named_parameters()})
    for name, one in grads[0].items():
        other = grads[1][name]
        assert one is not None
        assert other is not None
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max() + 1)), name


@pytest.mark.parametrize(
    ("field", "value"),
    [("freeze_bn", True), ("head_epochs", 1), ("sync_bn", True), ("compile", True), ("grad_checkpointing", True)],
)
def test_what_a_supernet_has_not_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"recipe: {field} must be (false|0) for a supernet, got {value}"):
        check_recipe(replace(QUICK, **{field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("num_random", -1), ("num_random", 1.0), ("batches", 0)])
def test_a_sandwich_is_checked(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"sandwich: {field} must be a whole number of at least"):
        Sandwich(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="sandwich: label_share must be a number from 0 to 1, got nan"):
        Sandwich(label_share=float("nan"))
