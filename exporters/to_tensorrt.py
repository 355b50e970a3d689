"""Build a TensorRT engine of an ONNX file, with TensorRT or with TensorRT for RTX.

Both take the precision of every tensor from the file (networks are strongly typed) and neither raises: what goes wrong
is collected by their loggers and told here.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gatedeploy.errors import CheckError, InputError, located
from gatedeploy.exporters.engine_options import EngineOptions, check_capabilities
from gatedeploy.exporters.manifest import LISTING, Engine
from gatedeploy.exporters.progress import Progress, untold
from gatedeploy.files import replacing_file, write_text
from gatedeploy.runners.base import TensorSpec
from gatedeploy.runners.tensorrt_library import library, messages_of, port, said_by, type_name
from gatedeploy.specs import InputSpec

REMEDY = "replace that layer by one that TensorRT takes, or export for another runtime"


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
    options.check_picture(input)
    runtime, trt = library(options.runtime)
    names = check_capabilities(replace(options, runtime=runtime))
    with located(str(model)):
        builder = _builder(trt, runtime)
        network, keep = _parsed(trt, builder, model)
        config = builder.create_builder_config()
        _configure(trt, config, names, options)
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
        names,
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


def _configure(trt: Any, config: Any, names: Sequence[str], options: EngineOptions) -> None:
    """Apply the options; `names` are those of the GPUs."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # The library's own choice is to round; float32 is float32 here, unless asked otherwise.
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if names:
        config.num_compute_capabilities = len(names)
    for number, name in enumerate(names):
        config.set_compute_capability(trt.ComputeCapability.__members__[name], number)


def _add_profile(builder: Any, network: Any, config: Any, input: InputSpec, options: EngineOptions) -> None:
    """One range of batch sizes for the picture."""
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
