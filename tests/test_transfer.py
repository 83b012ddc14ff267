"""Pretrained weights in a network: real ones meet their reference, every kind of file is read, bad ones are refused."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from trifold import weights
from trifold._torchvision import torchvision
from trifold.architecture import Architecture, Head, Stage, Stem, read
from trifold.baselines import find
from trifold.errors import InvalidData
from trifold.layers import PAPER_NUMERICS, TORCH_NUMERICS
from trifold.network import Network, build
from trifold.weights.loading import Loaded, Pretrained, load_pretrained, pretrained

CUT = Path(__file__).parent.parent / "results" / "trashnet" / "stem_to_block21.toml"
SMALL = Architecture(
    name="small",
    resolution=32,
    stem=Stem(channels=8),
    stages=(
        Stage(operator="mbconv", channels=8, layers=2, stride=2, se_ratio=0.25),
        Stage(operator="mbconv", channels=16, expand_ratio=3, layers=2, stride=2, se_ratio=0.25),
    ),
    head=Head(channels=24),
)


def network(architecture: Architecture = SMALL, *, seed: int = 0, **options: Any) -> Network:
    """A network whose batch norms too hold values that are not those of the start."""
    net = build(architecture, seed=seed, **({"num_classes": 5} | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "norm" in name and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net.eval()


def state(net: Network) -> dict[str, Tensor]:
    """The state dict without step counters, copied."""
    return {name: tensor.clone() for name, tensor in net.state_dict().items() if "num_batches" not in name}


def write_npz(path: Path, net: Network, count: int | None = None) -> Path:
    """The network's first tensors in timm's order, under names that mean nothing."""
    tensors = list(weights.exported(state(net), net.architecture, "timm", num_classes=net.num_classes).values())[:count]
    np.savez(path, allow_pickle=False, **{f"{i}_array": tensor.numpy() for i, tensor in enumerate(tensors)})
    return path


def refused(path: Path, content: bytes | None = None) -> str:
    """What `pretrained` says of a file, without its path."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidData) as error:
        pretrained(path)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def does_not_fit(source: Network, target: Network, tmp_path: Path) -> str:
    """Why a saved network's weights are refused by another, which they leave as it was."""
    weights.save(tmp_path / "w.safetensors", source)
    before = state(target)
    with pytest.raises(InvalidData) as error:
        load_pretrained(target, pretrained(tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(target).items())
    assert str(error.value).startswith(f"{tmp_path / 'w.safetensors'}: ")
    return str(error.value).removeprefix(f"{tmp_path / 'w.safetensors'}: ")


@pytest.fixture(scope="module")
def real(data_dir: Path) -> Pretrained:
    return pretrained(data_dir / "weights" / "efficientnet_b4_stem_to_block21.npz")


@pytest.mark.parametrize("kind", ["whole", "cut"])
def test_real_b4_stages_meet_the_reference_activations(real: Pretrained, data_dir: Path, kind: str) -> None:
    architecture = find("efficientnet_b4") if kind == "whole" else read(CUT)
    net = build(architecture, num_classes=6, numerics=PAPER_NUMERICS, seed=0).eval()
    loaded = load_pretrained(net, real)
    assert (len(loaded.loaded), loaded.unused, loaded.adapted) == (413, (), False)
    rows = {".".join(name.split(".")[: 2 if name.startswith("stages") else 1]) for name in loaded.initial}
    assert rows == {"head", "classifier"} | ({"stages.5", "stages.6"} if kind == "whole" else set())

    with np.load(data_dir / "weights" / "efficientnet_b4_reference_activations.npz") as arrays:
        reference = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((reference["input_uint8_hwc"] / 255 - mean) / std).permute(2, 0, 1)[None]
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        x = net.stem(x)
        found |= {"stem_mean": x.mean((2, 3))[0], "stem_std": x.std((2, 3))[0]}
        for number, block in enumerate(block for stage in net.stages[:5].children() for block in stage.children()):
            x = block(x)
            found |= {f"block{number}_mean": x.mean((2, 3))[0], f"block{number}_std": x.std((2, 3))[0]}
    found["block21_output"] = x[0]
    assert set(found) == set(reference) - {"input_uint8_hwc"}
    for name, tensor in found.items():
        error = (tensor - reference[name]).abs().max() / reference[name].abs().max()
        assert error < 1e-5, f"{name}: {error:.2e}"


def test_another_number_of_classes_leaves_only_the_classifier_at_its_initialisation(tmp_path: Path) -> None:
    source, target = network(), network(seed=1, num_classes=7)
    classifier = state(target)["classifier.weight"]
    weights.save(tmp_path / "w.safetensors", source)
    loaded = load_pretrained(target, pretrained(tmp_path / "w.safetensors"))
    assert loaded.initial == loaded.unused == ("classifier.weight", "classifier.bias")
    assert loaded.loaded == tuple(name for name in state(source) if not name.startswith("classifier"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(target.forward_features(images), source.forward_features(images))
    assert torch.equal(state(target)["classifier.weight"], classifier)
    assert str(loaded) == (
        f"{len(loaded.loaded)} of {len(loaded.loaded) + 2} tensors loaded (stem, stages.0, stages.1, head); "
        "2 at their initialisation (classifier); 2 of the file not used (classifier)"
    )


def test_a_run_folder_gives_its_network_numerics_and_normalisation(tmp_path: Path) -> None:
    source = network(numerics=TORCH_NUMERICS)
    preprocessing = {"resolution": 32, "mode": "RGB", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 1]}
    file = tmp_path / "weights.safetensors"
    weights.save(file, source, {"preprocessing": json.dumps(preprocessing)})
    found = pretrained(tmp_path)
    assert (found.architecture, found.numerics) == (SMALL, TORCH_NUMERICS)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 1.0))
    assert found.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (found.description, found.source) == ("small, 5 classes, saved by trifold", str(file))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("names", ["timm", "torchvision"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_state_dicts_of_timm_and_torchvision_are_told_by_their_names(
    tmp_path: Path, suffix: str, names: str, wrapped: bool
) -> None:
    source, target = network(), network(seed=1)
    tensors = weights.exported(state(source), SMALL, names, num_classes=5)
    file = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file({f"module.{name}" if wrapped else name: tensor for name, tensor in tensors.items()}, file)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if wrapped else tensors, file)
    loaded = load_pretrained(target, pretrained(file))
    assert loaded == Loaded(loaded=tuple(state(source)), initial=(), unused=(), adapted=False)
    assert all(torch.equal(tensor, state(source)[name]) for name, tensor in state(target).items())


@pytest.mark.parametrize(("who", "name"), [("timm", "resnet18"), ("torchvision", "mobilenet_v2")])
def test_whole_networks_of_other_libraries_give_the_same_answers(tmp_path: Path, who: str, name: str) -> None:
    architecture = find(name)
    torch.manual_seed(0)
    theirs = timm.create_model(name) if who == "timm" else getattr(torchvision.models, name)()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build(architecture, numerics=TORCH_NUMERICS, seed=0).eval()
    loaded = load_pretrained(ours, pretrained(tmp_path / "w.pth"))
    assert (loaded.initial, loaded.unused) == ((), ())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)


