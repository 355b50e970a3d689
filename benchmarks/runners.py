"""Candidates as runners of one runtime, each checked against the network it was made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.candidates import Candidate
from gatedeploy.benchmarks.latency import Latency
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.errors import check_known
from gatedeploy.exporters.checking import verify_bundle
from gatedeploy.exporters.reference import reference_picture
from gatedeploy.exporters.to_onnx import OPSET, export_onnx
from gatedeploy.modes import quiet
from gatedeploy.parity import FLOAT32, compare
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import Array, Runner
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from gatedeploy.runners.in_openvino import OpenVinoRunner
from gatedeploy.runners.in_torch import TorchRunner
from gatedeploy.specs import InputSpec

SEED = 0
RUNTIMES = {"onnxruntime": "cpu", "openvino": "openvino"}
"""By runtime the extra of gatedeploy that brings it; each is called as the library that is imported."""
RUNTIME = "onnxruntime"


@dataclass(frozen=True, eq=False)
class Opened:
    """A candidate that is ready to answer.

    Args:
        name: the candidate's.
        runners: one request runs all of them, one after the other.
        files: their ONNX files; none where PyTorch runs the network itself.
        any_batch: whether these take batches of any size.
        parity: per output, how far the runtime is from PyTorch, relative to the output's scale.
    """

    name: str
    runners: tuple[Runner, ...]
    files: tuple[Path, ...]
    any_batch: bool
    parity: dict[str, float]

    @property
    def size_bytes(self) -> int | None:
        """Of the files, with what lies beside them; None without files."""
        if not self.files:
            return None
        beside = [file.with_name(f"{file.name}.data") for file in self.files]
        return sum(file.stat().st_size for file in (*self.files, *beside) if file.is_file())


def open_candidate(
    candidate: Candidate, info: ModelInfo, folder: Path, runtime: str, threads: int, stack: ExitStack
) -> Opened:
    """Export a candidate's networks as ONNX and open them to answer one picture at a time.

    Args:
        candidate: what to run.
        info: its input and tasks.
        folder: where the files go; must live as long as the runners.
        runtime: of `RUNTIMES`.
        threads: of every runner.
        stack: closes the runners.

    Raises:
        InputError: a network cannot be exported.
        MissingExtraError: the runtime is not installed.
        CheckError: it computes something else than PyTorch, or than a bundle's manifest remembers.
    """
    name = candidate.name
    if candidate.file is not None:
        parity = verify_bundle(candidate.file.parent, runtime=runtime, threads=threads).parity.error
        runner = stack.enter_context(open_file(candidate.file, runtime, threads, name=name))
        return Opened(name, (runner,), (candidate.file,), True, dict(parity))
    if candidate.kind == "compiled":
        runner = stack.enter_context(TorchRunner(candidate.networks[0], info.input, threads, name))
        return Opened(name, (runner,), (), False, {})
    home = Path(tempfile.mkdtemp(dir=folder))
    runners: list[Runner] = []
    files, parity = [], {}
    any_batch = not candidate.kind.startswith("moe")
    for number, network in enumerate(candidate.networks):
        files.append(home / f"{number}.onnx")
        if any_batch:
            export_onnx(network, info, files[-1])
        else:
            export_at_batch_one(network, info.input, files[-1])
        runners.append(stack.enter_context(open_file(files[-1], runtime, threads, name=name)))
        parity |= _parity(network, runners[-1], info.input)
    return Opened(name, tuple(runners), tuple(files), any_batch, parity)


def measure_in_turns(named: Mapping[str, tuple[Candidate, ModelInfo]], baseline: str, plan: Plan) -> Latency:
    """Time single requests of candidates in ONNX Runtime on one thread; see `latency.measure`.

    Args:
        named: by name, what runs, with its tasks and the picture, which all share.
        baseline: the candidate to compare with.
        plan: how long.
    """
    with tempfile.TemporaryDirectory(prefix="gatedeploy-turns-") as folder, ExitStack() as stack:
        runners = {
            name: open_candidate(replace(candidate, name=name), info, Path(folder), RUNTIME, 1, stack).runners
            for name, (candidate, info) in named.items()
        }
        _, info = named[baseline]
        return measure(runners, picture(info.input), baseline, plan)


def open_file(file: Path, runtime: str, threads: int, batch: int = 1, name: str | None = None) -> Runner:
    """Open an ONNX file.

    Args:
        file: the file.
        runtime: of `RUNTIMES`.
        threads: of a request.
        batch: how many pictures a request will have; some runtimes compile for it.
        name: what reports call it; the runtime's when None.

    Raises:
        InputError: no such runtime, or it cannot load the file.
        MissingExtraError: the runtime is not installed.
    """
    check_known("the runtime", runtime, RUNTIMES)
    if runtime == "openvino":
        return OpenVinoRunner(file, threads=threads, batch=batch, name=name or runtime)
    return OnnxRuntimeRunner(file, threads=threads, name=name or runtime)


ONE_THREAD: dict[str, Callable[[Path], Runner]] = {
    runtime: partial(open_file, runtime=runtime, threads=1) for runtime in RUNTIMES
}
"""By runtime, what opens an ONNX file to answer one picture at a time."""


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
    parity.check(f"{runner.name}, exported,")
    return parity.error
