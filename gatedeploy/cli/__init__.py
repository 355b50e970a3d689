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
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        _leave()
    sys.exit(code)


def _stop(*_: object) -> None:
    print(f"error: {STOPPED}", file=sys.stderr)
    _leave()


def _leave() -> None:
    """End at once: Python forgets the exit code where an interruption came in the middle of an `exec`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
