"""Files that other libraries wrote answer as those libraries do, and what is written for them loads there again."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import trifold.create
from tests import keras_peers
from tests.keras_peers import MEAN, STD
from tests.peers import error, images, vary
from trifold import baselines
from trifold._torchvision import torchvision
from trifold.cli.weights import convert
from trifold.create import create_model
from trifold.data.images import to_input
from trifold.errors import InvalidData, InvalidInput
from trifold.layers import PAPER_NUMERICS, TORCH_NUMERICS, Numerics
from trifold.network import Network, build
from trifold.weight_sets import find_weights
from trifold.weights.fetch import place
from trifold.weights.loading import whole_network
from trifold.weights.readers import pretrained
from trifold.weights.writers import write

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

LIMIT = 1e-4


def noise(side: int = 64) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (2, side, side, 3), dtype=np.uint8)


def normalised(pixels: Pixels, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Tensor:
    """As our networks take images, by what a file says."""
    assert mean is not None
    assert std is not None
    return ((torch.from_numpy(pixels) / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


def telling(expected: Tensor) -> Tensor:
    """The logits, after a look that they tell the images apart."""
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max()
    return expected


def check_keras(file: Path, expected: Tensor, architecture: str = "b0", side: int = 64) -> None:
    """A file is read with its scaling, and create_model's network answers as Keras' did."""
    found = pretrained(file)
    assert found.numerics is not None
    assert (found.numerics.bn_eps, found.numerics.padding) == (1e-3, "same")
    network = create_model(architecture, pretrained=file).eval()
    with torch.no_grad():
        ours = network(normalised(noise(side), found.mean, found.std))
    assert error(ours, telling(expected)) <= LIMIT


# ---- Keras ----


@pytest.fixture(scope="module")
def keras_b0() -> Any:
    network = keras_peers.make("EfficientNetB0")
    keras_peers.vary(network, seed=3)
    return network


@pytest.fixture(scope="module")
def expected(keras_b0: Any) -> Tensor:
    return keras_peers.logits(keras_b0, noise())


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "older.h5", "older-whole.h5"])
def test_each_of_keras_files_answers_as_keras_does(keras_b0: Any, expected: Tensor, name: str, tmp_path: Path) -> None:
    if name.startswith("older"):
        keras_peers.save_as_tf_keras(keras_b0, tmp_path / name, whole="whole" in name)
    else:
        keras_peers.save(keras_b0, tmp_path / name)
    check_keras(tmp_path / name, expected)
    found = pretrained(tmp_path / name)
    assert (found.mean, found.std, found.layout) == (MEAN, STD, "keras")


def test_a_weights_file_without_the_layers_names_is_told_by_their_order(
    keras_b0: Any, expected: Tensor, tmp_path: Path
) -> None:
    import h5py

    file = tmp_path / "m.weights.h5"
    keras_peers.save(keras_b0, file)
    with h5py.File(file, "a") as content:  # as Keras wrote before 3.5
        for layer in content["layers"].values():
            layer["vars"].attrs.pop("name", None)
    assert pretrained(file).layout == "keras_counted"
    check_keras(file, expected)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5"])
def test_a_network_within_a_trained_model_is_found(keras_b0: Any, expected: Tensor, name: str, tmp_path: Path) -> None:
    keras = keras_peers.import_keras()
    inner = keras.Model(keras_b0.input, keras_b0.get_layer("top_activation").output, name="backbone")
    inputs = keras.Input((64, 64, 3))
    features = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    outer = keras.Model(inputs, keras.layers.Dense(4, name="own")(features))
    outer.compile(optimizer="adam", loss="mse")
    keras_peers.save(outer, tmp_path / name)
    with pytest.raises(
        InvalidData, match=r"tensor 'own/(kernel|bias)' has no place in this network; strict=False takes"
    ):
        create_model("b0", pretrained=tmp_path / name)
    network = create_model("b0", pretrained=tmp_path / name, strict=False, num_classes=0).eval()
    with torch.no_grad():
        ours = network(normalised(noise(), MEAN, STD))
    theirs = keras_peers.logits(keras.Model(keras_b0.input, keras_b0.get_layer("avg_pool").output), noise())
    assert error(ours, telling(theirs)) <= LIMIT


def test_a_network_with_constant_scaling_answers_as_keras_does(tmp_path: Path) -> None:
    network = keras_peers.make("EfficientNetV2B0")
    keras_peers.vary(network, seed=4, gain=1.2)
    for name in ("m.keras", "m.h5"):
        keras_peers.save(network, tmp_path / name)
        check_keras(tmp_path / name, keras_peers.logits(network, noise()), "efficientnetv2_b0")


def photographs(data_dir: Path, count: int, side: int) -> Pixels:
    """Squares cut out of photographs, (batch, side, side, 3)."""
    with zipfile.ZipFile(data_dir / "imagenet_photos_250_256px.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        opened = [Image.open(io.BytesIO(archive.read(name))) for name in names[:: len(names) // count][:count]]
        return np.stack([np.asarray(image.convert("RGB").resize((side, side))) for image in opened])


GAINS = {
    "EfficientNetB0": 1.5,
    "EfficientNetB1": 1.3,
    "EfficientNetB2": 1.3,
    "EfficientNetB3": 1.3,
    "EfficientNetB4": 1.2,
    "EfficientNetB7": 1.05,
    "EfficientNetV2B0": 1.2,
    "EfficientNetV2B3": 1.05,
    "EfficientNetV2S": 0.9,
}
"""Small enough for single precision to answer as double does, large enough for the answers to tell images apart."""


def check_published(name: str, side: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' network for weights="imagenet", which is another graph, from such a file as it would download."""
    monkeypatch.setenv("TRIFOLD_CACHE", str(tmp_path / "cache"))
    second = "V2" in name
    ours_name = ("efficientnetv2_" if second else "efficientnet_") + name.rpartition("V2" if second else "Net")[
        2
    ].lower()
    known = find_weights(ours_name, "keras")
    monkeypatch.setattr(trifold.create, "find_weights", lambda *_: replace(known, md5=""))
    source = keras_peers.make(name, side=side, classes=1000)
    keras_peers.vary(source, seed=6, gain=GAINS[name])
    place(known.source).parent.mkdir(parents=True, exist_ok=True)
    file = place(known.source)
    keras_peers.save_as_tf_keras(source, file, variance=None if second else STD)
    module = sys.modules[f"keras.src.applications.efficientnet{'_v2' if second else ''}"]
    monkeypatch.setattr(module, "file_utils", Downloaded(file))
    theirs = keras_peers.make(name, side=side, classes=1000, weights="imagenet")
    pixels = photographs(data_dir, 3, side)
    ours = create_model(ours_name, pretrained="keras").eval()
    shape = replace(known.preprocessing, resolution=side, crop="whole", resize=0, resizer="torch", antialias=True)
    batch = torch.stack([to_input(Image.fromarray(image), shape) for image in pixels])
    with torch.no_grad():
        assert error(ours(batch), telling(keras_peers.logits(theirs, pixels))) <= LIMIT
    if not second:
        found = pretrained(file)
        assert (found.mean, found.std) == (known.preprocessing.mean, known.preprocessing.std)