def test_arrays_in_order_are_mapped_by_their_index_whatever_their_names_and_type(tmp_path: Path) -> None:
    source, target = network(), network(seed=1)
    tensors = list(weights.exported(state(source), SMALL, "timm", num_classes=5).values())
    shuffled = {f"{i}_x": tensors[i].numpy().astype(np.float16) for i in reversed(range(len(tensors)))}
    np.savez(tmp_path / "w.npz", allow_pickle=False, **shuffled)
    assert load_pretrained(target, pretrained(tmp_path / "w.npz")).initial == ()
    for name, tensor in state(target).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state(source)[name].half().float())


def test_arrays_that_end_early_leave_the_later_stages(tmp_path: Path) -> None:
    source, target = network(), network(seed=1)
    before, count = state(target), sum(name.startswith(("stem", "stages.0")) for name in state(source))
    loaded = load_pretrained(target, pretrained(write_npz(tmp_path / "w.npz", source, count)))
    assert len(loaded.loaded) == count
    for name, tensor in state(target).items():
        assert torch.equal(tensor, (state(source) if name in loaded.loaded else before)[name])


@pytest.mark.parametrize("kind", ["npz", "timm", "trifold"])
def test_a_network_cut_short_takes_its_stages_from_a_whole_one(tmp_path: Path, kind: str) -> None:
    source = network()
    cut = network(replace(SMALL, stages=SMALL.stages[:1], head=Head(channels=32)), seed=1, num_classes=3)
    file = tmp_path / ("w.npz" if kind == "npz" else "w.safetensors")
    if kind == "npz":
        write_npz(file, source)
    elif kind == "timm":
        save_file(weights.exported(state(source), SMALL, "timm", num_classes=5), file)
    else:
        weights.save(file, source)
    loaded = load_pretrained(cut, pretrained(file))
    assert {name.split(".")[0] for name in loaded.initial} == {"head", "classifier"}
    assert len(loaded.loaded) + len(loaded.unused) == len(state(source))
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(cut.stages[0](cut.stem(images)), source.stages[0](source.stem(images)))


