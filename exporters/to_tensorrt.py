"""Build a TensorRT engine of an ONNX file, with TensorRT or with TensorRT for RTX.

Both take the precision of every tensor from the file (networks are strongly typed) and neither raises: what goes wrong
is collected by their loggers and told here.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatedeploy.errors import CheckError, InputError, located
from gatedeploy.exporters.manifest import Engine
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.files import replacing_file, write_text
from gatedeploy.runners.base import TensorSpec
from gatedeploy.runners.tensorrt_library import library, messages_of, port, said_by, type_name
from gatedeploy.specs import InputSpec

LEVELS = range(6)
"""Optimisation levels; the library's own choice is 3."""

LISTING = ".layers.txt"

REMEDY = "replace that layer by one that TensorRT takes, or export for another runtime"


@dataclass(frozen=True)
class EngineOptions:
    """How an engine shall be built.

    Args:
        runtime: "tensorrt" or "tensorrt-rtx"; None takes what is installed.
        shapes: the smallest, the usual and the largest input that it shall take, for the usual one of which it is
            fastest: batch sizes, (8,), or whole shapes, (8, 3, 128, 128), of which only the batch is free.
        compute_capabilities: of the GPUs that it shall run on, e.g. (86, 89). Empty: what the library chooses, which is
            every GPU it knows (TensorRT for RTX) or the one of this machine (TensorRT).
        optimization_level: 0 builds fastest, 5 searches longest; None leaves it to the library.
        workspace_bytes: what the engine's kernels may use besides; None: all of the GPU's memory.
        tf32: whether products of float32 may be rounded to TensorFloat-32.
    """

    runtime: str | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((1,), (8,), (32,))
    compute_capabilities: tuple[int, ...] = ()
    optimization_level: int | None = None
    workspace_bytes: int | None = None
    tf32: bool = False

    @property
    def batches(self) -> tuple[int, int, int]:
        """The smallest, the usual and the largest batch size."""
        smallest, usual, largest = (shape[0] for shape in self.shapes)
        return smallest, usual, largest

    def __post_init__(self) -> None:
        smallest, usual, largest = self.batches
        if not 1 <= smallest <= usual <= largest:
            raise InputError(
                f"batch sizes {smallest}, {usual}, {largest}: expected the smallest (--min-shapes), at least 1, the "
                "usual (--opt-shapes) and the largest (--max-shapes), in this order"
            )
        if self.optimization_level is not None and self.optimization_level not in LEVELS:
            raise InputError(f"optimization level {self.optimization_level}: expected 0 to {LEVELS[-1]}")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise InputError(f"a workspace of {self.workspace_bytes} bytes: expected at least 1; --workspace is in MiB")


def build_engine(
    model: Path,
    path: Path,
    input: InputSpec,
    options: EngineOptions | None = None,
    progress: Progress = untold,
) -> Engine:
    """Build an engine of an ONNX file and write it; it is complete when it appears.

    Beside it goes a list of its layers, `.layers.txt`: the type that each computes in, its kind and its name. TensorRT
    may join layers further when it builds; the types are binding.

    Args:
        model: the ONNX file, with a free batch size.
        path: the engine.
        input: the picture that the network takes.
        options: how it shall be built.
        progress: is told how far the build is.

    Returns:
        What was built. It has not been run: building needs no GPU with TensorRT for RTX, running does.

    Raises:
        InputError: the library does not take the network, or cannot build what the options ask for.
        MissingExtraError: neither library is installed.
        CheckError: the library could not build the engine.
        GatedeployError: the disk refuses.
        KeyboardInterrupt: the user's; the build is ended first.
    """
    options = options or EngineOptions()
    runtime, trt = library(options.runtime)
    with located(str(model)):
        builder = _builder(trt, runtime)
        network, keep = _parsed(trt, builder, model)
        config = builder.create_builder_config()
        chosen = _configure(trt, config, runtime, options)
        _add_profile(builder, network, config, input, options)
        engine = _build(trt, builder, network, config, progress)
    del keep
    with replacing_file(path) as temporary:
        temporary.write_bytes(engine)
    layers = _layers(network)
    write_text(path.with_suffix(LISTING), "".join(f"{dtype}\t{kind}\t{name}\n" for name, kind, dtype in layers))
    return Engine(
        runtime,
        str(trt.__version__),
        chosen,
        options.batches,
        tuple(_port(network.get_input(number)) for number in range(network.num_inputs)),
        tuple(_port(network.get_output(number)) for number in range(network.num_outputs)),
        dict(Counter(dtype for _, _, dtype in layers).most_common()),
    )


