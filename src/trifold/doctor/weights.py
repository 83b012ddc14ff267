"""Whether weights are used as they were made: what photographs and labels say of a file and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL.Image import Image

from trifold.data.images import normalise
from trifold.data.resize import to_levels
from trifold.doctor.findings import Finding, in_order_of_severity
from trifold.doctor.weights_crops import SURE as SURE_OF_CROP
from trifold.doctor.weights_crops import Crop, try_crops
from trifold.doctor.weights_given import Given, open_images
from trifold.doctor.weights_labels import SURE as SURE_OF_ORDER
from trifold.doctor.weights_labels import Order, read_labels, try_orders
from trifold.doctor.weights_trials import (
    Trial,
    better,
    given_of,
    scale_of,
    standard_errors,
    told_apart,
    try_input,
    try_numerics,
    try_resolutions,
)
from trifold.errors import InvalidInput

POOR = 0.8
"""Distance of the nearest input beyond which nothing that was tried fits. EfficientNet-B4's is 0.16 where it is right,
and 1.2 or more where the scale is wrong (results/real_b4)."""

SCALES_APART = 30.0
"""Ratio of two standard deviations from which pixel values of 0 to 1 and of 0 to 255 were confused."""

PADDINGS = {"same": "TensorFlow's", "symmetric": "torch's own"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was tried, nearest first within each part, and what follows from it; orders, crops: empty without labels."""

    images: int
    norms: int
    trials: tuple[Trial, ...]
    orders: tuple[Order, ...]
    crops: tuple[Crop, ...]
    findings: tuple[Finding, ...]


def check_weights(
    given: Given,
    paths: Sequence[str | Path],
    *,
    labels: str | Path | None = None,
    classes: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Examination:
    """The settings that photographs and labels speak for, beside those as given.

    paths: 8 to 256 photographs such as the network was trained on. labels: a .csv as `read_labels` takes it.
    classes: names of the outputs in their order, else those of the file. progress: told what begins.

    Without labels, batch-norm statistics speak: normalisation, order of channels, padding, epsilon, and a resolution
    that is far off. They do not tell crops and interpolations apart; labelled images do, if their order is right.

    Raises InvalidData if an image or label cannot be used; InvalidInput if labels need a classifier that the file
    lacks, or the names are not as many as its outputs.
    """
    classes, outputs = tuple(classes) or given.classes, given.network.num_classes
    if labels is not None and not given.classifies:
        raise InvalidInput("labels need the network's classifier, which the file does not hold")
    if classes and given.classifies and len(classes) != outputs:
        raise InvalidInput(f"classes must be as many names as the network has outputs ({outputs}), got {len(classes)}")
    images = open_images(paths)
    wanted = None if labels is None else read_labels(labels, paths, classes)
    say = progress or (lambda _: None)
    say("normalisation and channels")
    inputs = try_input(given, images)
    best = inputs[0]
    settings = (better(inputs) or given_of(inputs)).settings
    say("padding and epsilon")
    numerics = try_numerics(given, images, settings)
    say("resolution")
    resolutions = try_resolutions(given, images, (better(numerics) or given_of(numerics)).settings)
    orders: list[Order] = []
    crops: list[Crop] = []
    if wanted is not None:
        say("labels")
        orders = try_orders(_predicted(given, images), wanted, outputs, classes)
        if orders[0].given:
            say("crops")
            crops = try_crops(given, images, wanted)
    if best.distance > POOR:  # then nothing that hangs on it can be believed
        of_statistics = [*_unfit(given, best, len(images))]
    else:
        of_statistics = [*_input(inputs, len(images)), *_numerics(numerics), *_resolution(resolutions)]
    found = [
        *of_statistics,
        *_order(orders),
        *_crop(crops),
        *_not_told(inputs, numerics, resolutions, labelled=bool(orders), crops=crops),
    ]
    return Examination(
        images=len(images),
        norms=len(given.norms),
        trials=(*inputs, *numerics, *resolutions),
        orders=tuple(orders),
        crops=tuple(crops),
        findings=in_order_of_severity(tuple(found)),
    )


@torch.inference_mode()
def _predicted(given: Given, images: Sequence[Image]) -> torch.Tensor:
    """The most probable output of each image, with the settings as given."""
    preprocessing = given.settings.preprocessing
    found = []
    for image in images:
        levels = to_levels(image, preprocessing)[None]
        levels = levels.flip(1) if given.settings.channels == "bgr" else levels
        found.append(given.network(normalise(levels, preprocessing)).argmax(1))
    return torch.cat(found)


def _compared(one: Trial, best: Trial) -> str:
    return (
        f"statistics lie {one.distance:.3g} away with {one.name} as given, {best.distance:.3g} with {best.name} "
        f"({standard_errors(best, one):.0f} standard errors apart)"
    )


def _unfit(given: Given, best: Trial, images: int) -> Iterator[Finding]:
    yield Finding(
        severity="error",
        what="statistics",
        text=f"of nothing that was tried do the {images} images' statistics fit the stored ones: {best.name} is "
        f"nearest with a distance of {best.distance:.3g}, over {POOR:g}",
        advice=f"check that these are tensors of {given.network.architecture.name}, and the images such as it was "
        "trained on",
    )


def _input(trials: Sequence[Trial], images: int) -> Iterator[Finding]:
    own, best = given_of(trials), better(trials)
    if best is None:
        return
    only_channels = scale_of(own.settings).close_to(scale_of(best.settings))
    # Where the scale is wrong, both orders of channels may fit alike: then only the scale is named.
    rivals = [trial.name for trial in trials if trial is not best and not told_apart(best, trial)]
    unsure = f"; not told apart from {', '.join(rivals)}" if rivals else ""
    yield Finding(
        severity="error",
        what="channels" if only_channels else "normalisation",
        text=f"{images} images' {_compared(own, best)}{unsure}",
        advice=_advice(own, best, only_channels=only_channels),
    )


def _advice(own: Trial, best: Trial, *, only_channels: bool) -> str:
    """What was done wrong, by how the two settings stand to each other."""
    if only_channels:
        order = best.settings.channels.upper()
        return f"red and blue are swapped: feed {order} (OpenCV reads BGR, Pillow RGB)"
    given, right = scale_of(own.settings), scale_of(best.settings)
    ratio = given.std[0] / right.std[0]
    if given.close_to(right.twice()):
        start = "images are normalised twice; once is right: "
    elif right.close_to(given.twice()):
        start = "the weights were trained on images normalised twice, or a network that normalises is to be fed so: "
    elif ratio > SCALES_APART and right.std[0] < 1 / SCALES_APART:
        start = "the weights take pixel values up to 255, or their network normalises: do not normalise before it: "
    elif ratio > SCALES_APART:
        start = "pixel values are divided by 255 twice; once is right: "
    elif 1 / ratio > SCALES_APART:
        start = "pixel values are to be divided by 255 first: "
    else:
        start = "another normalisation than the weights were trained with: "
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in right)
    return f"{start}of pixels in [0, 1], mean {mean}; std {std}; {best.settings.channels.upper()}"