def test_an_rgb_stem_summed_for_grey_answers_as_it_did_to_three_equal_channels(tmp_path: Path) -> None:
    source, grey = network(), network(seed=1, in_channels=1)
    weights.save(tmp_path / "w.safetensors", source)
    loaded = load_pretrained(grey, pretrained(tmp_path / "w.safetensors"))
    assert loaded.adapted
    assert loaded.initial == ()
    assert "the stem's kernels adapted to another number of channels" in str(loaded)
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), source(images.expand(2, 3, 32, 32)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 6)])
def test_equal_channels_of_a_multiple_give_what_they_gave(tmp_path: Path, have: int, want: int) -> None:
    source, target = network(in_channels=have), network(seed=1, in_channels=want)
    weights.save(tmp_path / "w.safetensors", source)
    assert load_pretrained(target, pretrained(tmp_path / "w.safetensors")).adapted
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = source(images.expand(2, have, 32, 32))
        torch.testing.assert_close(target(images.expand(2, want, 32, 32)), expected, rtol=1e-5, atol=1e-5)


def test_other_numbers_of_channels_take_the_kernels_round_and_round(tmp_path: Path) -> None:
    source, target = network(), network(seed=1, in_channels=4)
    weights.save(tmp_path / "w.safetensors", source)
    load_pretrained(target, pretrained(tmp_path / "w.safetensors"))
    expected = source.stem.conv.weight[:, [0, 1, 2, 0]] * 0.75
    assert torch.equal(target.stem.conv.weight, expected)


def test_another_shape_in_the_body_is_refused_by_the_first_tensor(tmp_path: Path) -> None:
    wider = replace(SMALL, stages=(SMALL.stages[0], replace(SMALL.stages[1], channels=20)))
    assert does_not_fit(network(wider), network(), tmp_path) == (
        "tensor stages.1.0.project.conv.weight must have shape (16, 24, 1, 1) to fit the network, got (20, 24, 1, 1)"
    )


@pytest.mark.parametrize(
    ("have", "want", "said"),
    [
        (1, 2, "tensor stages.0.1.depthwise.conv.weight is absent though later ones are there: "),
        (3, 2, "tensor stages.0.2.depthwise.conv.weight has no place in the network: "),
    ],
)
def test_a_stage_of_another_depth_is_refused(tmp_path: Path, have: int, want: int, said: str) -> None:
    def deep(layers: int) -> Network:
        return network(replace(SMALL, stages=(replace(SMALL.stages[0], layers=layers), SMALL.stages[1])))

    assert does_not_fit(deep(have), deep(want), tmp_path) == said + "a stage has another depth"


