"""The command line: the only place that knows every other folder."""

from __future__ import annotations

import sys

from gatedeploy.cli.app import app, run
from gatedeploy.cli.prune import prune

app.command()(prune)


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
