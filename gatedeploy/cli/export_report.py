"""What `gatedeploy export` has written, for people and for programs."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatedeploy.cli.screen import say, table
from gatedeploy.exporters.manifest import Engine, Reduction, largest
from gatedeploy.exporters.precision.verdict import lost_told
from gatedeploy.exporters.reading import Bundle

WORST = 10
"""How many of the layers that err most are shown; `--json` has all."""

OF_SIZES = ("int64", "int32", "bool")
"""Types in which TensorRT works out how large tensors are and where to cut them."""


def export_to_plain(bundle: Bundle) -> dict[str, Any]:
    """The document of `--json`."""
    manifest = bundle.manifest
    listed = {
        key: {name: asdict(entry) for name, entry in entries.items()}
        for key, entries in (("files", manifest.files), ("engines", manifest.engines))
    }
    proof = {
        "verification": asdict(manifest.verification),
        "reduction": asdict(manifest.reduction) if manifest.reduction else None,
    }
    return {"bundle": str(bundle.path), "precision": manifest.precision, **listed, **proof}


def tell(bundle: Bundle, file: Path) -> None:
    """Say what was written; `file` is what it was made of."""
    manifest = bundle.manifest
    if manifest.reduction:
        _tell_reduction(manifest.precision, manifest.reduction)
    for name, built in manifest.engines.items():
        say(f"{name}: {_engine(built)}")
    rows = [[name, f"{entry.size_bytes:,} bytes"] for name, entry in manifest.files.items()]
    table([str(bundle.path), "size"], rows)
    checked = manifest.verification
    say(
        f"Checked{' in float32' if manifest.reduction else ''} in {checked.runtime} against PyTorch at batch "
        f"{' and '.join(checked.error)}: the same to {largest(checked.error):.1e} of the outputs' scale."
    )
    say(f"Next: gatedeploy verify {shlex.quote(str(bundle.path))}, or gatedeploy bench {shlex.quote(str(file))}")


def _engine(built: Engine) -> str:
    """What was built, in a sentence or two."""
    what = f"built with {built.runtime} {built.version} for {', '.join(built.targets) or 'the targets of its choice'}"
    batches = f"batch {' / '.join(map(str, built.batches))}" if built.batches else "any batch"
    error = largest(built.error)
    proof = "not run" if error is None else f"run, and the same to {error:.1e} of the outputs' scale"
    if built.lost:
        proof = f"run; in it {_lost(built.lost)}"
    return f"{what}, {batches}; {proof}.{_layers(built.layers)}"


def _layers(counts: dict[str, int]) -> str:
    """How many layers compute in each type; those that work out sizes and positions, in whole numbers, as one."""
    types = [f"{count} in {dtype}" for dtype, count in counts.items() if dtype not in OF_SIZES]
    others = sum(count for dtype, count in counts.items() if dtype in OF_SIZES)
    return f" Layers: {', '.join(types)}; {others} more work out sizes." if types else ""


def _tell_reduction(precision: str, found: Reduction) -> None:
    """What each task reaches now, how much is reduced, which layers stayed in float32, and which err most."""
    table(["task", "metric", "fp32", precision], found.rows)
    say(f"Of what each task is judged by, {_lost(found.lost)} (at most {found.max_drop:g} % allowed).")
    total = found.layers + len(found.kept)
    say(f"In {precision}: {found.layers} of {total} layers.")
    if found.layers < total / 2:
        say(f"That is little: at this --max-drop, {precision} is hardly of use to the network.")
    if found.kept:
        say(f"In fp32 stayed: {', '.join(found.kept)}.")
    if found.layer_errors:
        worst = [[name, f"{error:.1e}"] for name, error in list(found.layer_errors.items())[:WORST]]
        table(["layer", f"error, that layer alone in {precision}"], worst)


def _lost(lost: dict[str, float]) -> str:
    return ", ".join(lost_told(task, drop) for task, drop in lost.items())
