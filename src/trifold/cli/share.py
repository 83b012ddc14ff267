"""The command that gives a trained model to others."""

from __future__ import annotations

import click


@click.command()
@click.argument("run")
@click.argument("repository", required=False)
@click.option("--licence", required=True, help="Of the weights: apache-2.0, mit, cc-by-4.0, other …")
@click.option("--out", default="", help="Folder to write.  [default: shared/ in the run's folder]")
@click.option("--private", is_flag=True, help="Make a repository that others cannot see.")
def share(run: str, repository: str | None, licence: str, out: str, private: bool) -> None:
    """Write RUN's model as one file with its card, and push both to REPOSITORY (OWNER/NAME) on the hub.

    Without REPOSITORY only the folder is written. `trifold predict hf:OWNER/NAME IMAGE` uses what was pushed.
    """
    from pathlib import Path

    from trifold.train.share import push_to_hub, write_shared

    folder = Path(out) if out else (Path(run) if Path(run).is_dir() else Path(run).parent) / "shared"
    if repository is None:
        click.echo(f"model and card: {write_shared(run, folder, licence=licence)}")
    else:
        click.echo(f"pushed: {push_to_hub(run, repository, folder, licence=licence, private=private)}")
