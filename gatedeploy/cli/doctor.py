"""`gatedeploy doctor`: what is installed, and what is missing for what."""

from __future__ import annotations

from dataclasses import asdict

from gatedeploy.cli.screen import Json, print_json, say, table
from gatedeploy.doctor import diagnose
from gatedeploy.errors import CheckError


def doctor(json: Json = False) -> None:
    """Tell which libraries are installed and load, which GPUs there are, and what is missing for which command.

    Exit code 1 when something that is installed does not work.
    """
    found = diagnose()
    if json:
        print_json(asdict(found))
    else:
        say(f"gatedeploy {found.gatedeploy}, Python {found.python}, {found.system}")
        rows = [[each.name, each.version or "not installed", each.details] for each in found.libraries]
        table(["library", "version", ""], rows)
        for gpu in found.gpus:
            say(f"GPU: {gpu.name}, compute capability {gpu.compute_capability}")
        if not found.gpus:
            say("No GPU of NVIDIA's was found.")
        table(["command", ""], [[use, missing or "ready"] for use, missing in found.uses.items()])
    if found.warnings:
        raise CheckError("; ".join(found.warnings))
