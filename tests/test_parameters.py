"""Parameter groups, the optimisers over them, and that what is frozen stays to the last bit."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.baselines import find
from trifold.errors import InvalidInput
from trifold.network import Network, build
from trifold.train.parameters import make_optimizer, parameter_groups, row_depths, set_mode
from trifold.train.recipe import Recipe
from trifold.weights.layouts import row_of

SMALL = Architecture(
    name="small",
    resolution=32,
    stem=Stem(channels=8),
    stages=(
        Stage(operator="mbconv", channels=8, expand_ratio=2, stride=2, se_ratio=0.25),
        Stage(operator="mbconv", channels=8, expand_ratio=2, layers=2, se_ratio=0.25),
    ),
    head=Head(channels=16),
)
RECIPE = Recipe(name="r", epochs=4, batch_size=8, optimizer="sgd", lr=0.1, weight_decay=0.05)


def network(architecture: Architecture = SMALL, num_classes: int = 4) -> Network:
    return build(architecture, num_classes=num_classes, drop_rate=0.5, drop_path_rate=0.5, seed=0)


def names_of(net: Network, recipe: Recipe) -> list[tuple[float, float, list[str]]]:
    """(lr_scale, weight_decay, names) of each group."""
    by_id = {id(parameter): name for name, parameter in net.named_parameters()}
    return [
        (group["lr_scale"], group["weight_decay"], [by_id[id(parameter)] for parameter in group["params"]])
        for group in parameter_groups(net, recipe)
    ]


def step(net: Network, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, net.in_channels, 32, 32, generator=generator)
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(net(images), torch.arange(8) % net.num_classes).backward()
    optimizer.step()


def changed(net: Network, recipe: Recipe, epochs: range, fresh: tuple[str, ...] = ()) -> set[str]:
    """The tensors of the state dict that two steps and an evaluation in each of these epochs change in any bit."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = make_optimizer(net, recipe)
    for epoch in epochs:
        for number in range(2):
            set_mode(net, recipe, epoch=epoch, fresh=fresh)
            step(net, optimizer, 10 * epoch + number)
            net.eval()
            with torch.no_grad():
                net(torch.randn(2, net.in_channels, 32, 32))
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def norm_tensors(net: Network) -> set[str]:
    return {
        f"{name}.{part}"
        for name, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for part in module.state_dict()
    }


def test_without_layer_decay_kernels_decay_and_the_rest_does_not_in_the_networks_order() -> None:
    net = network()
    kernels, others = parameter_groups(net, RECIPE)
    assert [id(p) for p in kernels["params"]] == [id(p) for p in net.parameters() if p.ndim > 1]
    assert [id(p) for p in others["params"]] == [id(p) for p in net.parameters() if p.ndim <= 1]
    assert (kernels["weight_decay"], others["weight_decay"]) == (0.05, 0.0)
    assert (kernels["lr_scale"], others["lr_scale"]) == (1.0, 1.0)


def test_all_but_norm_decays_the_biases_of_squeeze_excite_and_classifier() -> None:
    net = network()
    (_, decay, decaying), (_, none, still) = names_of(net, replace(RECIPE, decay="all_but_norm"))
    assert (decay, none) == (0.05, 0.0)
    assert {name for name in decaying if name.endswith("bias")} == {
        "classifier.bias",
        *(
            f"stages.{block}.squeeze_excite.{part}.bias"
            for block in ("0.0", "1.0", "1.1")
            for part in ("reduce", "excite")
        ),
    }
    assert set(still) == norm_tensors(net) & {name for name, _ in net.named_parameters()}


def test_layer_decay_counts_rows_back_from_the_classifier() -> None:
    net = network()
    expected = {"classifier": 1.0, "head": 0.5, "stages.1": 0.25, "stages.0": 0.125, "stem": 0.0625}
    groups = names_of(net, replace(RECIPE, layer_decay=0.5))
    assert [(scale, decay) for scale, decay, _ in groups] == [
        (scale, decay) for scale in sorted(expected.values()) for decay in (0.05, 0.0)
    ]
    for scale, _, names in groups:
        assert {expected[row_of(name)] for name in names} == {scale}
    assert sorted(name for _, _, names in groups for name in names) == sorted(n for n, _ in net.named_parameters())


def test_rows_of_b0_and_of_a_network_without_head() -> None:
    with torch.device("meta"):
        b0 = row_depths(build(find("efficientnet_b0")))
        bare = row_depths(build(replace(SMALL, head=Head())))
    assert (b0["classifier"], b0["head"], b0["stages.6"], b0["stages.0"], b0["stem"]) == (0, 1, 2, 8, 9)
    assert bare == {"classifier": 0, "stages.1": 1, "stages.0": 2, "stem": 3}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop_tf"])
def test_each_group_starts_at_its_share_of_the_highest_rate(optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, layer_decay=0.5, lr_batch=4)
    groups = make_optimizer(network(), recipe).param_groups
    assert [group["lr"] for group in groups] == [0.2 * group["lr_scale"] for group in groups]
    assert {group["lr_scale"] for group in groups} == {1.0, 0.5, 0.25, 0.125, 0.0625}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop_tf"])