def test_b1_is_not_taken_for_b0_though_every_shape_of_b0_is_there() -> None:
    with torch.device("meta"):
        b0, b1 = build(find("efficientnet_b0")), build(find("efficientnet_b1"))
    tensors = weights.exported(b1.state_dict(), b1.architecture, "timm")
    with pytest.raises(InvalidData, match=r"tensor blocks\.0\.1\.conv_dw\.weight has no place in the network"):
        load_pretrained(b0, Pretrained(tensors=tensors, description=""))


@pytest.mark.parametrize("names", [("encoder.weight", "encoder.bias"), ("classifier.weight", "classifier.bias")])
def test_weights_of_which_nothing_or_the_classifier_alone_fits_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    save_file({names[0]: torch.zeros(5, 24), names[1]: torch.zeros(5)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidData) as error:
        load_pretrained(network(), pretrained(tmp_path / "w.safetensors"))
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'w.safetensors'}: none of its 2 tensors, first '{names[0].split('.')[0]}.")
    assert "belongs before the classifier of small, by its names here or in timm, torchvision, lukemelas" in said


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_files_cut_short_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        write_npz(whole, network())
    elif suffix == ".pth":
        torch.save(state(network()), whole)
    else:
        weights.save(whole, network())
    content = whole.read_bytes()
    said = refused(tmp_path / f"cut{suffix}", content[: int(share * len(content))])
    assert said == f"not a {suffix} file with tensors, or cut short or damaged"


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("content", [b"hello\n", bytes(1000), b"PK\x03\x04" + bytes(60), b"\xff\xd8\xff\xe0" * 40])
def test_files_of_another_kind_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    said = refused(tmp_path / f"w{suffix}", content)
    assert said in (
        f"not a {suffix} file with tensors, or cut short or damaged",
        "holds other things than tensors; a state dict is needed",
    )


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    torch.save({"stem.conv.weight": Evil(tmp_path / "made")}, tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth") == "holds other things than tensors; a state dict is needed"
    np.savez(tmp_path / "w.npz", **{"0_x": np.array([Evil(tmp_path / "made")])})  # type: ignore[arg-type]  # as below
    assert refused(tmp_path / "w.npz") == "not a .npz file with tensors, or cut short or damaged"
    said = refused(tmp_path / "v.pth", pickle.dumps(Evil(tmp_path / "made")))
    assert said == "holds other things than tensors; a state dict is needed"
    assert not (tmp_path / "made").exists()


def test_other_bad_files_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.pth") == "no such file"
    assert refused(tmp_path) == "has no weights.safetensors"
    assert refused(tmp_path / "w.onnx", b"x") == (
        "a weights file must end in .safetensors, .npz, .pth, .pt, .bin, .h5, .hdf5, .keras, .index, .gz"
    )
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    assert refused(tmp_path / "list.pth") == "must hold a state dict, got list"
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert refused(tmp_path / "empty.pth") == "holds no tensors"
    torch.save({"stem.conv.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pth")
    assert refused(tmp_path / "nan.pth") == "tensor 'stem.conv.weight' holds values that are not finite numbers"
    np.savez(tmp_path / "names.npz", stem=np.zeros(3))
    assert refused(tmp_path / "names.npz") == "array names must have the form <index>_<name>, got 'stem'"
    np.savez(tmp_path / "gap.npz", **{"0_a": np.zeros(3), "2_b": np.zeros(3)})  # type: ignore[arg-type]  # numpy's stub takes them for its flag
    assert refused(tmp_path / "gap.npz") == "array indices must be 0 to 1, each once"
