"""Candidates as runners of one runtime, each checked against the network it was made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.exporters.checking import verify_bundle
from gatedeploy.exporters.reference import reference_picture
from gatedeploy.exporters.to_onnx import OPSET, export_onnx
from gatedeploy.modes import quiet
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import Array, Runner
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from gatedeploy.specs import InputSpec

SEED = 0
ONE_THREAD: dict[str, Callable[[Path], Runner]] = {
    "onnxruntime": lambda file: OnnxRuntimeRunner(file, threads=1),
    "openvino": lambda file: OpenVinoRunner(file, threads=1, batch=1),
}
"""By runtime, what opens an ONNX file to answer one picture at a time."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A candidate that is ready to answer.

    Args:
        name: the candidate's.
        runners: one request runs all of them, one after the other.
        size_bytes: of their ONNX files.
        parity: per output, how far ONNX Runtime is from PyTorch, relative to the output's scale.
    """

    name: str
    runners: tuple[Runner, ...]
    size_bytes: int
    parity: dict[str, float]


def open_candidate(candidate: Candidate, info: ModelInfo, folder: Path, threads: int, stack: ExitStack) -> Opened:
    """Export a candidate's networks as ONNX and open them in ONNX Runtime.

    Args:
        candidate: what to run.
        info: its input and tasks.
        folder: where the files go; must live as long as the runners.
        threads: of every runner.
        stack: closes the runners.

    Raises:
        InputError: a network cannot be exported.
        MissingExtraError: onnxruntime is not installed.
        CheckError: ONNX Runtime computes something else than PyTorch, or than a bundle's manifest remembers.
    """
    if candidate.file is not None:
        parity = verify_bundle(candidate.file.parent, threads=threads).parity.error
        runner = stack.enter_context(OnnxRuntimeRunner(candidate.file, threads=threads, name=candidate.name))
        return Opened(candidate.name, (runner,), candidate.file.stat().st_size, dict(parity))
    home = Path(tempfile.mkdtemp(dir=folder))
    runners: list[Runner] = []
    parity = {}
    for number, network in enumerate(candidate.networks):
        file = home / f"{number}.onnx"
        if candidate.kind.startswith("moe"):
            export_at_batch_one(network, info.input, file)
        else:
            export_onnx(network, info, file)
        runners.append(stack.enter_context(OnnxRuntimeRunner(file, threads=threads, name=candidate.name)))
        parity |= _parity(network, runners[-1], info.input)
    size = sum(file.stat().st_size for file in home.iterdir())
    return Opened(candidate.name, tuple(runners), size, parity)


def picture(input: InputSpec) -> Array:
    """What every candidate is asked about: `(1, channels, height, width)` float32 noise, the same on every machine."""
    return reference_picture(input, 1, SEED)


def export_at_batch_one(network: nn.Module, input: InputSpec, file: Path) -> None:
    """Experts are gathered picture by picture, which ONNX's convolution can say of one picture only."""
    example = torch.zeros(1, *input.shape)
    with quiet(), torch.no_grad():
        outputs = list(flat_predictions(network(example)))
        exported = torch.export.export(network, (example,), strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            input_names=[input.name],
            output_names=outputs,
        )
        assert program is not None
        program.save(file, external_data=False)


def _parity(network: nn.Module, runner: Runner, input: InputSpec) -> dict[str, float]:
    image = picture(input)
    dtype = next((weight.dtype for weight in network.parameters() if weight.is_floating_point()), torch.float32)
    with torch.no_grad():
        expected = flat_predictions(network(torch.from_numpy(image).to(dtype)))
    parity = compare(expected, runner.infer({input.name: image}), FLOAT32)
    parity.check(f"{runner.name} in ONNX Runtime")
    return parity.error
