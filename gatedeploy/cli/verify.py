"""`gatedeploy verify`: is a bundle what was written, and does it compute here what it should?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gatedeploy.cli.screen import Json, print_json, say, table
from gatedeploy.exporters.checking import verify_bundle
from gatedeploy.exporters.opening import BUNDLE_RUNTIMES


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `gatedeploy export` wrote.")],
    runtime: Annotated[str, typer.Option(help=f"What shall compute: {', '.join(BUNDLE_RUNTIMES)}.")] = "onnxruntime",
    trust: Annotated[
        bool, typer.Option("--trust", help="Run an engine that somebody else built: it is a program.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a bundle on this machine: every file's hash, and that the network computes here what it should.

    The manifest remembers what the network answered to made-up pictures. They are asked one by one, together, and as
    few and as many at once as an engine takes. Exit code 1 when something differs.
    """
    check = verify_bundle(bundle, runtime=runtime, trust=trust)
    if json:
        print_json({"bundle": str(bundle), **asdict(check)})
        return
    table(["output", "difference"], [[name, f"{error:.1e}"] for name, error in check.parity.error.items()])
    say(
        f"{bundle}: {check.files} files, {check.size_bytes:,} bytes, all as their hashes say; {check.runtime} answers "
        f"made-up pictures as when it was written, to {max(check.parity.error.values()):.1e} of the outputs' scale; "
        f"{check.parity.tolerance:.0e} is allowed."
    )
