"""`gatedeploy export` and `gatedeploy verify`: bundles out, bundles checked."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gatedeploy.cli.screen import Json, note, print_json, say, table
from gatedeploy.errors import InputError
from gatedeploy.exporters.bundle import export as write
from gatedeploy.exporters.reading import verify_bundle


def export(
    file: Annotated[Path, typer.Argument(help="A collapsed network that `gatedeploy prune` wrote.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX; the same as --format onnx.")] = False,
    formats: Annotated[list[str] | None, typer.Option("--format", help="A format to write; may be repeated.")] = None,
    precision: Annotated[str, typer.Option(help="Of weights and arithmetic.")] = "fp32",
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.", show_default="bundle/ beside the file")
    ] = None,
    json: Json = False,
) -> None:
    """Export a collapsed network as a bundle: the network, its description, class names and a README.

    The exported network is run and compared with PyTorch at two batch sizes before the folder appears.
    """
    wanted = list(dict.fromkeys([*(["onnx"] if onnx else []), *(formats or [])]))
    if not wanted:
        raise InputError("no format was asked for; say --onnx, or --format with its name")
    note(f"Exporting {file}")
    bundle = write(file, out or file.parent / "bundle", formats=wanted, precision=precision)
    checked = bundle.manifest.verification
    if json:
        files = {name: asdict(entry) for name, entry in bundle.manifest.files.items()}
        print_json({"bundle": str(bundle.path), "files": files, "verification": asdict(checked)})
        return
    rows = [[name, f"{entry.size_bytes:,} bytes"] for name, entry in bundle.manifest.files.items()]
    table([str(bundle.path), "size"], rows)
    worst = max(error for errors in checked.error.values() for error in errors.values())
    say(
        f"Checked in {checked.runtime} against PyTorch at batch {' and '.join(checked.error)}: "
        f"the same to {worst:.1e} of the outputs' scale."
    )
    say(f"Next: gatedeploy verify {shlex.quote(str(bundle.path))}, or gatedeploy bench {shlex.quote(str(file))}")


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `gatedeploy export` wrote.")], json: Json = False
) -> None:
    """Check a bundle on this machine: every file's hash, and that the network computes here what it should.

    The manifest remembers what the network answered to a made-up picture. Exit code 1 when something differs.
    """
    check = verify_bundle(bundle)
    if json:
        print_json({"bundle": str(bundle), **asdict(check)})
        return
    table(["output", "difference"], [[name, f"{error:.1e}"] for name, error in check.parity.error.items()])
    say(
        f"{bundle}: {check.files} files, {check.size_bytes:,} bytes, all as their hashes say; {check.runtime} computes "
        f"what was computed when it was written (at most {check.parity.tolerance:.0e} apart)."
    )