def _numerics(trials: Sequence[Trial]) -> Iterator[Finding]:
    own, best = given_of(trials), better(trials)
    if best is None:
        return
    given, right = own.settings.numerics, best.settings.numerics
    for what, advice in (
        ("padding", f"the weights want {right.padding} padding ({PADDINGS[right.padding]})"),
        ("bn_eps", f"the weights want a batch-norm epsilon of {right.bn_eps:g}"),
    ):
        wrong = replace(right, **{what: getattr(given, what)})
        rival = next(trial for trial in trials if trial.settings.numerics == wrong)
        if rival is not best and told_apart(best, rival):
            yield Finding(severity="error", what=what, text=f"layer by layer, {_compared(own, best)}", advice=advice)


def _resolution(trials: Sequence[Trial]) -> Iterator[Finding]:
    best = better(trials) if trials else None
    if best is not None:
        yield Finding(
            severity="warning",
            what="resolution",
            text=f"layer by layer, {_compared(given_of(trials), best)}",
            advice="the weights were trained on things of another size in pixels; labelled images say what is best",
        )


def _order(orders: Sequence[Order]) -> Iterator[Finding]:
    if not orders:
        return
    own, best = next(order for order in orders if order.given), orders[0]
    number = f"{own.correct} of {own.total} images are right in the order as given"
    if not best.given and best.sure > SURE_OF_ORDER:
        yield Finding(
            severity="error",
            what="label_order",
            text=f"{number}, {best.correct} with {best.name} ({best.sure:.1f} standard errors apart)",
            advice="match outputs and labels in that order, or better by name",
        )


def _crop(crops: Sequence[Crop]) -> Iterator[Finding]:
    if not crops or crops[0].sure <= SURE_OF_CROP:
        return
    own, best = next(crop for crop in crops if crop.given), crops[0]
    yield Finding(
        severity="warning",
        what="crop",
        text=f"the right outputs are likelier with {best.name} than with {own.name} as given ({best.sure:.1f} standard "
        f"errors; {best.correct} of {best.total} images right, not {own.correct})",
        advice="use the crop and interpolation that the weights were published with (`--like`, `--crop`)",
    )


def _not_told(
    inputs: Sequence[Trial],
    numerics: Sequence[Trial],
    resolutions: Sequence[Trial],
    *,
    labelled: bool,
    crops: Sequence[Crop],
) -> Iterator[Finding]:
    """What these images leave open, in one note."""
    left = []
    for trials in (inputs, numerics):
        best = better(trials) or given_of(trials)
        rivals = [trial.name for trial in trials if trial is not best and not told_apart(best, trial)]
        if rivals:
            left.append(f"{best.name} from {', '.join(rivals)}")
    if not resolutions:
        left.append("one resolution from another, for which these images are too small")
    near = [crop.name for crop in crops if not crop.given and abs(crop.sure) <= SURE_OF_CROP]
    if near:
        left.append(f"{next(crop.name for crop in crops if crop.given)} from {', '.join(near)}")
    if not crops:
        left.append("crops and interpolations, which leave the statistics as they are: labels in the right order tell")
    if not labelled:
        left.append("orders of labels, without labels")
    if not left:
        return
    yield Finding(
        severity="note",
        what="not_told",
        text=f"not told apart: {'; '.join(left)}",
        advice="more images (up to 256) tell more; labelled ones tell crops, too",
    )
