"""What changes of ONNX graphs have in common; they are made with onnx-graphsurgeon."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gatedeploy.runners.base import Array
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner


@contextmanager
def silent() -> Iterator[None]:
    """Keep onnx-graphsurgeon's remarks on bfloat16, which it reads as float32, to itself."""
    from onnx_graphsurgeon.logger import G_LOGGER

    before, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.ERROR
    try:
        yield
    finally:
        G_LOGGER.severity = before


def dtype_of(name: str) -> Any:
    """Numpy's type of this name, or that of ml_dtypes: bfloat16 and the kinds of float8."""
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name, name))


def is_of(value: Any, name: str) -> bool:
    """Whether a tensor of onnx-graphsurgeon is of this type; read from a file, bfloat16 is ONNX's number."""
    import onnx

    dtype = getattr(value, "dtype", None)
    return dtype is not None and dtype in (dtype_of(name), onnx.helper.np_dtype_to_tensor_dtype(dtype_of(name)))


def cast_node(gs: Any, value: Any, result: Any, dtype: str) -> Any:
    """A node that casts `value` to `dtype`, called after its result."""
    import onnx

    number = onnx.helper.np_dtype_to_tensor_dtype(dtype_of(dtype))
    return gs.Node("Cast", f"{result.name}:Cast", {"to": number}, [value], [result])


def exported(gs: Any, graph: Any, model: Any) -> Any:
    """The graph as an `onnx.ModelProto`, with what `model` says of itself."""
    made = gs.export_onnx(graph, do_type_check=False)
    made.ir_version = model.ir_version
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    made.metadata_props.extend(model.metadata_props)
    return made


def run_model(model: Any, feed: Mapping[str, Array], *, optimized: bool = True) -> dict[str, Array]:
    """Run an `onnx.ModelProto` in ONNX Runtime on the CPU; outputs by name. `optimized`: see `OnnxRuntimeRunner`.

    Raises:
        CheckError: onnxruntime does not take it.
    """
    with opened(model, optimized=optimized) as runner:
        return runner.infer(feed)


@contextmanager
def opened(model: Any, threads: int | None = None, *, optimized: bool = True) -> Iterator[OnnxRuntimeRunner]:
    """An `onnx.ModelProto` in ONNX Runtime; it goes through a file, for it may be larger than protobuf's 2 GiB."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="gatedeploy-") as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, str(file), save_as_external_data=model.ByteSize() > 1 << 30, location="weights")
        with OnnxRuntimeRunner(file, threads=threads, optimized=optimized) as runner:
            yield runner
