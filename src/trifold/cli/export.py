"""The command that writes a run's network for another engine, behind a gate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from trifold.cli.options import json_option, labelled, open_images, print_json, print_table

if TYPE_CHECKING:
    from trifold.train.gate import Gate


@click.command()
@click.argument("run")
@click.argument("data", required=False)
@click.option(
    "--out", default="", metavar="FILE.onnx", help="File to write.  [default: network.onnx in the run's folder]"
)
@click.option("--batch", default=0, help="Images a call; 0 means any number  [0].")
@click.option("--levels", is_flag=True, help="Take pixel levels 0 to 255 and normalise them inside the graph.")
@click.option("--softmax", is_flag=True, help="Give probabilities instead of logits.")
@click.option("--threads", default=1, show_default=True, help="Threads on which the gate times it.")
@json_option
def export(
    run: str, data: str | None, out: str, batch: int, levels: bool, softmax: bool, threads: int, as_json: bool
) -> None:
    """Write RUN's network as ONNX, and show that it answers as the network itself does.

    On the held-out images of the data it was trained on, or of DATA, and on noise, in ONNX Runtime: the largest
    difference, the accuracy and the time of both. A file that does not pass is not written.
    """
    from pathlib import Path

    from trifold.train.exported import Refused, Wanted, export_run
    from trifold.train.progress import progress_bar
    from trifold.train.use import trained_on, weights_file

    wanted = Wanted(batch=batch, takes_levels=levels, gives_probabilities=softmax, threads=threads)
    path = Path(out) if out else weights_file(run).parent / "network.onnx"
    dataset = open_images(data or trained_on(run), skip_bad=False)
    try:
        with progress_bar("gate") as progress:
            gate = export_run(run, dataset, path, wanted, progress=progress)
    except Refused as refused:
        _show(refused.gate, dataset.name, as_json=as_json)
        raise
    _show(gate, dataset.name, as_json=as_json)
    click.echo(f"written: {path}", err=as_json)


def _show(gate: Gate, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(gate), "faults": list(gate.faults)})
        return
    rows = (
        ("right, of the held-out images", gate.network_correct, gate.file_correct),
        ("answered as by the network", gate.images, gate.same_answers),
        ("largest difference on them, over the largest output", None, f"{gate.real_difference:.1e}"),
        ("the same on noise", None, f"{gate.random_difference:.1e}"),
        (f"one image, ms, {gate.threads} thread{'s' * (gate.threads > 1)}", gate.network_ms, gate.file_ms),
    )
    title = f"{gate.images} held-out images of {name}"
    print_table(labelled(title, ("", "torch", f"{gate.engine} {gate.version}"), rows))
