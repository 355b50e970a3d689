"""The command line: the only place that knows every other folder."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""What a shell calls a process that Ctrl-C ended; the command-line library answers Ctrl-C with it."""

STOPPED = "interrupted; what stands under a final name is complete"


def main() -> None:
    """Run the command line of this process."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # else Ctrl-C is ignored, as in the background
        signal.signal(signal.SIGINT, _stop)
    from gatedeploy.cli.app import run  # takes seconds, in which libraries twist or swallow a KeyboardInterrupt

    signal.signal(signal.SIGINT, usual)
    asked_to_end = _end_as_by_ctrl_c()
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        _leave(128 + signal.SIGTERM if asked_to_end else INTERRUPTED)
    sys.exit(code)


def _end_as_by_ctrl_c() -> list[int]:
    """Clean up when asked to end (SIGTERM), too, as schedulers and containers ask; the list then holds the signal."""
    seen: list[int] = []

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # who asks twice does not want to wait
        seen.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
    return seen


def _stop(*_: object) -> None:
    print(f"error: {STOPPED}", file=sys.stderr)
    _leave(INTERRUPTED)


def _leave(code: int) -> None:
    """End at once: Python forgets the exit code where an interruption came in the middle of an `exec`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
