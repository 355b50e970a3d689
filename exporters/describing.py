"""Write down all that is known of an exported network: a manifest that lists no files yet."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatedeploy.artifact import ModelInfo
from gatedeploy.exporters.manifest import Costs, Manifest, Reduction, Verification
from gatedeploy.exporters.verification import Case, reference_of
from gatedeploy.files import sha256
from gatedeploy.graph.cost import cost
from gatedeploy.program import Program, flat_predictions
from gatedeploy.runners.base import TensorSpec
from gatedeploy.specs import finite


@dataclass(frozen=True)
class Proof:
    """What was measured of an exported network.

    Args:
        outputs: what it returns, in order.
        verification: how far it is from PyTorch.
        reduction: what reduced precision costs; None for float32.
        cases: what other runtimes shall compute: what PyTorch does, or in reduced precision what this one did.
    """

    outputs: tuple[TensorSpec, ...]
    verification: Verification
    reduction: Reduction | None
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Args:
        gated: what it cost as trained, see `Costs`.
        file: what it was read from; None where it was no file.
    """

    gated: Mapping[str, int]
    file: Path | None


def describe(
    program: Program, info: ModelInfo, precision: str, proof: Proof, origin: Origin, size_bytes: int
) -> Manifest:
    """The manifest of a bundle that holds ONNX, without its engines and files.

    Args:
        program: the network, in float32.
        info: its tasks, class names, preprocessing and metrics.
        precision: of the exported network.
        proof: what was measured of that.
        origin: where it comes from.
        size_bytes: of the network's files.
    """
    owners = {task: flat_predictions({task: prediction}) for task, prediction in program.outputs.items()}
    counted = cost(program)
    return Manifest(
        formats=("onnx",),
        precision=precision,
        input=info.input,
        tasks=info.tasks,
        outputs=proof.outputs,
        task_of={name: task for task, flat in owners.items() for name in flat},
        costs=Costs(counted.macs, counted.params, size_bytes, {key: int(value) for key, value in origin.gated.items()}),
        metrics={task: finite({name: float(value) for name, value in of.items()}) for task, of in info.metrics.items()},
        flipped_gates=info.flipped_gates,
        tools=_tools(),
        source={"file": origin.file.name, "sha256": sha256(origin.file)} if origin.file else {},
        reduction=proof.reduction,
        verification=proof.verification,
        reference=reference_of(proof.cases, precision, proof.reduction),
        engines={},
        files={},
    )


def _tools() -> dict[str, str]:
    import numpy
    import onnx
    import onnxruntime
    import onnxscript
    import torch

    import gatedeploy

    modules: dict[str, Any] = {"gatedeploy": gatedeploy, "torch": torch, "onnx": onnx, "onnxscript": onnxscript}
    modules |= {"onnxruntime": onnxruntime, "numpy": numpy}
    return {"python": platform.python_version(), **{name: str(tool.__version__) for name, tool in modules.items()}}
