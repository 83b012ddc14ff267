"""Commands that look for what would spoil a training, before it begins, or has spoilt one or its use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trifold.cli.options import json_option, labelled, print_json, print_table
from trifold.errors import InvalidInput

if TYPE_CHECKING:
    from trifold.data.scan import Scan
    from trifold.doctor.findings import Check, Finding
    from trifold.doctor.weights import Examination
    from trifold.doctor.weights_given import Given
    from trifold.table import Cell


@click.group()
def doctor() -> None:
    """Look for what would spoil a training, or the use of weights."""


@doctor.command("data")
@click.argument("data")
@click.option("--resolution", type=int, help="Compare the images with this resolution, in pixels.")
@click.option("--skip-bad", is_flag=True, help="Bad images are listed as warnings: they will be left out.")
@json_option
@click.pass_context
def check_images(context: click.Context, data: str, resolution: int | None, skip_bad: bool, as_json: bool) -> None:
    """Count DATA's images and list what is wrong with them; status 1 if any finding is an error."""
    from dataclasses import asdict, replace

    from trifold.data.scan import scan
    from trifold.data.sources import open_data
    from trifold.doctor.data import check_data

    dataset = open_data(data, skip_bad=True)
    findings = check_data(dataset, resolution=resolution)
    if skip_bad:
        findings = tuple(
            replace(finding, severity="warning") if finding.what == "bad file" else finding for finding in findings
        )
    scanned = scan(dataset)
    if as_json:
        print_json({"scan": scan_json(scanned), "findings": [asdict(finding) for finding in findings]})
    else:
        _print_scan(scanned)
        _print_findings(findings)
    context.exit(1 if any(finding.severity == "error" for finding in findings) else 0)


@doctor.command("run")
@click.argument("run")
@click.argument("data", required=False)
@click.option("--range-steps", default=60, show_default=True, help="Of the learning-rate range test; 0: none.")
@click.option("--weights", type=click.Path(), help="The pretrained weights that the run began with.")
@json_option
@click.pass_context
def check_finished(
    context: click.Context, run: str, data: str | None, range_steps: int, weights: str | None, as_json: bool
) -> None:
    """Look at a finished RUN, with DATA or what it was trained on; status 1 if any finding is an error."""
    from dataclasses import asdict

    from trifold.data.sources import open_data
    from trifold.doctor.findings import in_order_of_severity
    from trifold.doctor.run import run_checks

    dataset = None if data is None else open_data(data, skip_bad=True)
    checks = run_checks(run, dataset, range_steps=range_steps, begun_with=weights)
    findings = in_order_of_severity(tuple(finding for check in checks for finding in check.findings))
    if as_json:
        looked_at = [{"what": check.what, "state": check.state, "number": check.number} for check in checks]
        print_json({"checks": looked_at, "findings": [asdict(finding) for finding in findings]})
    else:
        _print_checks(run, checks)
        _print_findings(findings)
    context.exit(1 if any(finding.severity == "error" for finding in findings) else 0)


