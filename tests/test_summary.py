"""The page of a finished run says what the run came to."""

from __future__ import annotations

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny import digits, finished, plan
from trifold.layers import Numerics
from trifold.train.assemble import disagreements
from trifold.train.folder import EVENTS, LOG, PAGE, RECIPE
from trifold.train.log import read_log
from trifold.train.record import Record
from trifold.train.summary import _events, _rates
from trifold.weights.readers import Pretrained

__all__ = ["digits", "finished", "plan"]


def test_the_page_has_the_runs_figures_and_pictures(finished: tuple[Path, Record]) -> None:
    folder, record = finished
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert f"{record.result.test.correct:,} of {record.result.test.total:,} images" in page
    assert record.id in page
    assert f"{record.result.cost['parameters']:,}" in page
    wrong = record.result.test.total - record.result.test.correct
    assert wrong > 8  # two epochs do not learn the digits, so there are pairs to show
    assert page.count("data:image/png;base64,") >= 8
    assert not re.search(r"(src|href)=\"?https?:", page)


def test_tensorboard_reads_every_step(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    steps = [entry for entry in read_log(folder / LOG) if entry["type"] == "step"]
    events = EventAccumulator(str(folder / EVENTS)).Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(1, len(steps) + 1))


def test_the_recipe_says_what_it_changes(finished: tuple[Path, Record]) -> None:
    folder, _ = finished
    lines = (folder / RECIPE).read_text(encoding="utf-8").splitlines()
    assert "epochs = 2  # small has 25" in lines
    assert "batch_size = 32  # small has 64" in lines
    assert "lr = 0.003" in lines


def test_events_are_what_is_out_of_the_ordinary() -> None:
    entries: list[dict[str, object]] = [
        {"type": "start"},
        {"type": "skipped", "path": "a.png", "reason": "a.png: not an image"},
        {"type": "step", "epoch": 1, "step": 1, "lr": 0.1, "loss": 2.0},
        {"type": "step", "epoch": 1, "step": 2, "lr": 0.1, "loss": 2.0, "skipped": True},
        {"type": "resumed", "epoch": 1, "step": 2},
    ]
    found = _events(entries, 3, 5)
    assert [event.when for event in found] == [
        "before training",
        "epoch 1, step 2",
        "epoch 1, after step 2",
        "epoch 3",
    ]
    assert "a.png: not an image" in found[0].what
    assert "5 epochs" in found[3].what
    assert _events(entries[:1], 5, 5) == ()


def test_rates_are_thinned_and_keep_their_steps() -> None:
    entries = [{"type": "step", "epoch": 1, "step": i, "lr": float(i), "loss": 1.0} for i in range(1, 5001)]
    rates = _rates(entries)
    assert len(rates.steps) <= 2000
    assert rates.steps[:2] == (1, 4)
    assert [float(step) for step in rates.steps] == list(rates.values)


def test_weights_of_other_numerics_are_named() -> None:
    theirs = Numerics(bn_eps=1e-5, bn_momentum=0.1, padding="symmetric")
    weights = Pretrained(tensors={}, description="", numerics=theirs, mean=(0.5,) * 3, std=(0.5,) * 3)
    said = disagreements(weights, Numerics(bn_eps=1e-3, padding="same"), "imagenet", "RGB")
    assert [line.split("--set ")[-1] for line in said[:2]] == ["bn_eps=1e-05", "padding=symmetric"]
    assert "(0.5, 0.5, 0.5)" in said[2]
    assert disagreements(weights, theirs, "half", "RGB") == ()
    assert disagreements(weights, theirs, "measured", "RGB") == ()