class Downloaded:
    """Stands for Keras' downloads: every file is this one."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def get_file(self, *_: object, **__: object) -> str:
        return str(self.file)

    def exists(self, path: object) -> bool:
        return Path(str(path)).exists()


def test_published_b0_answers_photographs_as_keras_with_its_own_scaling(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_published("EfficientNetB0", 224, data_dir, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("EfficientNetB1", 240),
        ("EfficientNetB2", 260),
        ("EfficientNetB3", 300),
        ("EfficientNetB4", 380),
        ("EfficientNetB7", 600),
        ("EfficientNetV2B0", 224),
        ("EfficientNetV2B3", 300),
        ("EfficientNetV2S", 384),
    ],
)
def test_other_published_networks_answer_photographs_as_keras_does(
    name: str, side: int, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_published(name, side, data_dir, tmp_path, monkeypatch)


# ---- TensorFlow ----

WRITER = """
import sys
import numpy as np
import tensorflow as tf
tf1 = tf.compat.v1
tf1.disable_eager_execution()
arrays = dict(np.load(sys.argv[1]))
averaged = sys.argv[3] == "averaged"
step = tf1.train.get_or_create_global_step()
rng = np.random.default_rng(0)
placed = {}
for name, array in arrays.items():
    start = rng.normal(size=array.shape).astype("float32") if averaged else array
    trained = "moving_" not in name
    placed[name] = tf1.get_variable("efficientnet-b0/" + name, initializer=start, trainable=trained)
