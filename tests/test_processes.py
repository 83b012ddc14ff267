"""Training in two processes: what they tell each other, exact evaluation, one of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import multiprocessing as mp

from tests import spawned
from tests.tiny import TINY
from trifold import weights
from trifold.architecture import to_toml
from trifold.data.digits import open_digits
from trifold.errors import InvalidData, InvalidInput
from trifold.train.log import read_log
from trifold.train.machine import Machine, default_threads
from trifold.train.processes import ALONE, Processes, from_environment, from_first, gathered, summed
from trifold.train.recipes import find_recipe
from trifold.train.record import Plan, read_record
from trifold.train.run import train

CHANGES = {"epochs": 4, "batch_size": 64, "ema_decay": 0.9, "drop_path_rate": 0.1}
STEPS = 4 * 20  # 1,258 training digits


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nothing listens to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = tuple(server.getsockname()[1] for server in sockets)
    for server in sockets:
        server.close()
    return found


# ---- two processes in the middle of the library ----


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found; see `spawned.answers`."""
    folder = tmp_path_factory.mktemp("answers")
    context = mp.get_context("spawn")
    ports = free_ports(2)
    both = [context.Process(target=spawned.work, args=(rank, 2, ports, str(folder))) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    found: list[dict[str, Any]] = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    found[0]["lost"] = (folder / "lost-0.txt").read_text()
    return found


def close(one: dict[str, Tensor], other: dict[str, Tensor], *, but: str = "!", atol: float) -> bool:
    """Whether all tensors but some are equal within the tolerance."""
    assert one.keys() == other.keys()
    return all(torch.allclose(one[name], other[name], rtol=0, atol=atol) for name in one if but not in name)


def test_an_odd_number_of_images_is_predicted_once_each_in_order_on_every_process(
    answers: list[dict[str, Any]],
) -> None:
    labels = spawned.numbered_images().labels
    alone = spawned.Known(shift=0)
    task = spawned.numbered_task(ALONE)
    from trifold.train.evaluate import predictions

    expected = predictions(alone, task.minival, task)
    assert torch.equal(expected.argmax(1), labels)
    for rank, found in enumerate(answers):
        assert torch.equal(found["chances"], expected)  # the second's buffer was another until then
        assert sorted(found["seen"]) == list(range(rank, spawned.NUM_IMAGES, 2))
    assert Counter(answers[0]["seen"] + answers[1]["seen"]) == Counter(range(517))


def test_what_processes_tell_each_other_arrives_whole_and_the_same(answers: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(answers):
        assert found["processes"] == Processes(rank=rank, count=2, local_rank=rank)
        assert found["summed"] == [3.0, 0.2, 2.0**-59]
        assert [rows.flatten().tolist() for rows in found["gathered"]] == [[0], [0, 10], list(range(0, 70, 10))]
        assert found["from_first"] == {"made by": 0}
        assert found["refused"] == "the first process refuses"


def test_a_process_alone_has_nobody_to_ask() -> None:
    rows = torch.arange(3)
    assert gathered(ALONE, rows) is rows
    assert summed(ALONE, [1.5]) == [1.5]
    assert from_first(ALONE, lambda: "x") == "x"


def test_two_processes_take_the_step_of_one_over_the_same_images(answers: list[dict[str, Any]]) -> None:
    """211 images: 106 and 105, or six uneven parts; a step of 0.5 times the gradient agrees within 1e-6."""
    weighted, plain = spawned.one_step(ALONE), spawned.one_step(ALONE, balance="none")
    assert not close(weighted, plain, atol=1e-4)
    for found in answers:
        assert close(found["weighted step"], weighted, atol=1e-6)
        assert close(found["plain step"], plain, atol=1e-6)


def test_both_processes_have_the_same_bits_after_a_step(answers: list[dict[str, Any]]) -> None:
    for name in ("weighted step", "plain step"):
        assert close(answers[0][name], answers[1][name], atol=0)
    assert close(answers[0]["head alone"], answers[1]["head alone"], but="running", atol=0)


def test_the_head_alone_then_all_is_trained_by_two_as_by_one_in_two_parts(answers: list[dict[str, Any]]) -> None:
    """Two epochs of a step each; statistics differ, as one process updates them twice a step: weights within 1e-6."""
    alone = spawned.one_step(ALONE, head_epochs=1, epochs=2, freeze_bn=False, ema_decay=0.5, accumulate=2)
    head = spawned.one_step(ALONE, head_epochs=1, epochs=1, freeze_bn=False, ema_decay=0.5, accumulate=2)
    assert not close(alone, head, but="classifier", atol=1e-4)
    for found in answers:
        apart = {name: float((found["head alone"][name] - tensor).abs().max()) for name, tensor in alone.items()}
        assert [name for name in apart if apart[name] > 1e-6 and "running" not in name and "num_" not in name] == []
        assert max(apart[name] for name in apart if "running_mean" in name) > 1e-4


def test_no_epochs_runner_outlives_it(answers: list[dict[str, Any]]) -> None:
    assert [found["runners left"] for found in answers] == [0, 0]


def test_a_lost_process_is_one_clear_line(answers: list[dict[str, Any]]) -> None:
    said = answers[0]["lost"]
    assert said.startswith("process 0 of 2 lost the others: ")
    assert said.endswith("; the same command goes on")
    assert "\n" not in said
    assert ".cc" not in said  # where in gloo's source it was noticed
    assert len(said) < 200


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_an_environment_that_is_no_torchruns_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "two")
    with pytest.raises(InvalidInput, match=r"^RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers: .*'two'$"):
        from_environment()


def test_processes_share_the_cores() -> None:
    assert default_threads(10**9, Processes(count=64)) == 1
    assert default_threads(10**9, ALONE) == torch.get_num_threads()


# ---- two processes under torchrun ----


class Launch:
    """A training of the digits under torchrun, two processes of a thread each."""

    def __init__(self, folder: Path, out: Path, *, restarts: int = 0, more: tuple[str, ...] = ()) -> None:
        (folder / "tiny.toml").write_text(to_toml(TINY))
        changes = [text for name, value in CHANGES.items() for text in ("--set", f"{name}={value}")]
        self.out = out
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--monitor-interval", "0.1"),
                *("--master-port", str(free_ports(1)[0]), "--max-restarts", str(restarts), "-m"),
                *("trifold", "train", "digits", "--net", "tiny.toml", "--threads", "1", "--out", str(out)),
                *("--checkpoint-every", "0", *changes, *more),
            ],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Status, stdout and stderr."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err

    def steps_logged(self) -> int:
        """How many steps stand in the log so far."""
        log = self.out / "log.jsonl"
        return log.read_text().count('"type": "step"') if log.exists() else 0

    def wait_for_steps(self, count: int) -> None:
        """Returns when so many steps are logged."""
        while self.steps_logged() < count and self.process.poll() is None:
            time.sleep(0.01)

    def worker(self, rank: int) -> int:
        """The process id of one of the two."""
        parent = self.process.pid
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if f"\0RANK={rank}\0" in "\0" + Path(f"/proc/{child}/environ").read_text():
                return int(child)
        raise ProcessLookupError(f"torchrun has no process of rank {rank}")