def test_frozen_batch_norm_keeps_statistics_scale_and_shift_to_the_last_bit(optimizer: str) -> None:
    net = network()
    recipe = replace(RECIPE, optimizer=optimizer, freeze_bn=True, lr=0.01)
    assert changed(net, recipe, range(3)) == set(net.state_dict()) - norm_tensors(net)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop_tf"])
def test_head_epochs_move_the_classifier_alone_and_then_everything_moves(optimizer: str) -> None:
    net = network()
    recipe = replace(RECIPE, optimizer=optimizer, head_epochs=2, lr=0.01)
    assert changed(net, recipe, range(2)) == {"classifier.weight", "classifier.bias"}
    assert changed(net, recipe, range(2, 4)) == set(net.state_dict())


def test_parameters_that_become_frozen_are_not_moved_by_momentum_left_from_before() -> None:
    net, recipe = network(), replace(RECIPE, freeze_bn=True)
    optimizer = make_optimizer(net, recipe)
    set_mode(net, replace(recipe, freeze_bn=False), epoch=0)
    step(net, optimizer, 0)
    set_mode(net, recipe, epoch=1)
    before = {name: net.state_dict()[name].clone() for name in norm_tensors(net)}
    optimizer.step()  # with the gradients of the step before, had they stayed
    step(net, optimizer, 1)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_dropout_alone_acts_while_the_head_is_trained() -> None:
    net = network()
    recipe = replace(RECIPE, head_epochs=1)
    set_mode(net, recipe, epoch=0)
    images = torch.randn(4, 3, 32, 32)
    assert net.training
    assert net.dropout.training
    assert torch.equal(net.forward_features(images), net.forward_features(images))
    assert not torch.equal(net(images), net(images))
    set_mode(net, recipe, epoch=1)
    assert all(module.training for module in net.modules())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_what_no_file_filled_is_trained_with_the_classifier_and_its_batch_norm_is_not_frozen() -> None:
    net = network()
    recipe = replace(RECIPE, head_epochs=1, freeze_bn=True)
    fresh = tuple(name for name in net.state_dict() if row_of(name) in ("head", "classifier"))
    assert changed(net, recipe, range(1), fresh) == set(fresh)
    counter = "head.norm.num_batches_tracked"
    fresh = tuple(name for name in fresh if name != counter)  # as `Loaded.initial` lists them
    assert norm_tensors(net) & changed(net, recipe, range(1, 2), fresh) == {
        f"head.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_head_epochs_without_a_classifier_are_refused() -> None:
    with pytest.raises(InvalidInput, match="head_epochs must be 0 for a network without a classifier"):
        set_mode(network(num_classes=0), replace(RECIPE, head_epochs=1), epoch=0)


def rmsprop_by_hand(w: Tensor, gradients: list[Tensor], rates: list[float], decay: float) -> Tensor:
    """TensorFlow's RMSProp: ms from ones, epsilon in the root, the rate in the momentum, L2 added to the gradient."""
    mean_squares, momentum = torch.ones_like(w), torch.zeros_like(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient + decay * w
        mean_squares = 0.9 * mean_squares + 0.1 * g * g
        momentum = 0.9 * momentum + rate * g / (mean_squares + 1e-3).sqrt()
        w = w - momentum
    return w


def nesterov_by_hand(w: Tensor, gradients: list[Tensor], rates: list[float], decay: float) -> Tensor:
    """Nesterov's momentum as torch has it: the rate outside the momentum."""
    momentum = torch.zeros_like(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        g = gradient + decay * w
        momentum = 0.9 * momentum + g
        w = w - rate * (g + 0.9 * momentum)
    return w


def adamw_by_hand(w: Tensor, gradients: list[Tensor], rates: list[float], decay: float) -> Tensor:
    """Adam with decoupled decay (1711.05101), beta1 the recipe's momentum, beta2 0.999, epsilon 1e-8."""
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    for number, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        w = w * (1 - rate * decay)
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        w = w - rate * (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
    return w


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [("rmsprop_tf", rmsprop_by_hand), ("sgd", nesterov_by_hand), ("adamw", adamw_by_hand)],
)
def test_five_steps_of_each_optimizer_are_its_formula(
    optimizer: str, formula: Callable[[Tensor, list[Tensor], list[float], float], Tensor]
) -> None:
    net = network().double()
    made = make_optimizer(net, replace(RECIPE, optimizer=optimizer))
    start = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    rates = [0.01, 0.02, 0.05, 0.04, 0.03]
    gradients: dict[str, list[Tensor]] = {name: [] for name in start}
    for rate in rates:
        for name, parameter in net.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            gradients[name].append(parameter.grad.clone())
        for group in made.param_groups:
            group["lr"] = rate * group["lr_scale"]
        made.step()
    for name, parameter in net.named_parameters():
        expected = formula(start[name], gradients[name], rates, 0.05 if parameter.ndim > 1 else 0.0)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-11, atol=1e-12)
