"""The command line: parse, call, print; every module but click is imported inside the command that needs it."""

from __future__ import annotations

import sys
import time

import click

from trifold.cli import (
    cam,
    describe,
    directions,
    doctor,
    evaluate,
    export,
    family,
    miniature,
    search,
    share,
    study,
    training,
    transfer,
    weights,
)
from trifold.cli.options import BEGAN, is_first
from trifold.errors import Failed, InvalidInput, Stopped

_NO_MEMORY = ("allocate memory", "out of memory")


def main() -> None:
    """Runs a command; every refusal is one line on stderr: status 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    try:
        status = trifold.main(standalone_mode=False)
    except InvalidInput as error:
        _stop(str(error), 2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(2) from None
    except click.ClickException as error:
        _stop(" ".join(error.format_message().split()), error.exit_code)
    except Stopped as stop:
        _stop(str(stop), stop.status)
    except Failed as error:
        _stop(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        _stop("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        _stop("out of memory; a smaller batch_size, resolution or network needs less", 1)
    except OSError as error:
        _stop(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    raise SystemExit(status if isinstance(status, int) else 0)


def _stop(text: str, status: int) -> None:
    if is_first():  # what all processes of a training meet, one says
        click.echo(f"trifold: {' '.join(text.splitlines())}", err=True)
    raise SystemExit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="trifold")
@click.pass_context
def trifold(context: click.Context) -> None:
    """Scale a convolutional network's depth, width and resolution together, to a budget."""
    context.meta[BEGAN] = time.monotonic()


COMMANDS = (
    describe.show,
    describe.list_,
    weights.weights,
    describe.scale,
    family.family,
    describe.explain,
    describe.paper,
    training.fit,
    training.train,
    evaluate.evaluate,
    training.predict,
    share.share,
    export.export,
    cam.cam,
    doctor.doctor,
    directions.directions,
    study.coefficients,
    study.ablate,
    search.search,
    transfer.transfer,
    miniature.miniature,
    study.report,
)
for command in COMMANDS:
    trifold.add_command(command)
