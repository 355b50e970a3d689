"""The program itself: its commands, and what becomes of errors.

Exit codes: 0 done, 1 a check failed, 2 wrong input, 130 interrupted, 143 asked to end (SIGTERM).
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from gatedeploy import __version__
from gatedeploy.cli import INTERRUPTED, STOPPED
from gatedeploy.cli.demo import demo
from gatedeploy.cli.doctor import doctor
from gatedeploy.cli.export import export
from gatedeploy.cli.inspect import inspect
from gatedeploy.cli.measure import bench, flops
from gatedeploy.cli.prune import prune
from gatedeploy.cli.sweep import sweep
from gatedeploy.cli.train import train
from gatedeploy.cli.tune import tune
from gatedeploy.cli.verify import verify
from gatedeploy.errors import GatedeployError

SAME = ". The same command goes on with it"
GOES_ON = {"train": ". The training goes on with --resume", "demo": SAME, "sweep": SAME}
"""What to do about an interruption, by command; others begin again."""

app = typer.Typer(
    name="gatedeploy",
    help="Train gated multi-task networks, collapse them into one plain network, deploy and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read by `run`, which takes `--debug` at any place."""


for command in (demo, train, prune, export, verify, inspect, flops, bench, tune, sweep, doctor):
    app.command(epilog="With --debug, at any place, an error shows its traceback.")(command)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    words = [argument for argument in arguments if argument != "--debug"]
    try:
        app(words)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            command = next((word for word in words if not word.startswith("-")), "")
            return _fail(f"{STOPPED}{GOES_ON.get(command, '')}", INTERRUPTED)
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:
        if len(words) < len(arguments):
            traceback.print_exc()
        return _explained(error)
    return 0


def _explained(error: Exception) -> int:
    if isinstance(error, GatedeployError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    return _fail(
        f"unexpected {type(error).__name__}: {error}. This is a mistake in gatedeploy; run it again with --debug and "
        "report what it prints",
        1,
    )


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
