"""The program itself: its commands, and what becomes of errors.

Exit codes: 0 done, 1 a check failed, 2 wrong input, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gatedeploy import __version__
from gatedeploy.errors import GatedeployError

INTERRUPTED = 130
"""What a shell calls a process that Ctrl-C ended; the command-line library answers Ctrl-C with it."""

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


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    debug = "--debug" in arguments
    try:
        app([argument for argument in arguments if argument != "--debug"])
    except SystemExit as end:
        if end.code == INTERRUPTED:
            return _fail(
                "interrupted; what stands under a final name is complete. A training goes on with --resume", INTERRUPTED
            )
        return end.code if isinstance(end.code, int) else 1
    except GatedeployError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        if debug:
            raise
        return _fail(
            f"unexpected {type(error).__name__}: {error}. This is a mistake in gatedeploy; run it again with --debug "
            "and report what it prints",
            1,
        )
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
