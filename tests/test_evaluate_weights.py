"""`trifold evaluate` on published weights and other libraries' files, beside timm's own pipeline; what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from tests.hub import ASKED, serving
from tests.peers import randomise
from tests.test_cli import Run, run
from trifold._torchvision import torchvision
from trifold.baselines import find, list_models
from trifold.data.imagenet import Outputs, match, match_unnamed, outputs_of
from trifold.data.images import to_input
from trifold.data.sources import open_data, source_of
from trifold.errors import InvalidData
from trifold.network import PAPER_NUMERICS, build
from trifold.train.measured import MAX_BYTES, _held, _levels, batch_size, measure
from trifold.train.metrics import quality
from trifold.train.subject import Subject, open_file
from trifold.weight_sets import Evaluation, find_weights
from trifold.weights import LAYOUTS, exported
from trifold.weights.fetch import place

__all__ = ["run"]  # the fixture

timm_data: Any = timm.data  # without annotations
IMAGENET = outputs_of(1000) or Outputs(synsets=(), names=())
REPOSITORY = "tf_efficientnet_b0.aa_in1k"


class Peer(NamedTuple):
    """timm's network with random weights, its file, photographs and what timm's own pipeline says of them."""

    content: bytes
    photographs: list[bytes]
    chances: Tensor
    labels: Tensor

    @property
    def ranked(self) -> Tensor:
        return self.chances.argsort(1, descending=True)

    def hits(self, top: int) -> int:
        return int((self.ranked[:, :top] == self.labels[:, None]).sum())


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> list[bytes]:
    """32 of 250 photographs."""
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        return [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")][:256:8]


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def file_of(network: nn.Module) -> bytes:
    return save({name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name})


@torch.no_grad()
def familiar(network: nn.Module, inputs: Tensor) -> nn.Module:
    """The random network with statistics of these images and unsure answers, so that every figure says something."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    network(inputs)
    network.eval()
    classifier = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    scale = 2 / network(inputs).std(0).mean()
    classifier.weight.mul_(scale)
    classifier.bias.copy_(-network(inputs).mean(0) + classifier.bias)
    return network


def timm_inputs(network: nn.Module, photographs: list[bytes], **changed: Any) -> Tensor:
    """By timm's transform for evaluation."""
    transform = timm_data.create_transform(**(timm_data.resolve_data_config(model=network) | changed))
    return torch.stack([transform(decoded(one)) for one in photographs])


def timm_network(name: str, photographs: list[bytes], **options: Any) -> nn.Module:
    network = timm.create_model(name, **options)
    randomise(network, seed=3)
    return familiar(network, timm_inputs(network, photographs))


