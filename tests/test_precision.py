"""How a step is computed: autocast and its overflows, memory formats, checkpointed blocks, compiled networks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tasks import state_of, steady_network, task_of, tiny_network, trained
from tests.tiny import QUICK, TINY, digits
from trifold.architecture import to_toml
from trifold.data.dataset import Dataset
from trifold.data.images import Images
from trifold.data.loader import Held
from trifold.errors import InvalidInput
from trifold.preprocessing import plain
from trifold.train.assemble import make_network
from trifold.train.log import read_log
from trifold.train.loop import Training
from trifold.train.record import Plan, read_record
from trifold.train.run import train

__all__ = ["digits"]  # the fixture

STEEP = replace(QUICK, epochs=4, lr=0.02, warmup_epochs=1.0)


# ---- autocast ----


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_loss_falls_in_half_precision_and_the_weights_stay_float32(digits: Dataset, precision: str) -> None:
    task = task_of(digits, replace(STEEP, precision=precision))
    network = steady_network(task)
    kinds: set[torch.dtype] = set()
    network.head.register_forward_hook(lambda *call: kinds.add(call[2].dtype) if network.training else None)
    training, seen = trained(network, task)
    assert kinds == {getattr(torch, precision)}
    assert training.epochs[-1].train_loss < 0.9 * training.epochs[0].train_loss
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32, torch.int64}
    assert not any(step.skipped for step in seen.steps)
    whole, _ = trained(steady_network(task), replace(task, recipe=STEEP))
    assert training.epochs[0].train_loss == pytest.approx(whole.epochs[0].train_loss, rel=0.02)
    assert training.epochs[0].train_loss != whole.epochs[0].train_loss


def test_evaluation_is_in_float32_whatever_the_training(digits: Dataset) -> None:
    task = task_of(digits, replace(QUICK, epochs=1, precision="bfloat16"))
    network, kinds = tiny_network(), set()
    network.head.register_forward_hook(lambda *call: None if network.training else kinds.add(call[2].dtype))
    trained(network, task)
    assert kinds == {torch.float32}


def test_steps_that_overflow_are_skipped_and_the_scale_halved(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss scale of 2^40 overflows float16; each skipped step halves it until gradients fit."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    task = task_of(digits, replace(STEEP, precision="float16", epochs=5, lr=0.003, ema_decay=0.9))
    network = steady_network(task)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    training, seen = trained(network, task)
    skipped = [step.skipped for step in seen.steps]
    count = skipped.index(False)
    assert 14 <= count < 35
    assert training.scaler.get_scale() == 2.0 ** (40 - sum(skipped))
    epochs_lost = count // 7  # in those no weight moved
    assert all(torch.equal(seen.states[epochs_lost - 1][name], tensor) for name, tensor in before.items())
    assert not all(torch.equal(seen.states[-1][name], tensor) for name, tensor in before.items())
    assert all(step.loss < 10 for step in seen.steps)


def test_a_skipped_step_is_in_the_log(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**60))
    recipe = replace(QUICK, epochs=1, precision="float16")
    train(digits, Plan(architecture=TINY, recipe=recipe), run_folder=tmp_path)
    steps = [entry for entry in read_log(tmp_path / "log.jsonl") if entry["type"] == "step"]
    assert [entry["skipped"] for entry in steps] == [True] * 7
    assert read_record(tmp_path / "record.json").asked["recipe"]["precision"] == "float16"


def test_a_scaler_goes_on_where_it_was_saved(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    task = task_of(digits, replace(QUICK, epochs=1, precision="float16"))
    training, _ = trained(tiny_network(), task)
    monkeypatch.undo()
    again = Training(tiny_network(), task)
    again.load_state_dict(training.state_dict())
    assert again.scaler.state_dict() == training.scaler.state_dict()
    assert again.scaler.get_scale() == 2.0**33


def test_a_float16_loss_that_is_no_number_says_so_and_names_bfloat16(digits: Dataset) -> None:
    network = tiny_network()
    with torch.no_grad():
        network.stem.conv.weight.mul_(1e6)  # float16 ends at 65,504
    expected = r"^precision float16 overflowed: the loss is nan at epoch 1 step 1; bfloat16 and float32 have .*$"
    with pytest.raises(InvalidInput, match=expected):
        trained(network, task_of(digits, replace(QUICK, precision="float16")))
    network = tiny_network()
    with torch.no_grad():
        network.stem.conv.weight.mul_(1e6)
    training, _ = trained(network, task_of(digits, replace(QUICK, epochs=1, precision="bfloat16")))
    assert training.epochs[0].train_loss < 10


# ---- memory ----


@pytest.mark.parametrize("channels_last", [True, False])
def test_maps_lie_in_memory_as_the_recipe_says(digits: Dataset, channels_last: bool) -> None:
    recipe = replace(QUICK, epochs=1, batch_size=8, channels_last=channels_last)
    coloured = replace(digits, samples=tuple(replace(sample, mode="RGB") for sample in digits.samples))
    network = make_network(coloured, Plan(architecture=TINY, recipe=recipe), torch.device("cpu"))
    pixels = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = Held(images=Images(pixels=pixels, labels=torch.arange(16) % 10))
    task = replace(task_of(digits, recipe), train=source, minival=source, preprocessing=plain(8, "RGB"))
    found: list[bool] = []

    def look(module: nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
        if module.training:
            found.append(output.is_contiguous(memory_format=torch.channels_last))

    network.stem.register_forward_hook(look)
    network.head.register_forward_hook(look)
    trained(network, task)
    assert found == [channels_last] * 4


def test_both_memory_formats_train_alike(digits: Dataset) -> None:
    one, two = (
        trained(
            make_network(digits, Plan(architecture=TINY, recipe=recipe), torch.device("cpu")), task_of(digits, recipe)
        )[0]
        for recipe in (QUICK, replace(QUICK, channels_last=False))
    )
    assert [e.train_loss for e in two.epochs] == pytest.approx([e.train_loss for e in one.epochs], abs=1e-4)


def test_checkpointed_blocks_train_to_the_same_bits(digits: Dataset) -> None:
    """Dropout, drop path and batch norm included: their second computation draws what the first one drew."""
    states = []
    for on in (False, True):
        recipe = replace(QUICK, epochs=1, drop_path_rate=0.5, grad_checkpointing=on)
        deeper = replace(TINY, stages=(replace(TINY.stages[0], layers=3),))
        network = make_network(digits, Plan(architecture=deeper, recipe=recipe), torch.device("cpu"))
        assert network.grad_checkpointing is on
        trained(network, task_of(digits, recipe))
        states.append(state_of(network))
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


# ---- compiled ----


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_as_the_plain_one_does(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(to_toml(TINY))
    losses = []
    for compiled in ("false", "true"):  # in processes of their own: the shape checks of these tests cannot be compiled
        still = ("shift=0.0", "drop_rate=0.0", "epochs=2", f"compile={compiled}")
        changes = [text for change in still for text in ("--set", change)]
        command = [sys.executable, "-m", "trifold", "train", "digits", "--net", "tiny.toml", "--threads", "1", *changes]
        done = subprocess.run([*command, "--out", compiled], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        entries = read_log(tmp_path / compiled / "log.jsonl")
        losses.append([entry["loss"] for entry in entries if entry["type"] == "step"])
    assert len(losses[0]) == 40
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


def test_compiling_without_a_compiler_is_refused_at_once(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trifold.train.assemble.shutil.which", lambda _: None)
    plan = Plan(architecture=TINY, recipe=replace(QUICK, compile=True))
    with pytest.raises(InvalidInput, match=r"^recipe: compile must be false here: .* C\+\+ compiler, .*, got True$"):
        make_network(digits, plan, torch.device("cpu"))
    assert make_network(digits, replace(plan, recipe=QUICK), torch.device("cpu")).num_classes == 10
