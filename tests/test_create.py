"""Networks made with published weights, each side with its own preprocessing, and what does not fit."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import trifold
from tests.peers import error, images, randomise
from tests.tiny import TINY
from trifold import weights
from trifold._torchvision import torchvision
from trifold.create import create_model
from trifold.data.images import to_input
from trifold.errors import InvalidData, InvalidInput
from trifold.network import Network, build
from trifold.weight_sets import WeightSet, find_weights
from trifold.weights.fetch import place

timm_data: Any = timm.data  # without annotations


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight files are looked for in the test's folder."""
    monkeypatch.setenv("TRIFOLD_CACHE", str(tmp_path / "cache"))


def photographs(data_dir: Path, count: int) -> list[Image.Image]:
    """So many of 250 photographs, evenly taken: tall, wide and square."""
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        chosen = names[:: len(names) // count][:count]
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in chosen]


def peer_of(known: WeightSet) -> tuple[nn.Module, Any]:
    """The library's own network of a weight set, with random tensors, and its own transform of a PIL image."""
    if known.layout == "timm":
        name = known.source.rpartition("/")[2]
        network = timm.create_model(name)
        transform = timm_data.create_transform(**timm_data.resolve_data_config(model=network))
    else:
        short = known.architecture.removeprefix("efficientnet_").removeprefix("efficientnetv2_")
        name = f"efficientnet_v2_{short}" if "v2" in known.architecture else f"efficientnet_{short}"
        network = getattr(torchvision.models, name)()
        enums: Any = torchvision.models.get_model_weights(name)
        transform = (enums.IMAGENET1K_V2 if known.tag.endswith("_v2") else enums.IMAGENET1K_V1).transforms()
    randomise(network, seed=3)
    return network.eval(), transform


def put(known: WeightSet, network: nn.Module) -> None:
    """Places the network's state dict where the set's file is looked for."""
    path = place(known.source)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)


