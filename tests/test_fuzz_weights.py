"""Damaged, lying and hostile weights files: refused in one line, nothing in them is run, memory stays bounded."""

from __future__ import annotations

import io
import json
import pickle
import random
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import TINY
from trifold import cli, weights
from trifold.errors import InvalidData
from trifold.network import build
from trifold.weights import exported
from trifold.weights.readers import pretrained
from trifold.weights.writers import write

MIB = 1 << 20
SCALE = ((0.5,) * 3, (0.25,) * 3)


def make_keras(path: Path, content: bytes, config: str = '{"config": {"layers": []}}') -> None:
    """A zip as Keras 3 writes it. content: of its weights file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good file of every kind, each called w."""
    folder = tmp_path_factory.mktemp("whole")
    network = build(TINY, num_classes=3, seed=0)
    state = exported(network.state_dict(), TINY, "timm", num_classes=3)
    save_file(state, folder / "w.safetensors")
    torch.save(state, folder / "w.pth")
    torch.save(state, folder / "w.pt", _use_new_zipfile_serialization=False)
    np.savez(folder / "w.npz", allow_pickle=False, **{name: tensor.numpy() for name, tensor in state.items()})
    write(folder / "w.h5", network, "keras", scale=SCALE)
    write(folder / "k.weights.h5", network, "keras", scale=SCALE)
    make_keras(folder / "w.keras", (folder / "k.weights.h5").read_bytes())
    (folder / "k.weights.h5").rename(folder / "w.hdf5")
    weights.save(folder / "own.safetensors", network)
    return folder