@doctor.command("weights")
@click.argument("file", type=click.Path())
@click.argument("images", nargs=-1, type=click.Path())
@click.option("--architecture", default="", help="The network, where the file does not say: a name or a .toml file.")
@click.option(
    "--like", default="", help="Settings of this weight set: a tag or a whole name of `trifold weights list`."
)
@click.option("--labels", type=click.Path(), help="A .csv with the columns file and class_index, of every image.")
@click.option("--classes", type=click.Path(), help="Names of the outputs in their order, one a line.")
@click.option("--mean", help="Of pixel values in [0, 1]: one number, or one a channel with commas between.")
@click.option("--std", help="As --mean.")
@click.option("--resolution", type=int, help="Pixels a side.")
@click.option("--crop", help="square, resize, tensorflow or whole.")
@click.option("--interpolation", help="bilinear, bicubic or nearest.")
@click.option("--channels", help="rgb or bgr: the order in which the network is fed.")
@click.option("--padding", help="same, same_static or symmetric.")
@click.option("--bn-eps", type=float, help="Added to the variance in batch norm.")
@json_option
@click.pass_context
def check_file(context: click.Context, /, file: str, images: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Try the settings of a weights FILE and others on photographs IMAGES; status 1 if any finding is an error.

    The settings as given are the file's own, else those of --like, else the paper's; flags stand in their place.
    """
    from trifold.doctor.weights import check_weights
    from trifold.doctor.weights_given import Changes, open_given
    from trifold.doctor.weights_labels import read_classes

    changes = Changes(
        mean=_numbers("--mean", options["mean"]),
        std=_numbers("--std", options["std"]),
        **{name: options[name] for name in ("resolution", "crop", "interpolation", "channels", "padding", "bn_eps")},
    )
    given = open_given(file, architecture=options["architecture"], like=options["like"], changes=changes)
    classes = read_classes(options["classes"]) if options["classes"] else ()
    found = check_weights(
        given,
        images,
        labels=options["labels"],
        classes=classes,
        progress=lambda what: click.echo(f"looking at {what}", err=True),
    )
    if as_json:
        print_json(_examination_json(given, found))
    else:
        _print_examination(file, given, found)
        _print_findings(found.findings)
    context.exit(1 if any(finding.severity == "error" for finding in found.findings) else 0)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers with commas between; None of none. Raises InvalidInput naming the option."""
    if text is None:
        return None
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise InvalidInput(f"{option} must be numbers with commas between, got {text!r}") from None


def _examination_json(given: Given, found: Examination) -> dict[str, Any]:
    from dataclasses import asdict

    trials = [
        {
            "part": trial.part,
            "name": trial.name,
            "distance": trial.distance,
            "behind": trial.behind,
            "standard_error": trial.error,
            "given": trial.given,
            "settings": asdict(trial.settings),
        }
        for trial in found.trials
    ]
    return {
        "architecture": given.network.architecture.name,
        "settings": asdict(given.settings),
        "settings_from": given.said,
        "images": found.images,
        "batch_norms": found.norms,
        "trials": trials,
        "orders": [asdict(order) for order in found.orders],
        "crops": [asdict(crop) | {"sure": crop.sure} for crop in found.crops],
        "findings": [asdict(finding) for finding in found.findings],
    }


PARTS = {
    "input": "normalisation and channels, by the first batch norms",
    "numerics": "padding and batch-norm epsilon, layer by layer",
    "resolution": "resolution, layer by layer",
}


def _print_examination(file: str, given: Given, found: Examination) -> None:
    from trifold.data.decode import printable

    click.echo(
        f"{printable(file)}: {given.network.architecture.name}, {found.norms} batch norms, {found.images} images; "
        f"settings as given are those of {given.said}"
    )
    for part, title in PARTS.items():
        rows: list[tuple[Cell, ...]] = [
            (trial.name, trial.distance, None if trial.given else trial.behind, None if trial.given else trial.error,
             "as given" if trial.given else "")
            for trial in found.trials
            if trial.part == part
        ]  # fmt: skip
        if rows:
            click.echo()
            print_table(labelled(title, ("setting", "distance", "behind", "standard error", ""), rows))
    if found.orders:
        click.echo()
        rows = [(order.name, order.correct, order.total, "as given" if order.given else "") for order in found.orders]
        print_table(labelled("order of the labels", ("order", "right", "of", ""), rows))
    if found.crops:
        click.echo()
        columns = ("crop", "right", "of", "log likelihood", "ahead", "standard error", "")
        rows = [
            (crop.name, crop.correct, crop.total, crop.likelihood, None if crop.given else crop.ahead,
             None if crop.given else crop.error, "as given" if crop.given else "")
            for crop in found.crops
        ]  # fmt: skip
        print_table(labelled("crop and interpolation, by the labels", columns, rows))


def scan_json(scanned: Scan) -> dict[str, Any]:
    """The scan as plain values; a ratio without an end is null, characters that cannot be printed are "?"."""
    from dataclasses import asdict
    from math import isfinite

    from trifold.data.decode import printable

    return {
        **asdict(scanned),
        "name": printable(scanned.name),
        "widths": scanned.widths._asdict(),
        "heights": scanned.heights._asdict(),
        "bad": [{"path": printable(file.path), "reason": file.reason} for file in scanned.bad],
        "equal": [{**group._asdict(), "names": list(map(printable, group.names))} for group in scanned.equal],
        "imbalance": scanned.imbalance if isfinite(scanned.imbalance) else None,
    }


def _print_scan(scanned: Scan) -> None:
    from trifold.data.decode import printable

    splits = [split for split in scanned.counts if split]
    by_split = list(scanned.counts.values())
    rows: list[tuple[Cell, ...]] = []
    for name in by_split[0]:
        numbers = [counts[name] for counts in by_split]
        rows.append((name, *(numbers if splits else ()), sum(numbers)))
    totals = [sum(counts.values()) for counts in by_split]
    rows.append(("all", *(totals if splits else ()), sum(totals)))
    title = f"{printable(scanned.name)}: {scanned.images:,} images"
    print_table(labelled(title, ("class", *splits, "images"), rows))
    sides = [("width", *scanned.widths), ("height", *scanned.heights)]
    click.echo()
    print_table(labelled("sizes in pixels", ("side", "smallest", "median", "largest"), sides))
    click.echo()
    modes = ", ".join(f"{count:,} {mode}" for mode, count in scanned.modes.items())
    click.echo(f"modes: {modes}; largest class over smallest: {scanned.imbalance:.1f}")
    click.echo(f"left out: {len(scanned.bad):,} bad files, {scanned.ignored:,} files that are no images")


def _print_checks(run: str, checks: tuple[Check, ...]) -> None:
    from trifold.data.decode import printable

    rows: list[tuple[Cell, ...]] = [(check.what, check.state, check.number) for check in checks]
    print_table(labelled(printable(run), ("check", "state", "measured"), rows))


def _print_findings(findings: tuple[Finding, ...]) -> None:
    click.echo()
    for finding in findings:
        click.echo(f"{click.style(finding.severity, bold=True)}: {finding.what}: {finding.text}")
        click.echo(f"    {finding.advice}")
