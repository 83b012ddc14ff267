"""Weight files: what is saved comes back, what is broken is refused by name; the names of timm and torchvision."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trifold import baselines, weights
from trifold._torchvision import torchvision
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.cost import cost
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import TORCH_NUMERICS
from trifold.network import Network, build
from trifold.weights import exported, files, imported, load, names, save

SMALL = Architecture(
    name="small",
    resolution=32,
    stem=Stem(channels=8),
    stages=(Stage(operator="mbconv", channels=8, expand_ratio=3, layers=2, stride=2, se_ratio=0.25),),
    head=Head(channels=16),
)


def trained(**options: Any) -> Network:
    """A small network whose batch-norm statistics are not those of the start."""
    network = build(SMALL, seed=0, **({"num_classes": 5} | options))
    with torch.no_grad():
        network(torch.randn(4, network.in_channels, 32, 32, generator=torch.Generator().manual_seed(0)))
    return network.eval()


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118  it is no mapping


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    "options", [{}, {"num_classes": 0, "global_pool": ""}, {"in_channels": 1, "numerics": TORCH_NUMERICS}]
)
def test_what_is_saved_comes_back(tmp_path: Path, options: dict[str, Any]) -> None:
    network = trained(**options)
    save(tmp_path / "w.safetensors", network, {"classes": '["a", "ä"]'})
    found, metadata = load(tmp_path / "w.safetensors")
    assert metadata == {"classes": '["a", "ä"]'}
    for name in ("architecture", "numerics", "num_classes", "in_channels", "global_pool"):
        assert getattr(found, name) == getattr(network, name)
    assert not found.training
    assert all(parameter.requires_grad for parameter in found.parameters())
    x = torch.randn(2, network.in_channels, 40, 33)
    assert torch.equal(found(x), network(x))
    found.train()(x).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tensors_keep_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path / "w.safetensors", trained().to(dtype))
    assert {parameter.dtype for parameter in load(tmp_path / "w.safetensors")[0].parameters()} == {dtype}


def test_channels_last_network_is_saved_whole(tmp_path: Path) -> None:
    network = trained()
    x = torch.randn(1, 3, 32, 32)
    expected = network(x)
    save(tmp_path / "w.safetensors", network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # torch's stub lacks this form
    assert torch.equal(load(tmp_path / "w.safetensors")[0](x), expected)


def test_step_counters_are_left_out_and_the_file_is_as_the_umask_says(tmp_path: Path) -> None:
    save(tmp_path / "w.safetensors", trained())
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    tensors, header = parts(tmp_path / "w.safetensors")
    assert len(tensors) == cost(SMALL, num_classes=5).tensors
    assert set(header) == set(weights.RESERVED)
    assert json.loads(header["numerics"]) == {"bn_eps": 1e-3, "bn_momentum": 0.01, "padding": "same"}


def header_bytes(network: Network, metadata: dict[str, str]) -> int:
    """Bytes of the header that safetensors writes for a network in float32: its length in 8, then JSON padded to 8."""
    offset, rows = 0, {"__metadata__": metadata}
    for name, tensor in sorted(network.state_dict().items()):
        if "num_batches" not in name:
            row: Any = {
                "dtype": "F32",
                "shape": list(tensor.shape),
                "data_offsets": [offset, offset + 4 * tensor.numel()],
            }
            rows[name], offset = row, offset + 4 * tensor.numel()
    return 8 + -(-len(json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()) // 8) * 8


@pytest.mark.parametrize("name", baselines.list_models())
def test_files_are_within_the_bound_of_the_cost_with_8_kib_of_metadata(name: str) -> None:
    with torch.device("meta"):
        network = build(baselines.find(name))
    expected = cost(network.architecture)
    header = weights.header(network) | {"mine": "x" * 8192}
    assert expected.weight_bytes + header_bytes(network, header) <= expected.file_bytes


def test_the_bound_is_that_of_a_file_on_the_disk(tmp_path: Path) -> None:
    network = build(baselines.find("mini"), seed=0)
    save(tmp_path / "w.safetensors", network)
    size = (tmp_path / "w.safetensors").stat().st_size
    assert size == cost(network.architecture).weight_bytes + header_bytes(network, weights.header(network))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save(path, trained())
    before = path.read_bytes()

    def full(_: object, file: Path, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(InvalidInput, match=r"w\.safetensors: cannot be written: No space left on device"):
        save(path, trained(num_classes=7))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]  # noqa: PTH208  names, not paths


def test_a_file_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written: No such file or directory"):
        save(tmp_path / "none" / "w.safetensors", trained())


@pytest.mark.parametrize("name", weights.RESERVED)
def test_metadata_may_not_use_the_files_own_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"metadata name '{name}' is used by the file itself"):
        save(tmp_path / "w.safetensors", trained(), {name: "x"})


def test_metadata_must_be_texts(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="metadata must hold texts, got 'classes': 3"):
        save(tmp_path / "w.safetensors", trained(), {"classes": 3})  # type: ignore[dict-item]  # what is refused here


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda data: data[:-9], "incomplete metadata, file not fully covered"),
        (lambda data: data[:200], "invalid header length"),
        (lambda _: b"", "header too small"),
        (lambda _: b"what is this? a letter, not a network", "header too large"),
        (lambda data: data.replace(b"num_classes", b"num_klasses"), "its header has no 'num_classes'"),
        (lambda data: data.replace(b'"trifold":"1"', b'"trifold":"9"'), "layout '9' is not known; .* reads 1"),
        (
            lambda data: data.replace(b'"num_classes":"5"', b'"num_classes":"6"'),
            r"classifier\.weight must have shape \(6",
        ),
        (lambda data: data.replace(b'"num_classes":"5"', b'"num_classes":"x"'), "Expecting value"),
        (lambda data: data.replace(b"bn_eps", b"bn_esp"), "bn_esp"),
        (lambda data: data.replace(b"mbconv", b"mbkonv"), "row 1: operator must be .* got 'mbkonv'"),
        (lambda data: data.replace(b"small", b"sm\xffll"), "header"),
        (lambda data: data.replace(b"head.conv.weight", b"head.kram.weight"), r"'head.conv.weight' is missing"),
    ],
)
def test_a_broken_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, break_it: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save(path, trained())
    path.write_bytes(break_it(path.read_bytes()))
    with pytest.raises(InvalidData, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_absent_files_and_folders_and_foreign_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    for name, message in {
        "none": "no such file",
        ".": "no such file",
        "foreign.safetensors": "not written by trifold",
    }.items():
        with pytest.raises(InvalidData, match=message):
            load(tmp_path / name)


def test_an_extra_tensor_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, trained())
    tensors, header = parts(path)
    save_file(tensors | {"extra.weight": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(InvalidData, match=r"tensor 'extra\.weight' has no place in this network"):
        load(path)


TIMM = {
    "stem.conv.weight": "conv_stem.weight",
    "stem.norm.running_var": "bn1.running_var",
    "stages.0.0.depthwise.conv.weight": "blocks.0.0.conv_dw.weight",
    "stages.0.0.depthwise.norm.bias": "blocks.0.0.bn1.bias",
    "stages.0.0.squeeze_excite.reduce.bias": "blocks.0.0.se.conv_reduce.bias",
    "stages.0.0.project.conv.weight": "blocks.0.0.conv_pw.weight",
    "stages.0.0.project.norm.weight": "blocks.0.0.bn2.weight",
    "stages.5.3.expand.conv.weight": "blocks.5.3.conv_pw.weight",
    "stages.5.3.expand.norm.weight": "blocks.5.3.bn1.weight",
    "stages.5.3.depthwise.norm.weight": "blocks.5.3.bn2.weight",
    "stages.5.3.squeeze_excite.excite.weight": "blocks.5.3.se.conv_expand.weight",
    "stages.5.3.project.conv.weight": "blocks.5.3.conv_pwl.weight",
    "stages.5.3.project.norm.running_mean": "blocks.5.3.bn3.running_mean",
    "head.conv.weight": "conv_head.weight",
    "head.norm.weight": "bn2.weight",
    "classifier.bias": "classifier.bias",
}
TORCHVISION = {
    "stem.conv.weight": "features.0.0.weight",
    "stem.norm.running_var": "features.0.1.running_var",
    "stages.0.0.depthwise.conv.weight": "features.1.0.block.0.0.weight",
    "stages.0.0.squeeze_excite.reduce.bias": "features.1.0.block.1.fc1.bias",
    "stages.0.0.project.norm.weight": "features.1.0.block.2.1.weight",
    "stages.5.3.expand.conv.weight": "features.6.3.block.0.0.weight",
    "stages.5.3.squeeze_excite.excite.weight": "features.6.3.block.2.fc2.weight",
    "stages.5.3.project.conv.weight": "features.6.3.block.3.0.weight",
    "head.conv.weight": "features.8.0.weight",
    "classifier.bias": "classifier.1.bias",
}


def test_b0s_names_are_the_published_ones() -> None:
    b0 = baselines.find("b0")
    assert TIMM.items() <= names(b0, "timm").items()
    assert TORCHVISION.items() <= names(b0, "torchvision").items()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *((f"b{i}", f"tf_efficientnet_b{i}") for i in (6, 8)),
        *((f"lite{i}", f"tf_efficientnet_lite{i}") for i in range(1, 5)),
        *((f"efficientnet_{size}", f"tf_efficientnet_{size}") for size in ("em", "el")),
        *((f"v2_{size}", f"tf_efficientnetv2_{size}") for size in ("b0", "b1", "b2", "m", "l", "xl")),
        ("l2", "tf_efficientnet_l2"),
    ],
)
def test_every_other_family_member_has_timms_names_and_shapes(ours: str, theirs: str) -> None:
    architecture = baselines.find(ours)
    with torch.device("meta"):
        mine, peer = build(architecture), timm.create_model(theirs)
    assert isinstance(peer, torch.nn.Module)
    assert shapes(imported(peer.state_dict(), architecture, "timm")) == shapes(mine.state_dict())
    assert shapes(exported(mine.state_dict(), architecture, "timm")) == shapes(peer.state_dict())


@pytest.mark.parametrize("size", ["m", "l"])
def test_v2_m_and_l_have_torchvisions_names_and_shapes(size: str) -> None:
    architecture = baselines.find(f"v2_{size}")
    with torch.device("meta"):
        mine, peer = build(architecture), getattr(torchvision.models, f"efficientnet_v2_{size}")()
    assert shapes(imported(peer.state_dict(), architecture, "torchvision")) == shapes(mine.state_dict())
    assert shapes(exported(mine.state_dict(), architecture, "torchvision")) == shapes(peer.state_dict())


@pytest.mark.parametrize("layout", sorted(weights.LAYOUTS))
def test_every_layout_comes_back_to_the_same_names_and_tensors(layout: str) -> None:
    state = {name: tensor for name, tensor in trained().state_dict().items() if "num_batches" not in name}
    there = exported(state, SMALL, layout, num_classes=5)
    again = imported(there, SMALL, layout, num_classes=5)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert all(again[name].data_ptr() == state[name].data_ptr() for name in state)  # shared


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"layout must be one of trifold, timm, .*, got 'tim'"):
        names(SMALL, "tim")


def test_a_missing_extra_or_misshapen_foreign_tensor_is_refused_by_name() -> None:
    state = exported(trained().state_dict(), SMALL, "timm", num_classes=5)
    without = {name: tensor for name, tensor in state.items() if name != "blocks.0.1.bn2.running_var"}
    with pytest.raises(InvalidData, match=r"timm's state dict: tensor 'blocks\.0\.1\.bn2\.running_var' is missing"):
        imported(without, SMALL, "timm", num_classes=5)
    with pytest.raises(InvalidData, match=r"tensor 'blocks\.0\.2\.conv_pw\.weight' has no place in this network"):
        imported(state | {"blocks.0.2.conv_pw.weight": torch.zeros(1)}, SMALL, "timm", num_classes=5)
    with pytest.raises(InvalidData, match=r"classifier\.weight must have shape \(7, 16\), got \(5, 16\)"):
        imported(state, SMALL, "timm", num_classes=7)
    with pytest.raises(InvalidData, match=r"conv_stem\.weight must have shape \(8, 1, 3, 3\), got \(8, 3, 3, 3\)"):
        imported(state, SMALL, "timm", num_classes=5, in_channels=1)
    with pytest.raises(InvalidData, match=r"torchvision's state dict: tensor 'features\.0\.0\.weight' is missing"):
        imported(state, SMALL, "torchvision", num_classes=5)


def test_networks_that_a_library_does_not_have_are_refused() -> None:
    mixed = replace(SMALL, stages=(*SMALL.stages, Stage(operator="bottleneck", channels=8)))
    with pytest.raises(InvalidInput, match="architecture small: timm has no network of bottleneck, mbconv"):
        names(mixed, "timm")
    with pytest.raises(InvalidInput, match="torchvision has no network of bottleneck, mbconv with squeeze-excite"):
        names(mixed, "torchvision")
    with pytest.raises(InvalidInput, match="torchvision has no network of separable"):
        names(baselines.find("mobilenet_v1"), "torchvision")
