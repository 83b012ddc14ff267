"""A run exported as ONNX answers as the network does, says what it needs, and is not written where it does not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import digits, finished, plan
from trifold import baselines, cli
from trifold.architecture import Architecture, Head, Stage, Stem
from trifold.data.dataset import Dataset
from trifold.engines.onnxruntime import open_onnx
from trifold.engines.session import Images, Outputs, Session
from trifold.errors import InvalidData, InvalidInput
from trifold.export.graph import Deployed
from trifold.export.interface import KEY, Interface, from_metadata
from trifold.export.onnx_file import onnx_model
from trifold.layers import Numerics
from trifold.network import Network, build
from trifold.preprocessing import plain
from trifold.train import exported
from trifold.train.exported import Refused, Wanted, export_run
from trifold.train.gate import TOLERANCE, Difference, eager, in_batches
from trifold.train.record import Record
from trifold.train.use import evaluate, load_run

__all__ = ["digits", "finished", "plan"]  # the fixtures

Finished = tuple[Path, Record]

EVERY_OPERATOR = Architecture(
    name="every operator",
    resolution=33,
    stem=Stem(channels=8, max_pool=True, activation="hard_swish"),
    stages=(
        Stage(operator="mbconv", channels=8, layers=2, expand_ratio=4, kernel_size=5, stride=2, se_ratio=0.25),
        Stage(operator="fused_mbconv", channels=12, layers=2, expand_ratio=2, activation="relu6"),
        Stage(operator="separable", channels=16, stride=2, activation="relu"),
        Stage(operator="bottleneck", channels=16, layers=2, expand_ratio=0.5, expand_of="output", activation="gelu"),
        Stage(operator="basic", channels=16, stride=2, activation="silu"),
        Stage(operator="conv", channels=24, activation="relu"),
    ),
    head=Head(channels=32),
)


def interface_of(network: Network, **changes: object) -> Interface:
    value = Interface(
        name=network.architecture.name,
        classes=(),
        num_classes=network.num_classes,
        preprocessing=plain(network.architecture.resolution, "RGB"),
    )
    return replace(value, **changes)  # type: ignore[arg-type]  # fields by name


def trained_a_little(network: Network) -> Network:
    """The network with statistics and scales as of some training, so that folding batch norm changes every weight."""
    generator = torch.Generator().manual_seed(3)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize("padding", ["same", "same_static", "symmetric"])
def test_every_operator_answers_as_in_torch_for_any_number_of_images(padding: str) -> None:
    network = trained_a_little(build(EVERY_OPERATOR, num_classes=7, numerics=Numerics(padding=padding), seed=1))
    interface = interface_of(network)
    session = open_onnx(onnx_model(network, interface).SerializeToString(), threads=1)
    assert from_metadata(session.metadata, "file") == interface
    for count in (1, 2, 5):
        images = np.random.default_rng(count).normal(size=(count, 3, 33, 33)).astype(np.float32)
        difference = Difference()
        difference.add(eager(Deployed(network, interface), images), session(images))
        assert difference.largest > 0
        assert difference.relative < TOLERANCE / 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b0", "mobilenet_v2", "resnet18", "lite0", "v2_b0"])
def test_shipped_networks_answer_as_in_torch_and_have_their_batch_norm_folded(name: str) -> None:
    network = trained_a_little(build(baselines.find(name), seed=0))
    interface = interface_of(network)
    model = onnx_model(network, interface)
    pads = [node for node in model.graph.node if node.op_type == "Pad"]  # only of a max-pool, with minus infinity
    assert len(pads) == network.architecture.stem.max_pool
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
    session = open_onnx(model.SerializeToString(), threads=2)
    images = np.random.default_rng(0).normal(size=(2, *interface.shape)).astype(np.float32)
    difference = Difference()
    difference.add(eager(Deployed(network, interface), images), session(images))
    assert difference.relative < TOLERANCE


def test_a_run_is_exported_with_its_classes_and_preprocessing_and_is_as_right_as_before(
    finished: Finished, digits: Dataset, tmp_path: Path
) -> None:
    folder, _ = finished
    path = tmp_path / "digits.onnx"
    gate = export_run(folder, digits, path, Wanted())
    tested = evaluate(folder, digits)
    assert (gate.images, gate.network_correct, gate.file_correct) == (tested.total, tested.correct, tested.correct)
    assert gate.same_answers == gate.images
    assert 0 < gate.real_difference < TOLERANCE
    assert 0 < gate.random_difference < TOLERANCE
    assert gate.network_ms > 0
    assert gate.file_ms > 0
    trained = load_run(folder)
    interface = from_metadata(open_onnx(path, threads=1).metadata, "file")
    assert (interface.classes, interface.preprocessing) == (trained.classes, trained.preprocessing)
    assert [file.name for file in tmp_path.iterdir()] == ["digits.onnx"]
    assert str(folder).encode() not in path.read_bytes()


def test_levels_go_in_and_probabilities_come_out_where_asked_a_fixed_number_at_a_time(
    finished: Finished, digits: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "digits.onnx"
    wanted = Wanted(batch=4, takes_levels=True, gives_probabilities=True)
    gate = export_run(finished[0], digits, path, wanted)
    assert gate.file_correct == gate.network_correct
    session = open_onnx(path, threads=1)
    interface = from_metadata(session.metadata, "file")
    images = np.random.default_rng(0).uniform(0, 255, (6, *interface.shape)).astype(np.float32)
    chances = in_batches(session, images, interface.batch)
    assert chances.shape == (6, 10)
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)
    trained = load_run(finished[0])
    mean, std = (
        torch.tensor(value).view(1, -1, 1, 1) for value in (trained.preprocessing.mean, trained.preprocessing.std)
    )
    with torch.inference_mode():
        expected = trained.network.eval()((torch.from_numpy(images) / 255 - mean) / std).softmax(1)
    np.testing.assert_allclose(chances, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda outputs: outputs * 1.001, "on the images its outputs differ by 0.001"),
        (lambda outputs: np.roll(outputs, 1, axis=1), "the network on"),
        (lambda outputs: outputs * np.nan, "differ by inf"),
        (lambda outputs: outputs[:, :-1], "differ by inf"),
    ],
)
def test_what_answers_otherwise_is_not_written_and_an_older_file_is_kept(
    finished: Finished, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: object, said: str
) -> None:
    def open_wrong(content: bytes, *, threads: int) -> Session:
        session = open_onnx(content, threads=threads)

        def call(images: Images) -> Outputs:
            outputs: Outputs = wrong(session(images)).astype(np.float32)  # type: ignore[operator]  # one of those above
            return outputs

        return replace(session, call=call)

    monkeypatch.setattr(exported, "open_onnx", open_wrong)
    path = tmp_path / "digits.onnx"
    path.write_bytes(b"older")
    with pytest.raises(Refused, match="not written, it did not pass the gate") as refused:
        export_run(finished[0], digits, path, Wanted())
    assert said in str(refused.value)
    assert refused.value.gate.faults
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_prints_one_table_and_refuses_by_one_line(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["trifold", "export", str(finished[0]), *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    path = tmp_path / "digits.onnx"
    status, out, _ = run("--out", str(path), "--softmax")
    assert status == 0
    assert "answered as by the network" in out
    assert f"written: {path}" in out
    for arguments, said in [
        (("--out", str(tmp_path / "x.pb")), "must end in .onnx"),
        (("--out", str(tmp_path / "absent" / "x.onnx")), "a folder that is there"),
        (("--batch", "-1"), "batch must be 1 to 4096, or 0 for any, got -1"),
        (("--threads", "0"), "threads must be a whole number from 1 to 1024, got 0"),
    ]:
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    package: str, finished: Finished, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=r"pip install 'trifold\[onnx\]'"):
        export_run(finished[0], digits, tmp_path / "x.onnx", Wanted())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "was not written by trifold export"),
        ("{", "cannot be read"),
        ("[]", "must be a JSON object of format 1"),
        ('{"format": 2}', "must be a JSON object of format 1"),
        ('{"format": 1}', "cannot be read: 'classes'"),
        ('{"format": 1, "classes": [1]}', "classes must be a list of names"),
        ('{"format": 1, "classes": [], "preprocessing": {}, "num_classes": 3}', "preprocessing: fields do not fit"),
    ],
)
def test_metadata_that_are_not_ours_are_one_line(text: str | None, said: str) -> None:
    with pytest.raises(InvalidData, match=r"^f\.onnx: ") as refused:
        from_metadata({} if text is None else {KEY: text}, "f.onnx")
    assert said in str(refused.value)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"hello")
    with pytest.raises(InvalidData, match=r"x\.onnx: ONNX Runtime cannot run it"):
        open_onnx(tmp_path / "x.onnx", threads=1)