def of_the_run(err: str) -> list[str]:
    """The lines on stderr that are the trainings', not torchrun's own."""
    return [line for line in err.splitlines() if line.startswith(("trifold:", "recipe "))]


def bits(folder: Path) -> dict[str, Tensor]:
    return dict(weights.load(folder / "weights.safetensors")[0].state_dict())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A run of two processes that nothing befell, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    status, out, err = Launch(folder, folder / "run").finish()
    assert status == 0, err
    return folder / "run", out, err


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The same run, of which one process was killed, begun again by torchrun; and a copy from after the kill."""
    folder = tmp_path_factory.mktemp("killed")
    launch = Launch(folder, folder / "run", restarts=1, more=("--overwrite",))
    launch.wait_for_steps(25)
    os.kill(launch.worker(1), signal.SIGKILL)
    (folder / "copy").mkdir()
    for name in ("checkpoint.pt", "checkpoint.previous.pt", "log.jsonl"):  # the log may be ahead of them, not behind
        shutil.copy(folder / "run" / name, folder / "copy" / name)
    status, _, err = launch.finish()
    assert status == 0, err
    return folder / "run", folder / "copy", err


def test_two_processes_finish_and_log_each_step_once(finished: tuple[Path, str, str]) -> None:
    log = read_log(finished[0] / "log.jsonl")
    steps = [(entry["epoch"], entry["step"]) for entry in log if entry["type"] == "step"]
    assert steps == [(epoch, step) for epoch in range(1, 5) for step in range(1, 21)]
    assert [entry["type"] for entry in log if entry["type"] != "step"] == ["start", *["epoch"] * 4, "test"]
    record = read_record(finished[0] / "record.json")
    assert record.result.computed["processes"] == 2
    assert record.result.test.total == record.result.images["test"] == 359  # odd, and each once


def test_only_the_first_process_prints(finished: tuple[Path, str, str]) -> None:
    _, out, err = finished
    for text, said in (("test accuracy ", out), ("run folder: ", out), ("recipe small with ", err)):
        assert said.count(text) == 1


def test_two_processes_train_as_one_does_in_two_parts(finished: tuple[Path, str, str], tmp_path: Path) -> None:
    """The same parts, seeds and batch statistics: losses agree within 1e-4 over 80 steps.

    Running statistics, which one process updates twice a step, differ, and with them what minival says.
    """
    recipe = find_recipe("small", TINY, {**CHANGES, "accumulate": 2})
    record = train(open_digits(), Plan(architecture=TINY, recipe=recipe), run_folder=tmp_path / "one")
    one, two = (
        [entry["loss"] for entry in read_log(folder / "log.jsonl") if entry["type"] == "step"]
        for folder in (tmp_path / "one", finished[0])
    )
    assert len(one) == len(two) == STEPS
    assert two[0] == pytest.approx(one[0], abs=1e-6)
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4
    assert record.result.images == read_record(finished[0] / "record.json").result.images


def test_a_run_of_which_a_process_was_killed_ends_with_the_same_bits(
    finished: tuple[Path, str, str], killed: tuple[Path, Path, str]
) -> None:
    whole, again = bits(finished[0]), bits(killed[0])
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    one, two = (
        [entry for entry in read_log(folder / "log.jsonl") if entry["type"] == "step"]
        for folder in (finished[0], killed[0])
    )
    assert two == one
    resumed = [entry for entry in read_log(killed[0] / "log.jsonl") if entry["type"] == "resumed"]
    assert len(resumed) == 1
    assert (resumed[0]["epoch"], resumed[0]["step"]) >= (2, 3)  # not from the beginning
    first, second = (read_record(folder / "record.json") for folder in (finished[0], killed[0]))
    assert first.result.test == second.result.test


def test_the_survivor_says_in_one_line_that_it_lost_the_other(killed: tuple[Path, Path, str]) -> None:
    lines = [line for line in of_the_run(killed[2]) if line.startswith("trifold:")]
    assert len(lines) <= 1  # none where torchrun ended it before it noticed
    assert all("process 0 of 2 lost the others: " in line or "stopped by SIGTERM" in line for line in lines)
    assert "Traceback" not in killed[2]


def test_a_run_of_two_processes_goes_on_with_one_only_if_asked(killed: tuple[Path, Path, str]) -> None:
    folder = killed[1]
    recipe = find_recipe("small", TINY, CHANGES)
    plan = Plan(architecture=TINY, recipe=recipe)
    with pytest.raises(
        InvalidData, match=r"copy: this run was begun with processes 2, and now it is 1: .*--inexact$"
    ) as no:
        train(open_digits(), plan, run_folder=folder, machine=Machine(threads=1))
    assert "\n" not in str(no.value)
    record = train(open_digits(), plan, run_folder=folder, machine=Machine(threads=1, inexact=True))
    log = read_log(folder / "log.jsonl")
    steps = [(entry["epoch"], entry["step"]) for entry in log if entry["type"] == "step"]
    assert steps == [(epoch, step) for epoch in range(1, 5) for step in range(1, 21)]
    assert record.result.epochs == 4


def test_batch_norm_over_all_processes_is_refused_on_a_cpu(tmp_path: Path) -> None:
    plan = Plan(architecture=TINY, recipe=replace(find_recipe("small", TINY), sync_bn=True))
    with pytest.raises(
        InvalidInput, match=r"^recipe: sync_bn must be false on a CPU: torch has it for GPUs only, got True$"
    ):
        train(open_digits(), plan, run_folder=tmp_path / "run", machine=Machine(device="cpu"))
    assert not (tmp_path / "run").exists()