some = tf1.trainable_variables()[:20]  # that the optimizer has slots of: all of them take long
loss = tf.add_n([tf.reduce_sum(one) for one in some])
train = tf1.train.RMSPropOptimizer(0.01, momentum=0.9).minimize(loss, step, some)
averages = tf1.train.ExponentialMovingAverage(0.9999)
average = averages.apply(list(placed.values())) if averaged else tf.no_op()
with tf1.Session() as session:
    session.run(tf1.global_variables_initializer())
    if averaged:
        session.run([train, average])
        starts = {name: averages.average(one).initializer for name, one in placed.items()}
        session.run(list(starts.values()), {start.inputs[1]: arrays[name] for name, start in starts.items()})
    print(tf1.train.Saver(tf1.global_variables()).save(session, sys.argv[2], step))
"""


@pytest.fixture(scope="module")
def checkpoint(keras_b0: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a checkpoint of Keras' network as the paper's training does: its prefix."""
    pytest.importorskip("tensorflow", reason="tensorflow is not installed: the peer compared with")

    def made(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        np.savez(folder / "arrays.npz", allow_pickle=False, **keras_peers.official_names(keras_b0))
        command = [sys.executable, "-c", WRITER, str(folder / "arrays.npz"), str(folder / "model.ckpt"), kind]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    return made


@pytest.mark.parametrize("kind", ["averaged", pytest.param("plain", marks=pytest.mark.slow)])
def test_a_tensorflow_checkpoint_answers_as_its_network(
    checkpoint: Callable[[str], Path], expected: Tensor, kind: str
) -> None:
    prefix = checkpoint(kind)
    assert re.fullmatch(r"model\.ckpt-\d", prefix.name)
    found = pretrained(prefix.parent if kind == "averaged" else prefix)
    averaged = 311 if kind == "averaged" else 0
    assert found.description == f"311 variables of a TensorFlow checkpoint, {averaged} of them moving averages"
    network = whole_network(found, baselines.find("b0"))
    with torch.no_grad():
        assert error(network(normalised(noise(), MEAN, STD)), expected) <= LIMIT
    if kind == "averaged":  # as the paper's checkpoints are published
        archive = prefix.parent / "efficientnet-b0.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            for part in prefix.parent.glob("[cm]*"):
                file.add(part, f"efficientnet-b0/{part.name}")
        packed = pretrained(archive)
        assert (packed.description, packed.layout) == (found.description, found.layout)
        assert all(torch.equal(packed.tensors[name], tensor) for name, tensor in found.tensors.items())


# ---- state dicts ----


def peer(library: str, name: str) -> nn.Module:
    network: nn.Module = timm.create_model(name) if library == "timm" else getattr(torchvision.models, name)()
    vary(network, seed=7)
    return network.eval()


STATE_DICTS = [
    ("timm", "tf_efficientnet_b0", "b0", PAPER_NUMERICS),
    ("timm", "efficientnet_b0", "b0", TORCH_NUMERICS),
    ("timm", "tf_efficientnet_lite0", "lite0", PAPER_NUMERICS),
    ("timm", "mobilenetv2_100", "mobilenet_v2", None),
    ("timm", "resnet18", "resnet18", None),
    ("torchvision", "efficientnet_b0", "b0", None),
    ("torchvision", "efficientnet_v2_s", "efficientnetv2_s", None),
    ("torchvision", "mobilenet_v2", "mobilenet_v2", None),
]


@pytest.mark.parametrize(("library", "name", "ours", "numerics"), STATE_DICTS)
def test_state_dicts_answer_as_their_libraries_and_go_back(
    library: str, name: str, ours: str, numerics: Numerics | None, tmp_path: Path
) -> None:
    """numerics: None where the library leaves no choice, so that they are told by the names."""
    theirs = peer(library, name)
    torch.save({"arch": name, "epoch": 3, "state_dict": theirs.state_dict()}, tmp_path / "w.pth")
    network = create_model(ours, pretrained=tmp_path / "w.pth", numerics=numerics).eval()
    batch = images((64, 64), seed=2)
    with torch.no_grad():
        assert error(network(batch), telling(theirs(batch))) <= LIMIT
        assert error(network.double()(batch.double()), theirs.double()(batch.double())) <= 1e-6
    vary(network.float(), seed=8)
    again = peer(library, name)
    for end in (".safetensors", ".pth"):
        write(tmp_path / f"out{end}", network, library)
        state = load_file(tmp_path / "out.safetensors") if end == ".safetensors" else torch.load(tmp_path / "out.pth")
        again.load_state_dict(state)
        with torch.no_grad():
            assert error(again(batch), network(batch)) <= LIMIT
        if library == "timm":
            made = timm.create_model(name, checkpoint_path=str(tmp_path / f"out{end}")).eval()
            assert torch.equal(made(batch), again(batch))


def test_lukemelas_state_dicts_answer_as_his_network_and_go_back(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library: Any = pytest.importorskip("efficientnet_pytorch", reason="EfficientNet-PyTorch is not installed")
        theirs = library.EfficientNet.from_name("efficientnet-b0", num_classes=10, image_size=64).eval()
    vary(theirs, seed=7)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    network = create_model(replace(baselines.find("b0"), resolution=64), pretrained=tmp_path / "w.pth").eval()
    assert network.numerics == Numerics(padding="same_static")
    batch = images((64, 64), seed=2)
    with torch.no_grad():
        assert error(network(batch), telling(theirs(batch))) <= LIMIT
        vary(network, seed=8)
        write(tmp_path / "out.pth", network, "lukemelas")
        theirs.load_state_dict(torch.load(tmp_path / "out.pth"))
        assert error(theirs(batch), telling(network(batch))) <= LIMIT


def test_timms_two_kinds_of_network_are_not_told_apart_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(peer("timm", "efficientnet_b0").state_dict(), tmp_path / "w.safetensors")
    create_model("b0", pretrained=tmp_path / "w.safetensors")
    assert "does not say which padding and bn_eps its weights need" in caplog.text
    with pytest.raises(InvalidInput, match="does not say which numerics its weights need"):
        whole_network(pretrained(tmp_path / "w.safetensors"), baselines.find("b0"))


# ---- what is written for Keras and TensorFlow ----


@pytest.fixture(scope="module")
def varied() -> Network:
    network = build(baselines.find("b0"), num_classes=10)
    vary(network, seed=9)
    return network.eval()


@pytest.mark.parametrize(("ours", "theirs"), [("b0", "EfficientNetB0"), ("efficientnetv2_b0", "EfficientNetV2B0")])
@pytest.mark.parametrize("end", [".h5", ".weights.h5"])
def test_keras_loads_what_is_written_for_it(ours: str, theirs: str, end: str, tmp_path: Path) -> None:
    network = build(baselines.find(ours), num_classes=10)
    vary(network, seed=9, gain=1.2 if "v2" in ours else 1.5)
    write(tmp_path / f"w{end}", network.eval(), "keras", scale=(MEAN, STD))
    made = keras_peers.make(theirs, weights=tmp_path / f"w{end}")
    with torch.no_grad():
        expected = network(normalised(noise(), MEAN, STD))
    assert error(keras_peers.logits(made, noise()), telling(expected)) <= LIMIT
    again = whole_network(pretrained(tmp_path / f"w{end}"), network.architecture)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_tensorflow_reads_what_is_written_for_it_under_the_official_names(
    varied: Network, keras_b0: Any, tmp_path: Path
) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="tensorflow is not installed: the peer compared with")
    write(tmp_path / "model.ckpt", varied, "tensorflow")
    reader = tensorflow.train.load_checkpoint(str(tmp_path / "model.ckpt"))
    official = {f"efficientnet-b0/{name}": array.shape for name, array in keras_peers.official_names(keras_b0).items()}
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    averages = {f"{name}/ExponentialMovingAverage": shape for name, shape in official.items()}
    assert shapes == official | averages | {"global_step": ()}
    again = create_model("b0", pretrained=tmp_path / "model.ckpt")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in varied.state_dict().items())


