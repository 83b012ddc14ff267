"""A run given to others: one file that is the whole model, its card, pushed to the hub and fetched from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.hub import ASKED, serving
from tests.tiny import TINY, digits, finished, plan
from trifold import weights
from trifold.cli import main
from trifold.data.dataset import Dataset
from trifold.data.digits import open_digits
from trifold.errors import InvalidData, InvalidInput
from trifold.network import build
from trifold.train.record import Record
from trifold.train.share import CARD, from_hub, write_shared
from trifold.train.use import load_run, predict
from trifold.weights.fetch import FILE, place

__all__ = ["digits", "finished", "plan"]  # the fixtures

Finished = tuple[Path, Record]


@pytest.fixture(scope="module")
def shared(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shared(finished[0], tmp_path_factory.mktemp("shared") / "digits", licence="apache-2.0")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("images") / "digit.png"
    open_digits().samples[7].open().save(file)
    return file


def test_one_file_is_the_whole_model(shared: Path, finished: Finished, image: Path) -> None:
    folder, record = finished
    assert sorted(file.name for file in shared.iterdir()) == [CARD, FILE]
    network, metadata = weights.load(shared / FILE)
    said = {name: json.loads(text) for name, text in metadata.items()}
    assert network.architecture == TINY
    assert said["licence"] == "apache-2.0"
    assert said["recipe"] == record.asked["recipe"]
    assert said["training"]["run"] == record.id
    assert said["training"]["data"] == "digits"
    assert said["training"]["images"] == record.result.images
    assert said["training"]["tested"]["correct"] == record.result.test.correct
    assert said["accuracy"]["test"] == record.accuracy
    assert said["training"]["versions"] == record.result.versions
    assert predict(shared / FILE, [image], top=3) == predict(folder, [image], top=3)


def test_the_card_is_what_the_hub_reads_and_says_what_a_user_must_know(shared: Path, finished: Finished) -> None:
    _, record = finished
    text = (shared / CARD).read_text(encoding="utf-8")
    one = ModelCard(text)
    head, body = vars(one.data), one.text
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "trifold"
    assert head["pipeline_tag"] == "image-classification"
    (result,) = head["eval_results"]
    assert (result.dataset_name, result.metric_type) == ("digits", "accuracy")
    assert result.metric_value == pytest.approx(record.accuracy, abs=1e-6)
    result_line = next(line for line in body.splitlines() if line.startswith("Accuracy on its"))
    assert f"{record.result.test.total} test images" in result_line
    assert f"**{100 * record.accuracy:.2f} %**" in result_line
    assert "| resolution | 8 |" in body
    assert f"{record.result.cost['parameters']:,} parameters" in body
    assert "10 classes: 0, 1, 2" in body


def test_where_the_data_lie_is_not_told(finished: Finished, tmp_path: Path) -> None:
    network, metadata = weights.load(finished[0] / "weights.safetensors")
    assert network.architecture == TINY
    assert json.loads(metadata["training"])["data"] == "digits"
    assert not any(str(finished[0].parent) in text for text in metadata.values())


def test_what_was_pushed_is_had_back_from_the_hub(
    shared: Path, finished: Finished, image: Path, tmp_path: Path
) -> None:
    content = (shared / FILE).read_bytes()
    revision = "0123456789abcdef0123456789abcdef01234567"
    code = (
        "import sys\nfrom trifold import from_hub\nfrom trifold.train.use import predict\n"
        "sys.stdout.write(str(from_hub('owner/digits').classes) + str(predict('hf:owner/digits', sys.argv[1:])))"
    )
    files = {f"/owner/digits/resolve/{name}/{FILE}": content for name in ("main", revision)}
    with serving(files) as address:
        more = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "TRIFOLD_CACHE": ""}
        done = subprocess.run(
            [sys.executable, "-c", code, str(image)],
            env={**os.environ, **more}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == str(load_run(finished[0]).classes) + str(predict(finished[0], [image]))


def test_a_push_that_is_refused_says_where_the_folder_lies(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving({}) as address:
        done = subprocess.run(
            [sys.executable, "-m", "trifold", "share", finished[0], "owner/digits", "--licence", "mit", "--out", out],
            env={**os.environ, "HF_ENDPOINT": address, "HF_TOKEN": "hf_none", "HF_HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "/api/repos/create" in ASKED
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("trifold: owner/digits: cannot be pushed: the hub answers 401; log in by `hf auth login`; ")
    assert line.endswith(str(out))
    assert (out / FILE).exists()


@pytest.mark.parametrize("licence", ["", "all rights reserved", "mit\nlicense: other", "é"])
def test_a_licence_that_is_no_identifier_is_refused(finished: Finished, tmp_path: Path, licence: str) -> None:
    with pytest.raises(InvalidInput, match=r"licence must be an identifier such as apache-2\.0, mit or other, got"):
        write_shared(finished[0], tmp_path / "out", licence=licence)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "digits", "a/b/c", "owner/", "owner/na me", "../..", "hf:owner/name"])
def test_a_repository_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="repository must be OWNER/NAME as the hub allows it, got"):
        from_hub(name)


def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.save(tmp_path / "bare.safetensors", build(TINY, num_classes=3, seed=0))
    with pytest.raises(
        InvalidData, match=r"bare\.safetensors: was not written by a run: its metadata has no 'classes'"
    ):
        write_shared(tmp_path / "bare.safetensors", tmp_path / "out", licence="mit")
    monkeypatch.setenv("TRIFOLD_CACHE", str(tmp_path))
    (tmp_path / "bare.safetensors").rename(place("hf:owner/bare"))
    with pytest.raises(InvalidData, match="was not written by a run"):
        from_hub("owner/bare")


def test_the_command_writes_the_folder(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["trifold", "share", str(finished[0]), "--licence", "mit", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"model and card: {out}\n"
    assert (out / CARD).read_text(encoding="utf-8").startswith("---\n")


def test_a_folder_that_cannot_be_written_is_one_line(finished: Finished, tmp_path: Path, digits: Dataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="file/out: cannot be written: Not a directory"):
        write_shared(finished[0], tmp_path / "file" / "out", licence="mit")
