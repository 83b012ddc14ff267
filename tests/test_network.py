"""The built network: its counts against the cost, its start, its schedule, its features, and torch's tools on it."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trifold import baselines
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.cost import cost
from trifold.create import create_model
from trifold.errors import InvalidInput
from trifold.layers import PADDINGS, TORCH_NUMERICS, DropPath, Numerics
from trifold.network import Network, build, drop_path_rates


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers gain nothing from a second thread, and wait for it at each one where another process runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY = Architecture(
    name="tiny",
    resolution=32,
    stem=Stem(channels=8),
    stages=(
        Stage(operator="fused_mbconv", channels=8, expand_ratio=2, layers=2),
        Stage(operator="mbconv", channels=16, expand_ratio=3, layers=2, stride=2, kernel_size=5, se_ratio=0.25),
        Stage(operator="bottleneck", channels=24, expand_ratio=0.5, layers=2, stride=2, activation="relu"),
    ),
    head=Head(channels=32),
)

B0_WITH_SKIP = (2, 4, 6, 7, 9, 10, 12, 13, 14)


def on_meta(architecture: Architecture, **options: Any) -> Network:
    with torch.device("meta"):
        return build(architecture, **options)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stage_blocks(network: Network) -> list[Any]:
    return [block for stage in network.stages.children() for block in stage.children()]


def saved(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}


@pytest.mark.parametrize("name", baselines.list_models())
def test_network_has_and_does_what_the_cost_says(name: str) -> None:
    architecture = baselines.find(name)
    expected, network = cost(architecture), on_meta(architecture).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert parameters == expected.parameters
    assert sum(tensor.numel() for tensor in saved(network).values()) - parameters == expected.statistics
    assert len(saved(network)) == expected.tensors
    outputs = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _, __, out: outputs.append(out.numel()))
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, architecture.resolution, architecture.resolution, device="meta"))
    assert counter.get_total_flops() == 2 * expected.multiply_adds
    assert sum(outputs) == expected.activations


def test_b0_has_the_published_ledger_block_by_block() -> None:
    rows = json.loads((Path(__file__).parent / "data" / "b0_ledger.json").read_text(encoding="utf-8"))
    network = on_meta(baselines.find("b0")).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 224, 224, device="meta"))
    names = ["stem", *(name for name, _ in network.named_modules() if name.count(".") == 2 and name[:6] == "stages"),
             "head", "classifier"]  # fmt: skip
    for name, row in zip(names, rows, strict=True):
        module = network.get_submodule(name)
        assert sum(parameter.numel() for parameter in module.parameters()) == row["parameters"], name
        assert sum(counter.get_flop_counts()[f"Network.{name}"].values()) == 2 * row["multiply_adds"], name


def test_drop_path_rises_from_0_and_acts_only_where_there_is_a_shortcut() -> None:
    blocks = stage_blocks(on_meta(baselines.find("b0"), drop_path_rate=0.2))
    rates = {i: block.drop_path.rate for i, block in enumerate(blocks) if isinstance(block.drop_path, DropPath)}
    assert tuple(rates) == B0_WITH_SKIP
    assert rates[2] == pytest.approx(0.025)
    assert drop_path_rates(baselines.find("b0"), 0.2)[15] == pytest.approx(0.1875)
    assert rates == {i: pytest.approx(0.2 * i / 16) for i in B0_WITH_SKIP}
    assert not any(isinstance(m, DropPath) for m in on_meta(baselines.find("b0")).modules())


@pytest.mark.parametrize(
    ("name", "survival"),
    [("b0", 0.8125), ("b1", 0.808696), ("b3", 0.807692), ("b4", 0.80625), ("b5", 0.805128), ("b6", 0.804444),
     ("b7", 0.803636), ("b8", 0.803279), ("l2", 0.802273)],
)  # fmt: skip
def test_last_block_survives_as_published(name: str, survival: float) -> None:
    assert 1 - drop_path_rates(baselines.find(name), 0.2)[-1] == pytest.approx(survival, abs=1e-6)


def test_start_has_the_papers_deviations() -> None:
    network: Any = create_model("b0", seed=0)
    blocks = stage_blocks(network)
    for weight, deviation in (
        (network.stem.conv.weight, (2 / 288) ** 0.5),
        (blocks[15].depthwise.conv.weight, (2 / 9) ** 0.5),
        (blocks[12].depthwise.conv.weight, (2 / 25) ** 0.5),
        (network.head.conv.weight, (2 / 1280) ** 0.5),
        (blocks[15].squeeze_excite.excite.weight, (2 / 1152) ** 0.5),
    ):
        error = deviation / (2 * weight.numel()) ** 0.5
        assert abs(float(weight.detach().std()) - deviation) < 4 * error
        assert abs(float(weight.detach().mean())) < 4 * deviation / weight.numel() ** 0.5
    bound = 1000**-0.5
    assert bound * 0.999 < float(network.classifier.weight.detach().abs().max()) <= bound
    state = saved(network)
    assert not any(t.any() for n, t in state.items() if n.endswith((".bias", "running_mean")))
    assert all((t == 1).all() for n, t in state.items() if n.endswith(("norm.weight", "running_var")))


def test_equal_seeds_give_equal_networks_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, third = (saved(build(TINY, seed=seed)) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.conv.weight"], third["stem.conv.weight"])
    body = saved(build(TINY, seed=7, num_classes=5))
    assert all(torch.equal(first[name], body[name]) for name in first if "classifier" not in name)


def test_without_a_seed_the_global_generator_decides() -> None:
    torch.manual_seed(3)
    first = build(TINY).stem.conv.weight
    second = build(TINY).stem.conv.weight
    torch.manual_seed(3)
    assert torch.equal(first, build(TINY).stem.conv.weight)
    assert not torch.equal(first, second)


def test_names_of_tensors_are_the_documented_ones() -> None:
    names = set(saved(on_meta(TINY)))
    assert {
        "stem.conv.weight",
        "stem.norm.running_mean",
        "stages.0.1.expand.conv.weight",
        "stages.1.0.depthwise.norm.weight",
        "stages.1.0.squeeze_excite.reduce.bias",
        "stages.1.1.squeeze_excite.excite.weight",
        "stages.2.0.shortcut.conv.weight",
        "stages.2.1.project.norm.bias",
        "head.conv.weight",
        "classifier.weight",
        "classifier.bias",
    } <= names


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 224), (95, 32)])
def test_any_size_gives_equal_shapes_under_same_and_symmetric_padding(size: tuple[int, int]) -> None:
    same, symmetric = (
        create_model("mobilenet_v2", features_only=True, numerics=numerics, seed=0).eval()
        for numerics in (Numerics(), TORCH_NUMERICS)
    )
    x = images(2, 3, *size)
    with torch.no_grad():
        shapes = [[tuple(found.shape) for found in network(x)] for network in (same, symmetric)]
    info = same.feature_info
    expected = [
        (2, channels, -(-size[0] // reduction), -(-size[1] // reduction))
        for channels, reduction in zip(info.channels(), info.reduction(), strict=True)
    ]
    assert shapes == [expected, expected]


def test_static_padding_equals_dynamic_at_the_architectures_resolution() -> None:
    outputs = []
    for padding in PADDINGS:
        network = build(baselines.find("mini"), numerics=Numerics(padding=padding), seed=0).eval()
        outputs.append(network(images(2, 3, 32, 32)))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("b0", "efficientnet_b0"), ("b3", "efficientnet_b3"), ("lite0", "tf_efficientnet_lite0"), ("resnet50", "resnet50"),
     ("v2_s", "tf_efficientnetv2_s"), ("mobilenet_v2", "mobilenetv2_100"), ("mobilenet_v1", "mobilenetv1_100"),
     ("efficientnet_es", "tf_efficientnet_es"), ("mnasnet_a1", "semnasnet_100")],
)  # fmt: skip
def test_features_have_timms_channels_and_reductions(ours: str, theirs: str) -> None:
    with torch.device("meta"):
        mine = create_model(ours, features_only=True).feature_info
        peer: Any = timm.create_model(theirs, features_only=True).feature_info
    assert mine.channels() == peer.channels()
    assert mine.reduction() == peer.reduction()
    with torch.device("meta"):
        mine = create_model(ours, features_only=True, out_indices=(1, -1)).feature_info
    assert mine.channels() == [peer.channels()[1], peer.channels()[-1]]
    assert mine.channels(0) == [peer.channels()[0]]
    assert mine[0]["num_chs"] == peer.channels()[0]
    assert len(mine) == 5


def test_features_are_the_last_maps_of_each_size_in_the_order_asked_for() -> None:
    network = create_model("mobilenet_v2", seed=0).eval()
    x = images(1, 3, 64, 64)
    maps, kept = network.stem(x), []
    for stage in network.stages:
        maps = stage(maps)
        kept.append(maps)
    features = network.features((-1, 0, 3))
    assert [torch.equal(a, kept[i]) for a, i in zip(features(x), (6, 0, 4), strict=True)] == [True] * 3
    assert features.feature_info.module_name() == ["stages.6", "stages.0", "stages.4"]
    assert torch.equal(create_model("mobilenet_v2", features_only=True, seed=0).eval()(x)[-1], kept[6])
    assert [tuple(m.shape) for m in network.features(2)(x)] == [(1, 96, 4, 4), (1, 320, 2, 2)]


def test_features_after_the_last_chosen_are_not_built() -> None:
    features = create_model("b0", features_only=True, out_indices=(0, 1))
    assert [name for name, _ in features.stages.named_children()] == ["0", "1"]
    network = create_model("resnet18", features_only=True, out_indices=(0,))
    assert [tuple(m.shape) for m in network(images(1, 3, 64, 64))] == [(1, 64, 32, 32)]


def test_head_is_pooling_dropout_and_classifier() -> None:
    network: Any = build(TINY, num_classes=7, drop_rate=0.4, seed=0).eval()
    x = images(2, 3, 32, 32)
    maps = network.forward_features(x)
    assert maps.shape == (2, 32, 4, 4)
    assert network.num_features == 32
    pooled = network.forward_head(maps, pre_logits=True)
    assert torch.allclose(pooled, maps.mean((2, 3)))
    assert torch.equal(network(x), network.classifier(pooled))
    assert network.dropout.p == 0.4
    network.train()
    torch.manual_seed(0)
    dropped = network.forward_head(maps, pre_logits=True)
    assert (dropped == 0).any()
    assert torch.allclose(dropped[dropped != 0], (pooled / 0.6)[dropped != 0])


def test_global_pools_are_what_they_are_named() -> None:
    x = images(2, 3, 32, 32)
    maps = build(TINY, num_classes=0, seed=0).eval().forward_features(x)
    mean, largest = maps.mean((2, 3)), maps.flatten(2).max(2).values
    for pool, expected in {"avg": mean, "max": largest, "avgmax": (mean + largest) / 2, "": maps}.items():
        network = build(TINY, num_classes=0, global_pool=pool, seed=0).eval()
        assert torch.allclose(network(x), expected)
        assert isinstance(network.get_classifier(), nn.Identity)


def test_reset_classifier_changes_the_classifier_and_nothing_else() -> None:
    network = build(TINY, seed=0).double().eval()
    before = {name: tensor.clone() for name, tensor in saved(network).items()}
    network.reset_classifier(5, seed=1)
    classifier = network.get_classifier()
    assert isinstance(classifier, nn.Linear)
    assert (classifier.in_features, classifier.out_features, classifier.weight.dtype) == (32, 5, torch.float64)
    assert 0.9 * 5**-0.5 < float(classifier.weight.detach().abs().max()) <= 5**-0.5
    assert network.num_classes == 5
    assert not classifier.training
    assert all(torch.equal(before[n], t) for n, t in saved(network).items() if "classifier" not in n)
    network.reset_classifier(0, "")
    assert network(images(1, 3, 32, 32).double()).shape == (1, 32, 4, 4)
    network.reset_classifier(3, "max")
    assert network(images(1, 3, 32, 32).double()).shape == (1, 3)


@pytest.mark.parametrize("in_channels", [1, 4])
def test_images_may_have_other_numbers_of_channels(in_channels: int) -> None:
    network = create_model("mini", in_channels=in_channels, num_classes=10, seed=0)
    assert network.stem.conv.weight.shape == (8, in_channels, 3, 3)
    assert network(images(2, in_channels, 32, 32)).shape == (2, 10)
    assert cost(network.architecture, num_classes=10, in_channels=in_channels).parameters == sum(
        parameter.numel() for parameter in network.parameters()
    )


@pytest.mark.parametrize("name", ["mini", "resnet18", "mobilenet_v1", TINY])
def test_gradients_reach_every_parameter(name: str | Architecture) -> None:
    network = create_model(name, num_classes=4, seed=0)
    nn.functional.cross_entropy(network(images(4, 3, 32, 64)), torch.arange(4)).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_checkpointing_gives_equal_gradients_and_counts_statistics_once() -> None:
    found = []
    for enable in (False, True):
        network = build(TINY, num_classes=3, drop_rate=0.2, drop_path_rate=0.3, seed=0)
        network.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        nn.functional.cross_entropy(network(images(6, 3, 32, 32)), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
        found.append(({n: p.grad for n, p in network.named_parameters()}, network.state_dict()))
    (plain, statistics), (again, statistics_again) = found
    for name, gradient in plain.items():
        expected = again[name]
        assert gradient is not None
        assert expected is not None
        assert torch.allclose(gradient, expected, atol=1e-7), name
    assert statistics["stages.1.0.depthwise.norm.num_batches_tracked"] == 1
    assert all(torch.equal(statistics[name], statistics_again[name]) for name in statistics)


def test_checkpointing_keeps_fewer_tensors() -> None:
    kept = []
    for enable in (False, True):
        network = build(TINY, seed=0)
        network.set_grad_checkpointing(enable)
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(images(2, 3, 32, 32))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_channels_last_stays_so_and_gives_equal_outputs() -> None:
    network = create_model("mini", seed=0).eval()
    x = images(2, 3, 32, 32)
    expected = network(x)
    last = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    with torch.no_grad():
        maps = last.forward_features(x.to(memory_format=torch.channels_last))
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last(x.to(memory_format=torch.channels_last)), expected, atol=1e-5)


def test_float64_and_float32_agree() -> None:
    network = build(TINY, seed=0).eval()
    x = images(2, 3, 32, 32)
    single = network(x)
    double = network.double()(x.double())
    assert double.dtype == torch.float64
    assert torch.allclose(single.double(), double, atol=1e-5)


def exported(network: nn.Module, x: Tensor, dynamic: dict[int, Any] | None = None) -> Callable[[Tensor], Tensor]:
    shapes = None if dynamic is None else (dynamic,)
    program: Any = torch.export.export(network, (x,), dynamic_shapes=shapes)
    module: Callable[[Tensor], Tensor] = program.module()
    return module


@pytest.mark.parametrize("padding", PADDINGS)
def test_export_gives_equal_outputs(padding: str) -> None:
    network = build(TINY, numerics=Numerics(padding=padding), seed=0).eval()
    x = images(2, 3, 32, 32)
    assert torch.allclose(exported(network, x)(x), network(x), atol=1e-6)


def test_export_takes_any_batch_and_size_under_dynamic_same_padding() -> None:
    network = build(TINY, seed=0).eval()
    auto = torch.export.Dim.AUTO
    module = exported(network, images(2, 3, 35, 38), {0: auto, 2: auto, 3: auto})
    for shape in ((1, 3, 32, 32), (3, 3, 47, 64)):
        x = images(*shape)
        assert torch.allclose(module(x), network(x), atol=1e-6)


COMPILE = """
    import sys, torch
    from trifold import architecture
    from trifold.create import create_model
    network = create_model(architecture.from_dict({architecture!r}), num_classes=3, seed=0).eval()
    torch.set_num_threads(1)
    x = torch.randn(2, 3, 33, 32)
    compiled = torch.compile(network, fullgraph=True, backend={backend!r})
    assert torch.allclose(compiled(x), network(x), atol=1e-5)
    network.train()
    torch.compile(network, fullgraph=True, backend={backend!r})(x).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_takes_the_whole_network_as_one_graph(backend: str) -> None:
    # In an interpreter of its own: here the shapes in the types are checked, which torch.compile cannot look through.
    from trifold.architecture import to_dict

    code = textwrap.dedent(COMPILE).format(architecture=to_dict(TINY), backend=backend)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_file_and_an_architecture_are_names_too(tmp_path: Path) -> None:
    from trifold.architecture import to_toml

    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(TINY), encoding="utf-8")
    with torch.device("meta"):
        assert create_model(str(path)).architecture == create_model(TINY).architecture == TINY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": -1}, "num_classes must be a whole number from 0 to 1000000, got -1"),
        ({"in_channels": 0}, "in_channels must be a whole number from 1 to 65536, got 0"),
        ({"drop_rate": 1.0}, r"drop_rate must be a number in \[0, 1\), got 1.0"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate must be a number in \[0, 1\), got -0.1"),
        ({"global_pool": "mean"}, "global_pool must be avg, max, avgmax or '' .* got 'mean'"),
        ({"global_pool": ""}, "num_classes must be 0 where global_pool is '' .* got 1000"),
        ({"seed": -1}, "seed must be a whole number from 0 to .* got -1"),
        ({"out_indices": 1}, "out_indices must be None unless features_only is true, got 1"),
        ({"features_only": True, "out_indices": 6}, "out_indices must be a number of endpoints from 1 to 3, got 6"),
        ({"features_only": True, "out_indices": (0, 3)}, "out_indices must be different numbers from -3 to 2"),
        ({"features_only": True, "out_indices": (0, -3)}, "out_indices must be different numbers from -3 to 2"),
        ({"features_only": True, "out_indices": ()}, "out_indices must be different numbers from -3 to 2"),
    ],
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        create_model(TINY, **options)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean"):
        create_model("eficientnet_b0")
    network = build(TINY, seed=0)
    with pytest.raises(InvalidInput, match="num_classes must be 0 where global_pool"):
        network.reset_classifier(3, "")
    assert network.num_classes == 1000
