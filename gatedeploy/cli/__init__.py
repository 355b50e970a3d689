"""The command line: the only place that knows every other folder."""

from __future__ import annotations

import sys

from gatedeploy.cli.app import app, run
from gatedeploy.cli.demo import demo
from gatedeploy.cli.export import export, verify
from gatedeploy.cli.inspect import inspect
from gatedeploy.cli.measure import bench, flops
from gatedeploy.cli.prune import prune
from gatedeploy.cli.train import train

for command in (demo, train, prune, export, verify, inspect, flops, bench):
    app.command(epilog="With --debug, at any place, an error shows its traceback.")(command)

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
