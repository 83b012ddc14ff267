"""Commands on public weights and on files of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trifold.cli.options import json_option, labelled, print_json, print_table
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.weight_sets import WeightSet


@click.group()
def weights() -> None:
    """Public weights of the shipped networks."""


@weights.command(name="list")
@click.argument("pattern", default="*")
@click.option("--source", default="", help="Only those of timm, torchvision, keras, tensorflow or lukemelas.")
@click.option(
    "--min-top1", type=click.FloatRange(0, 100), default=0, help="Only those with at least this published top-1."
)
@json_option
def list_(pattern: str, source: str, min_top1: float, as_json: bool) -> None:
    """Print the weight sets whose network or tag matches PATTERN, such as b0, 'efficientnetv2_*', tf_ns or '*_ap'."""
    from dataclasses import asdict

    from trifold.weight_sets import LAYOUTS, weight_sets

    if source and source not in LAYOUTS:
        raise InvalidInput(f"--source must be {' or '.join(LAYOUTS)}, got {source!r}")
    found = weight_sets(pattern, layout=source, min_top1=min_top1)
    if not found:
        limits = " within these limits" if source or min_top1 else ""
        raise InvalidInput(f"no weight set matches {pattern!r}{limits}; `trifold weights list` prints them all")
    parameters = _parameters(found)
    if as_json:
        print_json(
            [
                {"name": one.name, **asdict(one), "num_classes": one.num_classes, "parameters": count}
                for one, count in zip(found, parameters, strict=True)
            ]
        )
    else:
        _print(found, parameters)


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "layout", required=True, help="trifold, timm, torchvision, lukemelas, keras or tensorflow.")
@click.option("--architecture", help="The network of the weights, where FILE does not say it: a name or a .toml file.")
@click.option("--numerics", help="paper or torch, where FILE does not say it: padding and epsilon of the batch norms.")
@click.option("--normalisation", help="imagenet or half, where FILE does not say it and Keras must know it.")
def convert(
    file: Path, out: Path, layout: str, architecture: str | None, numerics: str | None, normalisation: str | None
) -> None:
    """Write the weights in FILE, of any library, as the file OUT of another one.

    FILE is read whatever library wrote it. OUT is a state dict (.safetensors, .pth) for timm, torchvision and
    lukemelas, .weights.h5 or .h5 for Keras' EfficientNet classes, a checkpoint's prefix for TensorFlow.
    """
    from trifold.baselines import load
    from trifold.network import PAPER_NUMERICS, TORCH_NUMERICS
    from trifold.preprocessing import STANDARD
    from trifold.weights.loading import pretrained, whole_network
    from trifold.weights.writers import write

    known = {"paper": PAPER_NUMERICS, "torch": TORCH_NUMERICS}
    if numerics is not None and numerics not in known:
        raise InvalidInput(f"--numerics must be {' or '.join(known)}, got {numerics!r:.100}")
    if normalisation is not None and (normalisation, "RGB") not in STANDARD:
        raise InvalidInput(f"--normalisation must be imagenet or half, got {normalisation!r:.100}")
    found = pretrained(file)
    network = whole_network(
        found,
        architecture=None if architecture is None else load(architecture)[0],
        numerics=None if numerics is None else known[numerics],
    )
    scale = None if found.mean is None or found.std is None else (found.mean, found.std)
    if normalisation is not None:
        scale = STANDARD[normalisation, "L" if network.in_channels == 1 else "RGB"]
    write(out, network, layout, scale=scale)
    needs = network.numerics
    click.echo(
        f"{out}: {network.architecture.name} for {layout}, {network.num_classes} classes; padding {needs.padding}, "
        f"bn_eps {needs.bn_eps:g}" + ("" if scale is None else f", mean {_numbers(scale[0])}, std {_numbers(scale[1])}")
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _parameters(found: tuple[WeightSet, ...]) -> list[int]:
    """The parameters of each set, its own classifier included."""
    from functools import cache

    from trifold.baselines import find
    from trifold.cost import cost

    @cache
    def count(architecture: str, num_classes: int) -> int:
        return cost(find(architecture), num_classes=num_classes).parameters

    return [count(one.architecture, one.num_classes) for one in found]


def _print(found: tuple[WeightSet, ...], parameters: list[int]) -> None:
    columns = ("architecture", "tag", "resolution", "top-1", "top-5", "also", "parameters", "licence", "source")
    rows = [
        (
            one.architecture,
            one.tag,
            one.preprocessing.resolution,
            one.top1,
            one.top5,
            ", ".join(f"{other.top1:.2f} at {other.preprocessing.resolution}" for other in one.others),
            count,
            one.licence,
            one.source,
        )
        for one, count in zip(found, parameters, strict=True)
    ]
    print_table(labelled(f"{len(rows)} public weight sets", columns, rows, digits=2))
    click.echo(
        "top-1, top-5: percent on ImageNet as each source published them for its own preprocessing; also: at another"
        " resolution; the first set of an architecture is its default"
    )