def refused(path: Path) -> str:
    """How a file is refused, after a look that it is said in one line that begins with the path."""
    with pytest.raises(InvalidData) as raised:
        pretrained(path)
    said = str(raised.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < 2000
    return said.removeprefix(f"{path}: ")


def read_or_refused(path: Path) -> bool:
    """Whether a file is read; any error but a refusal in one line is raised."""
    try:
        found = pretrained(path)
    except InvalidData as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        return False
    assert all(tensor.isfinite().all() for tensor in found.tensors.values())
    return True


FILES = ("w.safetensors", "own.safetensors", "w.pth", "w.pt", "w.npz")
APART = ("w.h5", "w.hdf5", "w.keras")
"""Read by a process of its own, which takes half a second."""


@pytest.mark.parametrize(("name", "count"), [*((name, 800) for name in FILES), *((name, 40) for name in APART)])
def test_a_file_with_a_few_bytes_changed_is_read_or_refused(whole: Path, name: str, count: int, tmp_path: Path) -> None:
    content, path, numbers = (whole / name).read_bytes(), tmp_path / name, random.Random(name)
    assert read_or_refused(whole / name)
    read = 0
    for _ in range(count):
        changed = bytearray(content)
        within = len(content) if numbers.random() < 0.5 else min(len(content), 4096)  # where the structure is
        for _ in range(numbers.choice((1, 2, 8))):
            changed[numbers.randrange(within)] = numbers.randrange(256)
        path.write_bytes(changed)
        read += read_or_refused(path)
    assert read < count


@pytest.mark.parametrize("name", [*FILES, *APART])
def test_a_file_cut_short_is_refused(whole: Path, name: str, tmp_path: Path) -> None:
    content = (whole / name).read_bytes()
    shares = (0.0, 0.1, 0.5, 0.999) if name in FILES else (0.1, 0.999)
    for share in shares:
        (tmp_path / name).write_bytes(content[: int(share * len(content))])
        refused(tmp_path / name)


@pytest.mark.parametrize("end", [".safetensors", ".pth", ".pt", ".bin", ".npz", ".h5", ".keras"])
def test_a_file_of_another_kind_is_refused(whole: Path, end: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{end}"
    kinds = ("w.safetensors", "w.pth", "w.pt", "w.npz", "w.h5", "w.keras")
    same = {".pth": ("w.pth", "w.pt"), ".pt": ("w.pth", "w.pt"), ".bin": ("w.pth", "w.pt")}.get(end, (f"w{end}",))
    for name in kinds if end not in (".h5", ".keras") else kinds[::3]:
        if name not in same:
            path.write_bytes((whole / name).read_bytes())
            refused(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20)
    refused(path)


# ---- code in files ----


class Payload:
    """Makes a file called ran where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.command = f"open({str(folder / 'ran')!r}, 'w')"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, (self.command,)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    payload = Payload(tmp_path)
    content = {"conv_stem.weight": torch.zeros(3), "more": payload}
    torch.save(content, tmp_path / "zip.pth")
    torch.save(content, tmp_path / "older.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(payload))
    np.savez(tmp_path / "objects.npz", **{"conv_stem.weight": np.array([payload], dtype=object)}, allow_pickle=True)
    for name in ("zip.pth", "older.pth", "bare.bin", "objects.npz"):
        refused(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(payload)).close()
    assert (tmp_path / "ran").exists()  # so it would have been seen


def test_code_in_keras_description_is_not_run(whole: Path, tmp_path: Path) -> None:
    layer = {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {"name": "x", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
    }
    config = json.dumps({"class_name": "Functional", "config": {"layers": [layer]}})
    make_keras(tmp_path / "m.keras", (whole / "w.hdf5").read_bytes(), config)
    found = pretrained(tmp_path / "m.keras")  # what it scales by is then not known
    assert (found.mean, found.std) == (None, None)


@pytest.mark.parametrize(
    "config", ["[" * 100_000, '{"config": 3}', '{"config": {"layers": [3]}}', "nan", "\\", '{"config": {"layers": {}}}']
)
def test_a_damaged_description_of_keras_is_read_or_refused(whole: Path, config: str, tmp_path: Path) -> None:
    make_keras(tmp_path / "m.keras", (whole / "w.hdf5").read_bytes(), config)
    read_or_refused(tmp_path / "m.keras")


# ---- what is larger than the file ----


def zeros(path: Path, name: str, begins: bytes = b"") -> None:
    """A zip of one member, which unpacks to 400 MiB of zeros after what it begins with."""
    packed = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packed as archive, archive.open(name, "w") as member:
        member.write(begins)
        for _ in range(400):
            member.write(bytes(MIB))


def zeros_npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (100 * MIB,)})
    zeros(path, "conv_stem.weight.npy", header.getvalue())


def lying_npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conv_stem.weight.npy", header.getvalue() + bytes(100))


def understated_npz(path: Path) -> None:
    """Its directory says 1,000 bytes of what unpacks to 400 MiB."""
    zeros_npz(path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(content)


def repeated_pth(path: Path) -> None:
    torch.save({"conv_stem.weight": torch.zeros(1).expand(1 << 34)}, path)


def sparse_pth(path: Path) -> None:
    with warnings.catch_warnings():  # that sparse tensors are not checked
        warnings.simplefilter("ignore")
        empty = torch.sparse_coo_tensor(torch.zeros((1, 1), dtype=torch.long), torch.ones(1), (1 << 34,))
        torch.save({"conv_stem.weight": empty}, path)


def compressed_pth(path: Path) -> None:
    torch.save({"conv_stem.weight": torch.zeros(100 * MIB)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def safetensors(header: object, path: Path, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(16))


def row(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def hdf5(fill: Callable[[Any], object], path: Path) -> None:
    with h5py.File(path, "w") as file:
        fill(file.create_group("stem_conv/stem_conv"))


def compressed(group: Any) -> None:
    group.create_dataset("kernel:0", (100 * MIB,), "f4", chunks=(MIB,), compression="gzip", fillvalue=0)


def allocated(group: Any) -> None:
    """Chunks that are there and hold zeros."""
    made = group.create_dataset("kernel:0", (30 * MIB,), "f4", chunks=(MIB,), compression="gzip", compression_opts=1)
    for chunk in range(30):
        made[chunk * MIB : (chunk + 1) * MIB] = 0


def virtual(group: Any) -> None:
    layout = h5py.VirtualLayout((100,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (100,))
    group.create_virtual_dataset("kernel:0", layout)


def circle(group: Any) -> None:
    group["again"] = group.parent


def deep(group: Any) -> None:
    for _ in range(100):
        group = group.create_group("x")


def soft(group: Any) -> None:
    group["kernel:0"] = h5py.SoftLink("/elsewhere")


def outside(group: Any) -> None:
    group["kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def stored_outside(group: Any) -> None:
    group.create_dataset("kernel:0", (100,), "u1", external=[("/etc/passwd", 0, 100)])


def bomb_keras(path: Path) -> None:
    zeros(path, "model.weights.h5")


def keras_of(fill: Callable[[Any], object], path: Path) -> None:
    inner = path.with_name("inner.h5")
    hdf5(fill, inner)
    make_keras(path, inner.read_bytes())


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "zeros.npz": (zeros_npz, "unpack to [0-9]{9}: more than 20 times"),
    "lying.npz": (lying_npz, "damaged"),
    "understated.npz": (understated_npz, "damaged"),
    "repeated.pth": (repeated_pth, "sparse, repeated or empty"),
    "sparse.pth": (sparse_pth, "sparse, repeated or empty|other things than tensors"),
    "compressed.pth": (compressed_pth, "is compressed"),
    "long.safetensors": (lambda path: safetensors({}, path, 1 << 62), "damaged"),
    "beyond.safetensors": (lambda path: safetensors({"a": row([4], 0, 1 << 40)}, path), "damaged"),
    "shape.safetensors": (lambda path: safetensors({"a": row([1 << 40], 0, 16)}, path), "damaged"),
    "overflow.safetensors": (lambda path: safetensors({"a": row([1 << 62, 1 << 62], 0, 16)}, path), "damaged"),
    "overlap.safetensors": (lambda path: safetensors({"a": row([4], 0, 16), "b": row([4], 0, 16)}, path), "damaged"),
    "hole.safetensors": (lambda path: safetensors({"a": row([2], 0, 8)}, path), "damaged"),
    "nested.safetensors": (lambda path: safetensors(b'{"a":' * 100_000, path), "damaged"),
    "empty.safetensors": (lambda path: safetensors({"a": row([0], 0, 0)}, path), "damaged|no tensors"),
    "compressed.h5": (lambda path: hdf5(compressed, path), "unpack to 419430400: more than 20 times"),
    "allocated.h5": (lambda path: hdf5(allocated, path), "unpack to 125829120: more than 20 times"),
    "virtual.h5": (lambda path: hdf5(virtual, path), "lies in another file"),
    "soft.h5": (lambda path: hdf5(soft, path), "is a link to another place"),
    "outside.h5": (lambda path: hdf5(outside, path), "is a link to another place"),
    "stored.h5": (lambda path: hdf5(stored_outside, path), "lies in another file"),
    "circle.h5": (lambda path: hdf5(circle, path), "is there twice"),
    "deep.h5": (lambda path: hdf5(deep, path), "lies too deep"),
    "text.h5": (lambda path: hdf5(lambda group: group.create_dataset("kernel:0", data="x"), path), "plain numbers"),
    "bomb.keras": (bomb_keras, "unpack to 419430400: more than 20 times"),
    "outside.keras": (lambda path: keras_of(outside, path), "is a link to another place"),
    "compressed.keras": (lambda path: keras_of(compressed, path), "unpack to 419430400: more than 20 times"),
}
"""By file: what makes it, and how it is refused."""

READER = """
import json, resource, sys
from pathlib import Path
from trifold.errors import InvalidData
from trifold.weights.readers import pretrained
for good in sys.argv[2:]:
    pretrained(good)
def used():
    return [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
before, told = used(), {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        pretrained(path)
    except InvalidData as error:
        told[path.name] = str(error)
print(json.dumps({"told": told, "grown": [b - a for a, b in zip(before, used())]}))
"""


def test_files_that_say_they_hold_more_are_refused_before_memory_is_taken(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name, (make, _) in HOSTILE.items():
        make(folder / name)
    (folder / "inner.h5").unlink()
    command = [sys.executable, "-c", READER, str(folder), *(str(whole / name) for name in (*FILES, *APART))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["told"].keys() == HOSTILE.keys()
    for name, (_, said) in HOSTILE.items():
        with pytest.raises(InvalidData, match=said):  # so that a difference is shown
            raise InvalidData(found["told"][name])
        assert "\n" not in found["told"][name]
        assert found["told"][name].startswith(f"{folder / name}: ")
    assert max(found["grown"]) < 150, found["grown"]  # MiB, of this process and of the largest that read for it


def test_a_damaged_checkpoint_of_tensorflow_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="tensorflow is not installed: it reads its own checkpoints")
    (tmp_path / "model.index").write_bytes(random.Random(0).randbytes(5000))
    assert refused(tmp_path / "model.index").startswith("no file model.data-... lies beside it")
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(5000))
    assert refused(tmp_path / "model.index").startswith("not a .index file with tensors, or cut short or damaged")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "../../etc/passwd"')
    assert refused(tmp_path) == "its file checkpoint names no checkpoint that is there"


@pytest.mark.slow
def test_checkpoints_of_tensorflow_with_bytes_changed_are_read_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="tensorflow is not installed: it reads its own checkpoints")
    write(tmp_path / "model.ckpt", build(TINY, num_classes=3, seed=0), "tensorflow")
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        content, numbers = (tmp_path / name).read_bytes(), random.Random(name)
        for _ in range(6):
            changed = bytearray(content)
            for _ in range(4):
                changed[numbers.randrange(len(content))] = numbers.randrange(256)
            (tmp_path / name).write_bytes(changed)
            read_or_refused(tmp_path / "model.ckpt.index")
        (tmp_path / name).write_bytes(content)
    assert read_or_refused(tmp_path / "model.ckpt")


@pytest.mark.parametrize("name", ["lying.npz", "repeated.pth", "beyond.safetensors", "outside.h5", "outside.keras"])
def test_the_command_says_it_in_one_line_with_status_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    HOSTILE[name][0](tmp_path / name)
    out = tmp_path / "out.safetensors"
    arguments = ["weights", "convert", str(tmp_path / name), str(out), "--to", "timm", "--architecture", "b0"]
    monkeypatch.setattr(sys, "argv", ["trifold", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert (stopped.value.code, printed.out) == (2, "")
    assert line.startswith(f"trifold: {tmp_path / name}: ")
    assert not out.exists()