@pytest.fixture(scope="module")
def peer(photographs: list[bytes]) -> Peer:
    """Half of the labels are timm's answers, a quarter its third ones, a quarter its fiftieth."""
    network = timm_network(REPOSITORY, photographs)
    with torch.no_grad():
        chances = network(timm_inputs(network, photographs)).softmax(1)
    ranked = chances.argsort(1, descending=True)
    places = torch.tensor([(0, 2, 0, 49)[i % 4] for i in range(len(photographs))])
    return Peer(file_of(network), photographs, chances, ranked.gather(1, places[:, None])[:, 0])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight files are looked for in the test's folder."""
    monkeypatch.setenv("TRIFOLD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def placed(peer: Peer) -> Peer:
    """The peer, its file where the set's is looked for."""
    put("b0", "tf_aa", peer.content)
    return peer


def put(architecture: str, tag: str, content: bytes) -> None:
    path = place(find_weights(architecture, tag).source)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def folders(root: Path, peer: Peer, names: tuple[str, ...] = IMAGENET.synsets, count: int = 1000) -> Path:
    """The first photographs in a folder each class."""
    for i, (content, label) in enumerate(zip(peer.photographs[:count], peer.labels.tolist()[:count], strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03}.jpg").write_bytes(content)
    return root


def trifold(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: huggingface_hub reads its settings when it is imported."""
    more = {"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", **env}
    command = [sys.executable, "-m", "trifold", *arguments]
    return subprocess.run(command, env=os.environ | more, capture_output=True, text=True, timeout=300)


# ---- beside timm ----


def test_a_published_set_from_the_hub_has_the_accuracy_that_timms_own_pipeline_gives(
    peer: Peer, tmp_path: Path
) -> None:
    data = folders(tmp_path / "data", peer)
    with serving({f"/timm/{REPOSITORY}/resolve/main/model.safetensors": peer.content}) as address:
        done = trifold(tmp_path, "evaluate", "efficientnet_b0.tf_aa", str(data), "--json", HF_ENDPOINT=address)
    assert done.returncode == 0, done.stderr
    assert ASKED
    found = json.loads(done.stdout)
    total, top1, top5 = len(peer.labels), peer.hits(1), peer.hits(5)
    assert (top1, top5) == (total // 2, total * 3 // 4)
    assert (found["images"], found["outputs"], found["matched_by"]) == (total, 1000, "synset")
    assert (found["top1"]["correct"], found["top5"]["correct"]) == (top1, top5)
    assert found["top1"]["published"] == pytest.approx(0.76882)
    assert found["top1"]["difference"] == pytest.approx(top1 / total - 0.76882)
    expected = multiclass_calibration_error(peer.chances, peer.labels, 1000, n_bins=15)
    assert float(expected) > 0.05
    assert found["calibration_error"] == pytest.approx(float(expected), abs=1e-3)
    assert sum(one["images"] for one in found["classes"]) == total
    assert sum(one["top1"] for one in found["classes"]) == top1
    assert all(one["name"] == IMAGENET.synsets[one["output"]] for one in found["classes"])
    assert found["preprocessing"] == find_weights("b0", "tf_aa").preprocessing.to_dict() | {
        name: list(found["preprocessing"][name]) for name in ("mean", "std")
    }


def test_the_table_has_interval_published_number_difference_and_the_worst_classes_first(
    placed: Peer, run: Run, tmp_path: Path
) -> None:
    folders(tmp_path / "data", placed, count=8)
    status, out, _ = run("evaluate", "b0.tf_aa", "data", "--classes", "3")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith(
        "efficientnet_b0.tf_aa: shorter side resized to 256, bicubic by Pillow, centre 224 pixels; mean 0.485 0.456 "
        "0.406, std 0.229 0.224 0.225 (the set's own); padding same, bn_eps 0.001 (the set's own)"
    )
    assert lines[1].startswith("8 images of ")
    top1, top5 = (next(line.split() for line in lines if line.startswith(name)) for name in ("top-1", "top-5"))
    assert top1 == ["top-1", "50.00", "21.52", "78.48", "76.88", "-26.88"]
    assert top5 == ["top-5", "75.00", "40.93", "92.85", "93.27", "-18.27"]
    assert "the published top-1 of efficientnet_b0.tf_aa is within the interval: no difference is shown; these" in out
    assert "calibration error " in out
    worst = lines[next(i for i, line in enumerate(lines) if line.startswith("the worst 3 of ")) + 3 :]
    assert len(worst) == 3
    every = run("evaluate", "b0.tf_aa", "data", "--classes", "all")[1].partition("every class, the worst first\n")[2]
    rows = [" ".join(line.split()) for line in every.splitlines()[2:]]
    assert rows[:3] == [" ".join(line.split()) for line in worst]
    right = [float(re.findall(r" \d+ (\d+\.\d) (\d+\.\d)", row)[0][0]) for row in rows]
    assert right == sorted(right)
    assert (right[0], right[-1]) == (0, 100)


def test_another_published_resolution_is_evaluated_as_timm_does(
    photographs: list[bytes], run: Run, tmp_path: Path
) -> None:
    some = photographs[:4]
    network = timm_network("efficientnet_b0.ra4_e3600_r224_in1k", some)
    put("b0", "timm_ra4", file_of(network))
    with torch.no_grad():
        chances = network(timm_inputs(network, some, input_size=(3, 256, 256), crop_pct=1.0)).softmax(1)
    labels = chances.argsort(1, descending=True)[:, 1]
    folders(tmp_path / "data", Peer(b"", some, chances, labels))
    found = json.loads(run("evaluate", "b0.timm_ra4", "data", "--resolution", "256", "--json")[1])
    assert found["preprocessing"]["resolution"] == 256
    assert found["top1"]["published"] == find_weights("b0", "timm_ra4").others[0].top1 / 100  # type: ignore[operator]  # it is published
    assert (found["top1"]["correct"], found["top5"]["correct"]) == (0, 4)
    expected = multiclass_calibration_error(chances, labels, 1000, n_bins=15)
    assert found["calibration_error"] == pytest.approx(float(expected), abs=1e-3)


def test_torchvisions_file_brings_torchvisions_numerics_and_preprocessing(
    photographs: list[bytes], run: Run, tmp_path: Path
) -> None:
    network = torchvision.models.efficientnet_b0()
    randomise(network, seed=4)
    transform = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()
    inputs = torch.stack([transform(decoded(one)) for one in photographs[:4]])
    torch.save(familiar(network, inputs).state_dict(), tmp_path / "theirs.pth")
    with torch.no_grad():
        ranked = network(inputs).argsort(1, descending=True)
    folders(tmp_path / "data", Peer(b"", photographs[:4], torch.empty(0), ranked[torch.arange(4), torch.arange(4)]))
    status, out, err = run("evaluate", "theirs.pth", "data", "--architecture", "b0")
    assert (status, err) == (0, "")
    assert out.startswith(
        "theirs.pth: shorter side resized to 256, bicubic by Pillow, centre 224 pixels; mean 0.485 0.456 0.406, std "
        "0.229 0.224 0.225 (as efficientnet_b0.torchvision, the first of torchvision's sets; --like names another); "
        "padding symmetric, bn_eps 1e-05 (torchvision's)"
    )
    assert next(line.split() for line in out.splitlines() if line.startswith("top-1"))[1:] == [
        "25.00", "4.56", "69.94", "-", "-",
    ]  # fmt: skip
    assert next(line.split() for line in out.splitlines() if line.startswith("top-5"))[1] == "100.00"
    assert "no accuracy was published of these weights under this preprocessing" in out
    found = json.loads(run("evaluate", "theirs.pth", "data", "--architecture", "b0", "--like", "tf_ap", "--json")[1])
    assert (found["preprocessing"]["mean"], found["numerics"]["padding"]) == ([0.5, 0.5, 0.5], "same")
    assert found["published_of"] == "efficientnet_b0.tf_ap"


def test_a_classifier_of_other_classes_is_evaluated_in_the_order_of_their_names(
    photographs: list[bytes], run: Run, tmp_path: Path
) -> None:
    some = photographs[:6]
    network = timm_network("tf_efficientnet_b0", some, num_classes=3)
    (tmp_path / "own.safetensors").write_bytes(file_of(network))
    with torch.no_grad():
        expected = network(timm_inputs(network, some)).argmax(1)
    folders(tmp_path / "data", Peer(b"", some, torch.empty(0), torch.arange(6) % 3), ("cat", "dog", "eel"))
    command = ("evaluate", "own.safetensors", "data", "--architecture", "b0", "--like", "tf_aa")
    found = json.loads(run(*command, "--json")[1])
    assert (found["matched_by"], found["outputs"], found["top5"]) == ("the order of their names", 3, None)
    assert found["top1"]["correct"] == int((expected == torch.arange(6) % 3).sum())
    assert [one["label"] for one in found["classes"]] == ["output 0", "output 1", "output 2"]
    assert "cat (output 0)" in run(*command)[1]


@pytest.mark.parametrize("layout", [*LAYOUTS, "ordered"])
def test_a_file_in_any_layout_is_the_same_network(layout: str, tmp_path: Path) -> None:
    network = build(find("mini"), num_classes=7, numerics=PAPER_NUMERICS, seed=0)
    randomise(network, seed=8)
    own = network.state_dict()
    state = exported(own, find("mini"), "timm" if layout == "ordered" else layout, num_classes=7)
    arrays: dict[str, Any] = {
        f"{i}_{name}" if layout == "ordered" else name: tensor.numpy() for i, (name, tensor) in enumerate(state.items())
    }
    np.savez(tmp_path / "w.npz", **arrays)
    found = open_file(str(tmp_path / "w.npz"), "mini", like="efficientnet_b0.tf_ap")
    assert (found.network.num_classes, found.network.numerics.padding) == (7, "same")
    assert (found.preprocessing.mean, found.preprocessing_from) == ((0.5,) * 3, "as efficientnet_b0.tf_ap")
    assert all(
        torch.equal(tensor, own[name]) for name, tensor in found.network.state_dict().items() if "num_" not in name
    )
    del arrays[list(arrays)[-1]]
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(InvalidData, match=r"w\.npz: .*tensor .* is missing"):
        open_file(str(tmp_path / "w.npz"), "mini", like="efficientnet_b0.tf_ap")


# ---- which image, which class ----


def test_classes_are_found_by_synset_index_padded_index_and_name_alike() -> None:
    expected = (0, 4, 218, 388)
    for names, by in (
        (("n01440764", "n01494475", "n02102177", "n02510455"), "synset"),
        (("n01440764_tench", "N01494475", "n02102177-Welsh_springer_spaniel", "n02510455 "), "synset"),
        (("0", "4", "218", "388"), "index"),
        (("0000", "0004", "0218", "0388"), "index"),
        (("tench", "hammerhead_shark", "Welsh springer spaniel", "Giant-Panda"), "name"),
        (("tench, Tinca tinca", "4", "n02102177", "giant panda"), "name and index and synset"),
    ):
        assert match(names, IMAGENET, "data") == (expected, by)


def test_the_first_word_of_a_class_goes_before_its_others() -> None:
    assert match(("crayfish", "tub", "harp"), IMAGENET, "data").places == (124, 876, 594)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ("tench", "hammerhed", "zzz"),
            r"data: class 'hammerhed' \(as are 1 more\) is none of the 1000 classes by syn",
        ),
        (("hammerhed",), r"index or name; nearest are n01494475 hammerhead"),
        (("1000",), r"class '1000' is none of the 1000 classes .* nearest are n"),
        (("n01440765",), r"class 'n01440765' is none of the 1000 classes .* nearest are n01440764 tench"),
        (("crane",), r"class 'crane' could be n02012849 crane or n03126707 crane; name it by its synset"),
        (("0", "tench"), r"classes '0' and 'tench' are both output 0; keep one of them"),
    ],
)
def test_a_class_that_matches_nothing_or_two_is_named_with_the_nearest(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidData, match=said) as raised:
        match(names, IMAGENET, "data")
    assert "\n" not in str(raised.value)


def test_outputs_without_names_are_matched_by_index_or_as_many_in_order() -> None:
    assert match_unnamed(("2", "10"), 37, "data") == ((2, 10), "index")
    assert match_unnamed(("cat", "dog"), 2, "data") == ((0, 1), "the order of their names")
    for names, wrong in ((("1", "37"), "37"), (("1", "dog"), "dog"), (("cat", "dog", "eel"), "cat")):
        with pytest.raises(InvalidData, match=rf"class '{wrong}' is none of the 37 outputs, which nothing names here"):
            match_unnamed(names, 37, "data")


@pytest.mark.parametrize(("trained_on", "synset", "index"), [("in12k", "n00005787", 0), ("in21k", "n00004475", 0)])
def test_larger_classifiers_have_timms_order(trained_on: str, synset: str, index: int) -> None:
    known = find_weights(*{"in12k": ("b5", "timm_in12k"), "in21k": ("v2_s", "tf_in21k")}[trained_on])
    outputs = outputs_of(known.num_classes)
    assert outputs is not None
    assert len(outputs.synsets) == known.num_classes
    assert match((synset,), outputs, "data").places == (index,)
    assert match(("n02510455",), outputs, "data").places[0] > 388


@pytest.mark.parametrize("heading", ["synset", "class_index", "synset,class_index"])
def test_a_flat_folder_with_labels_is_read_by_synset_or_index(placed: Peer, tmp_path: Path, heading: str) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    rows = []
    for i, label in enumerate(placed.labels[:4].tolist()):
        (folder / f"{i}.jpg").write_bytes(placed.photographs[i])
        own = {"synset": IMAGENET.synsets[label], "class_index": str(label)}
        rows.append(",".join([f"{i}.jpg", *(own[name] for name in heading.split(","))]))
    (folder / "labels.csv").write_text("\n".join([f"file,{heading}", *rows, ""]))
    dataset = open_data(str(folder))
    assert dataset.source == source_of(str(folder)) == str(folder / "labels.csv")
    matched = match(dataset.classes, IMAGENET, "data")
    assert [matched.places[sample.label] for sample in dataset.samples] == placed.labels[:4].tolist()
    assert matched.by == ("index" if heading == "class_index" else "synset")


def test_a_flat_folder_gives_what_class_folders_give(placed: Peer, run: Run, tmp_path: Path) -> None:
    folders(tmp_path / "data", placed, tuple(map(str, range(1000))), count=4)
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for i, label in enumerate(placed.labels[:4].tolist()):
        (flat / f"{i}.jpg").write_bytes(placed.photographs[i])
        rows.append(f"{i}.jpg,{IMAGENET.synsets[label]}\n")
    (flat / "labels.csv").write_text("file,synset\n" + "".join(rows))
    found = [json.loads(run("evaluate", "b0", data, "--json")[1]) for data in ("data", "flat")]
    for one in found:
        one["classes"] = sorted((part["output"], part["top1"], part["top5"]) for part in one["classes"])
    assert [one["matched_by"] for one in found] == ["index", "synset"]
    assert all(found[0][name] == found[1][name] for name in ("images", "top1", "top5", "classes"))


def test_an_image_is_taken_as_it_is_stored(tmp_path: Path, photographs: list[bytes]) -> None:
    for name, orientation in (("plain", 1), ("turned", 6)):
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x0112] = orientation
        decoded(photographs[0]).save(tmp_path / name / "0.png", exif=exif)
    plain, turned = open_data(tmp_path).samples
    preprocessing = find_weights("b0", "tf_aa").preprocessing
    assert (plain.width, plain.height) == (turned.height, turned.width)
    assert torch.equal(_levels(plain, preprocessing), _levels(turned, preprocessing))


def test_tensorflows_resize_is_not_rounded_and_every_batch_counts(
    photographs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = find_weights("b0", "lukemelas")
    network = build(replace(find("mini"), resolution=224), num_classes=1000, seed=0)
    randomise(network, seed=7)
    inputs = torch.stack([to_input(decoded(one), known.preprocessing) for one in photographs[:7]])
    familiar(network, inputs)
    with torch.no_grad():
        chances = network(inputs).softmax(1)
    labels = chances.argsort(1, descending=True)[:, 1]
    folders(tmp_path / "data", Peer(b"", photographs[:7], chances, labels))
    subject = Subject(
        name="mini",
        network=network,
        preprocessing=known.preprocessing,
        preprocessing_from="",
        numerics_from="",
        published=Evaluation(preprocessing=known.preprocessing),
    )
    monkeypatch.setattr("trifold.train.measured.batch_size", lambda _: 3)
    seen: list[tuple[int, int, str]] = []
    dataset = open_data(tmp_path / "data")
    found = measure(subject, dataset, progress=lambda *told: seen.append(told))
    assert seen == [(3, 7, "images"), (6, 7, "images"), (7, 7, "images")]
    expected = quality(chances, labels, IMAGENET.synsets)
    assert (found.top1.correct, found.top5) == (0, (7, 7))
    assert found.calibration_error == pytest.approx(expected.calibration_error, abs=1e-5)
    assert [part.count for part in found.bins] == [part.count for part in expected.bins]


def test_the_images_that_go_through_together_fit_in_a_gigabyte() -> None:
    for name in list_models():
        architecture = find(name)
        size = batch_size(architecture)
        assert size == 256 or (size + 1) * 4 * max(map(_held, architecture.blocks())) > MAX_BYTES
        assert size == 1 or size * 4 * max(map(_held, architecture.blocks())) <= MAX_BYTES
    assert batch_size(find("l2")) == 1
    assert 50 <= batch_size(find("b0")) <= 128


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("b0.tf_xx", "data"), "weights of efficientnet_b0 must be named by one of their tags, got 'tf_xx'; nearest"),
        (
            ("nowhere", "data"),
            "nowhere: no such run folder or weights file, nor a published set such as efficientnet_b0",
        ),
        (("b0.tf_aa",), "DATA must name the images on which b0.tf_aa is evaluated"),
        (("b0.tf_aa", "data", "--like", "tf"), "--like needs --architecture"),
        (("b0.tf_aa", "data", "--resolution", "256"), "resolution must be 224, as efficientnet_b0.tf_aa was published"),
        (("v2_b0.tf", "data", "--resolution", "300"), "resolution must be 192 or 224, as efficientnetv2_b0.tf"),
        (("b0.tf_aa", "data", "--classes", "-1"), "--classes must be a whole number from 0, or all, got '-1'"),
        (("b0.tf_aa", "data", "--device", "tpu"), "device must be auto or cpu or cuda, got 'tpu'"),
        (("b0.tf_aa", "absent"), "absent: there is no such folder"),
        (("data", "--resolution", "224"), "--resolution is for published weights and other libraries' files"),
        (("w.pth", "data"), "w.pth: was not written by trifold; --architecture must name its network"),
        (("w.safetensors", "data"), "w.safetensors: was not written by trifold; --architecture must name its"),
        (("w.safetensors", "data", "--architecture", "b99"), "network 'b99' is not known"),
        (("w.safetensors", "data", "--architecture", "b0", "--like", "x"), "must be named by one of their tags, got"),
        (("w.safetensors", "data", "--architecture", "resnet50"), "--like must name a set whose preprocessing these"),
        (("w.safetensors", "data", "--architecture", "b1"), "w.safetensors: timm's state dict: tensor "),
        (("absent.pth", "data", "--architecture", "b0"), "absent.pth: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_evaluated_is_one_line_and_status_2(
    placed: Peer, run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    folders(tmp_path / "data", placed, count=2)
    (tmp_path / "w.safetensors").write_bytes(placed.content)
    (tmp_path / "w.pth").write_bytes(b"")
    status, _, err = run("evaluate", *arguments)
    assert status == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_is_no_class_is_one_line_before_any_image_is_looked_at(
    placed: Peer, run: Run, tmp_path: Path
) -> None:
    (folders(tmp_path / "data", placed, count=2) / "hammerhed").mkdir()
    (tmp_path / "data" / "hammerhed" / "0.jpg").write_bytes(b"no image")
    status, _, err = run("evaluate", "b0.tf_aa", "data")
    assert (status, err) == (
        2,
        "trifold: data: class 'hammerhed' is none of the 1000 classes by synset, index or name; nearest are n01494475 "
        "hammerhead, n03481172 hammer\n",
    )


def test_without_a_network_the_file_to_place_is_named(peer: Peer, tmp_path: Path) -> None:
    data = folders(tmp_path / "data", peer, count=2)
    done = trifold(tmp_path, "evaluate", "efficientnet_b0.tf_aa", str(data), HF_HUB_OFFLINE="1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"trifold: timm/{REPOSITORY}: cannot be fetched: offline mode is on; place https://")