def check(architecture: str, tag: str, data_dir: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal logits on photographs, in float32 and float64, each side with its own preprocessing."""
    known = find_weights(architecture, tag)
    network, transform = peer_of(known)
    put(known, network)
    monkeypatch.setattr(trifold.create, "find_weights", lambda *_: replace(known, sha256="", md5=""))
    ours = create_model(architecture, pretrained=tag).eval()
    chosen = photographs(data_dir, count)
    with torch.no_grad():
        for start in range(0, count, 5):
            some = chosen[start : start + 5]
            mine = torch.stack([to_input(image, known.preprocessing) for image in some])
            theirs = torch.stack([transform(image) for image in some])
            expected = network.float()(theirs)
            assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
            assert error(ours.float()(mine), expected) <= 1e-4
        exact = slice(0, 2)  # of the last batch
        assert error(ours.double()(mine[exact].double()), network.double()(theirs[exact].double())) <= 1e-6


@pytest.mark.parametrize(
    ("architecture", "tag"), [("b0", "tf_aa"), ("b0", "timm_ra"), ("b0", "torchvision"), ("b0", "tf_ap")]
)
def test_b0_answers_photographs_as_its_library_does(
    architecture: str, tag: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(architecture, tag, data_dir, 20, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["b1", "b2", "b3", "b4"])
@pytest.mark.parametrize("tag", ["tf_aa", "torchvision"])
def test_b1_to_b4_answer_photographs_as_their_libraries_do(
    architecture: str, tag: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(architecture, tag, data_dir, 20, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "tag"),
    [
        ("b1", "torchvision_v2"),
        ("b5", "tf_ra"),
        ("b5", "torchvision"),
        ("b6", "tf_aa"),
        ("b7", "tf_ns"),
        ("efficientnetv2_s", "torchvision"),
        ("efficientnetv2_b0", "tf"),
        ("efficientnet_lite0", "tf"),
    ],
)
def test_larger_and_other_networks_answer_photographs_as_their_libraries_do(
    architecture: str, tag: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(architecture, tag, data_dir, 2, monkeypatch)


# ---- what does not fit ----


@pytest.fixture
def b0() -> tuple[WeightSet, nn.Module]:
    """timm's B0 with random tensors, its file in place."""
    known = find_weights("b0", "tf_aa")
    network = timm.create_model("tf_efficientnet_b0")
    randomise(network, seed=3)
    put(known, network)
    return known, network


def test_true_takes_the_first_set_with_its_numerics(b0: tuple[WeightSet, nn.Module]) -> None:
    network = create_model("b0", pretrained=True)
    assert network.numerics.padding == "same"
    assert network.numerics.bn_eps == 1e-3
    assert torch.equal(network.stem.conv.weight, b0[1].get_parameter("conv_stem.weight"))


def test_other_classes_and_channels_are_adapted_with_a_warning(
    b0: tuple[WeightSet, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    network = create_model("b0", pretrained="tf_aa", num_classes=7, in_channels=1, seed=0)
    (record,) = caplog.records
    assert "2 at their initialisation (classifier)" in record.getMessage()
    assert "the stem's kernels adapted to another number of channels" in record.getMessage()
    grey = images((64, 64), seed=1)[:, :1].double()  # single precision rounds the summed kernels
    with torch.no_grad():
        ours = network.double().eval().forward_features(grey)
        theirs: Tensor = b0[1].double().eval().forward_features(grey.expand(-1, 3, -1, -1))  # type: ignore[operator]  # timm's
    assert error(ours, theirs) <= 1e-4


def test_features_come_with_weights_too(b0: tuple[WeightSet, nn.Module]) -> None:
    network = create_model("b0", pretrained="tf_aa", features_only=True)
    with torch.no_grad():
        ours = network.eval()(images((64, 64), seed=1))[-1]
    assert ours.shape == (2, 320, 2, 2)


def test_a_missing_extra_or_misshapen_tensor_is_named(b0: tuple[WeightSet, nn.Module]) -> None:
    known, network = b0
    state = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    path = place(known.source)
    for changed, said in (
        ({name: tensor for name, tensor in state.items() if name != "bn1.weight"}, "tensor 'bn1.weight' is missing"),
        (state | {"more": torch.zeros(1)}, "tensor 'more' has no place in this network"),
        (state | {"bn1.weight": torch.zeros(31)}, r"tensor bn1.weight must have shape \(32,\), got \(31,\)"),
    ):
        save_file(changed, path)
        with pytest.raises(InvalidData, match=rf"safetensors: .*{said}"):
            create_model("b0", pretrained="tf_aa")


def test_a_file_that_lacks_tensors_is_taken_in_part_only_if_asked(
    b0: tuple[WeightSet, nn.Module], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {name: tensor for name, tensor in b0[1].state_dict().items() if not name.startswith(("conv_head", "bn2"))}
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(InvalidData, match=r"part\.safetensors: tensor 'head\.conv\.weight' is missing; strict=False"):
        create_model("b0", pretrained=tmp_path / "part.safetensors")
    create_model("b0", pretrained=tmp_path / "part.safetensors", strict=False)
    assert "5 at their initialisation (head)" in caplog.records[-1].getMessage()


def test_our_own_file_brings_its_numerics(tmp_path: Path) -> None:
    source: Network = build(TINY, num_classes=3, seed=0, numerics=trifold.Numerics(bn_eps=1e-5, padding="symmetric"))
    weights.save(tmp_path / "own.safetensors", source)
    network = create_model(TINY, pretrained=tmp_path / "own.safetensors", num_classes=3)
    assert network.numerics == source.numerics
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


@pytest.mark.parametrize(
    ("name", "wanted", "said"),
    [
        ("b0", "tf_as", r"weights of efficientnet_b0 must be named by one of their tags, got 'tf_as'; nearest are"),
        (TINY, True, "pretrained must be a weights file or a run folder for a network that is not shipped, got True"),
        ("b0", Path("no/such.safetensors"), r"no/such\.safetensors: no such file"),
    ],
)
def test_weights_that_are_not_there_are_refused(name: Any, wanted: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        create_model(name, pretrained=wanted)
