"""The command that measures a network's accuracy: a run's, a published weight set's, or another library's file's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import json_option, labelled, open_images, print_json, print_table
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.preprocessing import Preprocessing
    from trifold.train.measured import Measured
    from trifold.train.subject import Subject

SHOWN = 10
"""Classes in the table unless --classes says otherwise."""

_PUBLISHED_ONLY = {"like": "--like", "resolution": "--resolution", "classes": "--classes", "device": "--device"}


@click.command()
@click.argument("weights")
@click.argument("data", required=False)
@click.option("--architecture", default="", metavar="NET", help="WEIGHTS are another library's file, of this network.")
@click.option("--like", default="", metavar="TAG", help="What such a file does not say is as in this published set.")
@click.option("--resolution", type=int, default=0, help="Another one at which the set's accuracy was published.")
@click.option("--classes", default="", metavar="N|all", help=f"Classes shown, the worst first  [{SHOWN}].")
@click.option("--device", default="", help="auto, cpu or cuda  [auto].")
@click.option("--skip-bad", is_flag=True, help="Leave bad images out, named and counted, instead of stopping.")
@json_option
def evaluate(weights: str, data: str | None, architecture: str, skip_bad: bool, as_json: bool, **options: Any) -> None:
    """Print the accuracy of WEIGHTS on held-out images.

    WEIGHTS: a run, on the data it was trained on or on DATA; a published set such as efficientnet_b0.tf_aa
    (`trifold weights list`), or with --architecture a weights file of any library, on DATA: images in folders that are
    named by synset, index or name of their class.
    """
    from trifold.train.subject import is_run, open_file, open_published

    if is_run(weights, architecture):
        for name, option in _PUBLISHED_ONLY.items():
            if options[name]:
                raise InvalidInput(f"{option} is for published weights and other libraries' files, {weights} is a run")
        _evaluate_run(weights, data, skip_bad=skip_bad, as_json=as_json)
        return
    if options["like"] and not architecture:
        raise InvalidInput("--like needs --architecture: a published set has its own preprocessing")
    shown = _shown(options["classes"])
    if data is None:
        raise InvalidInput(f"DATA must name the images on which {weights} is evaluated")
    if architecture:
        subject = open_file(weights, architecture, like=options["like"], resolution=options["resolution"])
    else:
        subject = open_published(weights, resolution=options["resolution"])
    if not as_json:
        click.echo(f"{subject.name}: {_in_words(subject)}")
    found = _measured(subject, data, device=options["device"] or "auto", skip_bad=skip_bad)
    if as_json:
        print_json({**_described(subject), **found.to_dict()})
    else:
        _print(subject, found, shown)


def _measured(subject: Subject, data: str, *, device: str, skip_bad: bool) -> Measured:
    from trifold.data.decode import printable
    from trifold.train.machine import Machine
    from trifold.train.measured import find_outputs, measure
    from trifold.train.processes import ALONE
    from trifold.train.progress import progress_bar

    place = Machine(device=device).torch_device(ALONE)
    num_outputs = subject.network.num_classes
    dataset = open_images(
        data, skip_bad=skip_bad, check=lambda classes: find_outputs(classes, num_outputs, printable(data))
    )
    with progress_bar(subject.name) as progress:
        return measure(subject, dataset, device=place, progress=progress)


def _shown(classes: str) -> int | None:
    """How many classes are shown, None for all."""
    if classes == "all":
        return None
    if classes and not (classes.isdecimal() and classes.isascii()):
        raise InvalidInput(f"--classes must be a whole number from 0, or all, got {classes!r}")
    return int(classes) if classes else SHOWN


def _described(subject: Subject) -> dict[str, Any]:
    """What was evaluated and how, for JSON."""
    from dataclasses import asdict

    return {
        "weights": subject.name,
        "architecture": subject.network.architecture.name,
        "preprocessing": subject.preprocessing.to_dict(),
        "preprocessing_from": subject.preprocessing_from,
        "numerics": asdict(subject.network.numerics),
        "numerics_from": subject.numerics_from,
        "published_of": subject.published_of,
    }


def _in_words(subject: Subject) -> str:
    """The preprocessing and the numerics on one line, each with who says so."""
    numerics = subject.network.numerics
    return (
        f"{_prepared(subject.preprocessing)} ({subject.preprocessing_from}); padding {numerics.padding}, bn_eps"
        f" {numerics.bn_eps:g} ({subject.numerics_from})"
    )


def _prepared(one: Preprocessing) -> str:
    side = one.resolution
    who = {"torch": "torch", "pillow": "Pillow", "tensorflow": "TensorFlow 1"}[one.resizer]
    how = f"{one.interpolation} by {who}"
    crop = {
        "resize": f"shorter side resized to {one.resize}, {how}, centre {side} pixels",
        "square": f"centre square resized to {side} pixels, {how}",
        "tensorflow": f"centre {side / (side + 32):.1%} of the shorter side resized to {side} pixels, {how}",
        "whole": f"squashed to {side} pixels, {how}",
    }[one.crop]
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (one.mean, one.std))
    return f"{crop}; mean {mean}, std {std}"


def _print(subject: Subject, found: Measured, shown: int | None) -> None:
    """Accuracy beside what was published, then the worst classes."""
    rows = [
        (
            name,
            100 * own.share,
            *(100 * end for end in own.interval),
            _percent(published),
            _percent(own.share, published),
        )
        for name, own, published in (
            ("top-1", found.top1, found.published_top1),
            ("top-5", found.top5, found.published_top5),
        )
        if own is not None
    ]
    columns = ("%", "measured", "95 % from", "to", "published", "difference")
    title = (
        f"{found.top1.total:,} images of {len(found.classes):,} of the {found.num_outputs:,} classes, matched by"
        f" {found.matched_by}"
    )
    print_table(labelled(title, columns, rows, digits=2))
    click.echo(_compared(subject, found))
    click.echo(f"calibration error {found.calibration_error:.2%} (expected, 15 bins)")
    worst = found.worst[:shown]
    if worst:
        print_table(labelled(_title(found, len(worst)), _COLUMNS, [_row(*one) for one in worst], digits=1))


_COLUMNS = ("class", "output", "images", "top-1 %", "top-5 %", "most often taken for")


def _row(
    name: str, output: int, label: str, images: int, top1: int, top5: int | None, mistaken_for: str
) -> tuple[str | int | float | None, ...]:
    """A class's line: `measured.ClassShare` in percent, the data's own name only where the label does not hold it."""
    called = label if label.startswith(name) else f"{name} ({label})"
    return called, output, images, 100 * top1 / images, None if top5 is None else 100 * top5 / images, mistaken_for


def _title(found: Measured, shown: int) -> str:
    total = len(found.classes)
    return "every class, the worst first" if shown == total else f"the worst {shown} of {total:,} classes"


def _percent(value: float | None, less: float | None = 0.0) -> float | None:
    return None if value is None or less is None else 100 * (value - less)


def _compared(subject: Subject, found: Measured) -> str:
    """What the interval says of the published top-1, and whether these are the images that it was measured on."""
    published = found.published_top1
    if published is None:
        return "no accuracy was published of these weights under this preprocessing"
    low, high = found.top1.interval
    verdict = "within the interval: no difference is shown" if low <= published <= high else "outside the interval"
    same = (len(found.classes), found.top1.total) == (1000, 50_000)
    other = "" if same else "; these are not all of the 50,000 images of 1,000 classes that it was measured on"
    return f"the published top-1 of {subject.published_of} is {verdict}{other}"


def _evaluate_run(run: str, data: str | None, *, skip_bad: bool, as_json: bool) -> None:
    """Prints a run's accuracy on the data it was trained on, or on others."""
    from trifold.train.use import evaluate as evaluated
    from trifold.train.use import trained_on

    tested = evaluated(run, open_images(data or trained_on(run), skip_bad=skip_bad))
    if as_json:
        print_json(
            {
                "accuracy": tested.accuracy,
                "interval": list(tested.interval),
                "correct": tested.correct,
                "total": tested.total,
                "per_class": tested.per_class,
                "confusion": tested.confusion,
            }
        )
        return
    low, high = tested.interval
    rows = [
        (name, sum(row), row[i], None if share is None else 100 * share)
        for i, (row, (name, share)) in enumerate(zip(tested.confusion, tested.per_class.items(), strict=True))
    ]
    title = (
        f"accuracy {tested.accuracy:.2%} ({tested.correct} of {tested.total}; 95 % interval {low:.1%} to {high:.1%})"
    )
    print_table(labelled(title, ("class", "images", "correct", "%"), rows, digits=1))