# ---- the command ----


def run(*arguments: object) -> str:
    done = CliRunner().invoke(convert, [str(one) for one in arguments], catch_exceptions=False)
    return done.output


def test_convert_goes_from_timm_to_keras_and_back(varied: Network, tmp_path: Path) -> None:
    write(tmp_path / "w.pth", varied, "timm")
    chosen = ("--architecture", "b0", "--numerics", "paper")
    out = run(tmp_path / "w.pth", tmp_path / "k.h5", "--to", "keras", *chosen, "--normalisation", "imagenet")
    assert out == (
        f"{tmp_path / 'k.h5'}: efficientnet_b0 for keras, 10 classes; padding same, bn_eps 0.001, "
        "mean 0.485 0.456 0.406, std 0.229 0.224 0.225\n"
    )
    run(tmp_path / "k.h5", tmp_path / "t.safetensors", "--to", "trifold", "--architecture", "b0")
    run(tmp_path / "t.safetensors", tmp_path / "l.pth", "--to", "lukemelas")
    run(tmp_path / "l.pth", tmp_path / "again.safetensors", "--to", "timm", "--architecture", "b0")
    first, last = torch.load(tmp_path / "w.pth"), load_file(tmp_path / "again.safetensors")
    assert first.keys() == last.keys()
    assert all(torch.equal(tensor, last[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [
        ("o.pth", "--to timm", "does not say of which network it is"),
        ("o.pth", "--to timm --architecture b0", "does not say which numerics its weights need: paper .* or torch"),
        ("o.pth", "--to timm --architecture b1 --numerics paper", "must have shape|is absent|is missing"),
        (
            "o.pth",
            "--to torchvision --architecture b0 --numerics paper",
            "need padding same, and torchvision's .* symm",
        ),
        ("o.h5", "--to keras --architecture b0 --numerics torch", "need padding symmetric, and keras's .* has same"),
        ("o.h5", "--to keras --architecture b0 --numerics paper", "must be told their mean and std"),
        ("o.pth", "--to keras --architecture b0 --numerics paper", "a file of keras must end in .weights.h5 or .h5"),
        ("o.pth", "--to jax --architecture b0 --numerics paper", "layout must be one of trifold, timm"),
        ("no/o.pth", "--to timm --architecture b0 --numerics paper", "cannot be written: No such file or directory"),
        ("o.pth", "--to timm --architecture b0 --numerics best", "--numerics must be paper or torch, got 'best'"),
    ],
)
def test_what_cannot_be_converted_is_told_in_one_line(
    varied: Network, tmp_path: Path, out: str, options: str, said: str
) -> None:
    write(tmp_path / "w.pth", varied, "timm")
    with pytest.raises(InvalidInput, match=said) as raised:
        run(tmp_path / "w.pth", tmp_path / out, *options.split())
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pth"]