def _builder(trt: Any, runtime: str) -> Any:
    messages = messages_of(trt)
    messages.lines.clear()
    try:
        builder = trt.Builder(messages)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{runtime} cannot build engines here: {said_by(trt, str(error))}") from error
    return builder


def _parsed(trt: Any, builder: Any, model: Path) -> tuple[Any, Any]:
    """The network, and the parser, which holds its weights."""
    flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, messages_of(trt))
    # A file of nothing, or of words, is parsed without an error.
    if not parser.parse_from_file(str(model)) or network.num_outputs == 0:
        errors = [_told(parser.get_error(number)) for number in range(parser.num_errors)]
        raise InputError("; ".join(errors) or "holds no network; expected an ONNX file: export it again")
    return network, parser


def _told(error: Any) -> str:
    said = error.desc().strip()
    if not error.node_operator():
        return f"TensorRT cannot read it: {said}; export it again"
    reason = "" if said in ("", "false") else f" ({said})"
    return f"node {error.node_name()!r}: TensorRT does not take the operator {error.node_operator()}{reason}; {REMEDY}"


def _configure(trt: Any, config: Any, runtime: str, options: EngineOptions) -> tuple[str, ...]:
    """Apply the options; returns the names of the GPUs that were asked for."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # The library's own choice is to round; float32 is float32 here, unless asked otherwise.
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if not options.compute_capabilities:
        return ()
    if not hasattr(config, "set_compute_capability"):
        raise InputError(f"{runtime} builds for the GPU of this machine alone; leave the compute capabilities out")
    known = {name: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    names = tuple(f"SM{number}" for number in options.compute_capabilities)
    for name in names:
        if name not in known:
            have = ", ".join(sorted(known, key=lambda each: int(each[2:])))
            raise InputError(f"{runtime} {trt.__version__} does not build for {name}; it builds for {have}")
    config.num_compute_capabilities = len(names)
    for number, name in enumerate(names):
        config.set_compute_capability(known[name], number)
    return names


def _add_profile(builder: Any, network: Any, config: Any, input: InputSpec, options: EngineOptions) -> None:
    """One range of batch sizes for the picture."""
    for shape in options.shapes:
        if shape[1:] not in ((), input.shape):
            sizes, picture = ("x".join(map(str, each)) for each in (shape, (shape[0], *input.shape)))
            raise InputError(f"the shape {sizes} is not the network's, in which only the batch is free: {picture}")
    ports = [network.get_input(number) for number in range(network.num_inputs)]
    if len(ports) != 1 or (ports[0].name, tuple(ports[0].shape)) != (input.name, (-1, *input.shape)):
        found = ", ".join(f"{port.name} {tuple(port.shape)}" for port in ports)
        raise InputError(f"takes {found}; expected {input.name} {(-1, *input.shape)}, −1 standing for any batch size")
    profile = builder.create_optimization_profile()
    profile.set_shape(input.name, *((batch, *input.shape) for batch in options.batches))
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"TensorRT does not take the batch sizes {options.batches}")


def _build(trt: Any, builder: Any, network: Any, config: Any, progress: Progress) -> Any:
    """The engine as bytes.

    The library builds in a thread of its own: so Ctrl-C reaches us meanwhile, and the monitor hands it on.
    """
    built: list[Any] = []
    failed: list[Exception] = []
    config.progress_monitor = monitor = _monitor(trt, progress)

    def build() -> None:
        try:
            built.append(builder.build_serialized_network(network, config))
        except Exception as error:  # whatever the library's bindings raise
            failed.append(error)

    thread = threading.Thread(target=build, name="tensorrt build")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except KeyboardInterrupt:
        monitor.cancelled = True
        thread.join()
        raise
    if failed or built[0] is None:
        raise CheckError(f"TensorRT could not build an engine: {said_by(trt, str(*failed))}")
    return built[0]


def _port(tensor: Any) -> TensorSpec:
    return port(tensor.name, tensor.shape, tensor.dtype)


def _layers(network: Any) -> list[tuple[str, str, str]]:
    """Name, kind and type of what it computes, of every layer that computes something."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    outputs = [(layer, layer.get_output(0)) for layer in layers]
    return [
        (str(layer.name), str(layer.type.name).lower(), type_name(output.dtype)) for layer, output in outputs if output
    ]


def _monitor(trt: Any, progress: Progress) -> Any:
    """What a build tells its progress to; once its `cancelled` is set, the build ends."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            progress(phase_name, steps, steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return not self.cancelled

    return Monitor()
