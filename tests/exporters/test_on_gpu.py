"""What takes a GPU: engines are run and compared with ONNX Runtime on the processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import gatedeploy as gd
from gatedeploy.errors import InputError
from gatedeploy.exporters import Bundle, export
from gatedeploy.exporters.opening import open_runner
from gatedeploy.runners.in_tensorrt import TensorRtRunner
from gatedeploy.runners.tensorrt_library import LIBRARIES
from tests.exporters.networks import INPUT

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FEED = {"image": np.random.default_rng(0).standard_normal((3, *INPUT.shape)).astype(np.float32)}


@gpu
@pytest.mark.parametrize("runtime", LIBRARIES)
def test_an_engine_is_run_and_compared(runtime: str, thin: gd.Collapsed, tmp_path: Path) -> None:
    pytest.importorskip(LIBRARIES[runtime], reason=f"{runtime} is not installed")
    options = gd.EngineOptions(runtime)
    bundle = export(thin, tmp_path / "out", formats=["trt"], engine=options)
    (engine,) = bundle.manifest.engines.values()
    assert list(engine.error) == ["1", "3", "32"]
    with open_runner(bundle.path, runtime) as runner, open_runner(bundle.path) as exact:
        assert (runner.inputs, runner.outputs) == (exact.inputs, exact.outputs)
        for name, values in exact.infer(FEED).items():
            np.testing.assert_allclose(runner.infer(FEED)[name], values, rtol=0, atol=1e-4 * np.abs(values).max())
        with pytest.raises(InputError, match="a batch of 33; this engine takes 1 to 32"):
            runner.infer({"image": np.zeros((33, *INPUT.shape), np.float32)})
    (tmp_path / "x.plan").write_bytes(b"no engine")
    with pytest.raises(InputError, match=f"x.plan: {runtime} .* cannot load it here: .*export it again"):
        TensorRtRunner(tmp_path / "x.plan", runtime, (1, 32))


@gpu
def test_onnx_runtime_on_cuda(exported: Bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("the installed onnxruntime has no CUDA: onnxruntime-gpu has")
    with open_runner(exported.path, "onnxruntime-cuda") as runner, open_runner(exported.path) as exact:
        for name, values in exact.infer(FEED).items():
            np.testing.assert_allclose(runner.infer(FEED)[name], values, rtol=0, atol=1e-4 * np.abs(values).max())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: there is none for this system")
    with pytest.raises(InputError, match=r"x.plan: tensorrt-rtx runs engines on a GPU, and PyTorch .* finds none here"):
        TensorRtRunner(tmp_path / "x.plan", "tensorrt-rtx", (1, 32))
