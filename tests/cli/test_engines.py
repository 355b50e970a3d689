"""`gatedeploy export --trt`, as a user types it; engines are built and not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_bad_input import refused, within
from tests.cli.test_road import document, output

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: there is none for this system")
ENGINE = "engine/tensorrt-rtx.plan"


def test_an_engine_is_built(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(folder / "collapsed.safetensors"), "--trt", "--trt-library", "tensorrt-rtx"]
    shapes = ["--min-shapes", "1", "--opt-shapes", "2x3x16x16", "--max-shapes", "4", "--sm", "86,89"]
    found = document(capsys, *words, *shapes, "--out", str(tmp_path / "bundle"))
    built = found["engines"][ENGINE]
    assert (built["batches"], built["targets"]) == ([1, 2, 4], ["SM86", "SM89"])
    assert found["files"][ENGINE]["size_bytes"] == (tmp_path / "bundle" / ENGINE).stat().st_size
    assert document(capsys, "verify", str(tmp_path / "bundle"))["files"] == 6
    said = output(capsys, *words, "--workspace", "64", "--optimization-level", "0", "--out", str(tmp_path / "bundle"))
    assert f"{ENGINE}: built with tensorrt-rtx {trt.__version__} for the targets of its choice" in said
    assert "batch 1 / 8 / 32; not run. Layers: " in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--opt-shapes", "2x3"], "--opt-shapes 2x3: the network takes 2x3x16x16, where the batch alone is free; say"),
        (["--max-shapes", "2x3x16x-1"], "--max-shapes 2x3x16x-1: expected whole numbers with 'x' between them"),
        (
            ["--min-shapes", "9", "--max-shapes", "2"],
            "batch sizes 9, 2, 2: expected the smallest (--min-shapes), at least 1, the usual (--opt-shapes)",
        ),
        (["--sm", "8.6"], "--sm 8.6: expected whole numbers with ',' between them"),
        (["--sm", "90"], f"--sm 90: tensorrt-rtx {trt.__version__} does not build for it; it does for 75, 80"),
        (["--optimization-level", "9"], "optimization level 9: expected 0 to 5"),
        (["--workspace", "0"], "a workspace of 0 bytes: expected at least 1; --workspace is in MiB"),
        (["--trt-library", "tensort"], "the TensorRT library tensort: expected tensorrt or tensorrt-rtx"),
    ],
)
def test_options_that_make_no_sense(
    words: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = str(folder / "collapsed.safetensors"), str(tmp_path / "bundle")
    assert sentence in refused(capsys, "export", file, "--trt", *words, "--out", out)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sm", "86"], "--sm does nothing without --trt; ask for that, or leave it out"),
        (["--trt-library", "tensorrt"], "--trt-library does nothing without --trt;"),
        (["--max-shapes", "4"], "--max-shapes does nothing without --format trt, aoti, executorch;"),
        (["--mixed"], "--mixed does nothing without --precision fp16, bf16, int8, fp8;"),
        (["--max-drop", "1"], "--max-drop does nothing without --precision fp16, bf16, int8, fp8;"),
        (["--calibration", "min-max"], "--calibration does nothing without --precision int8, fp8;"),
        (["--calibration", "entropy", "--precision", "fp16"], "--calibration does nothing without --precision int8"),
    ],
)
def test_options_that_would_do_nothing(
    words: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(folder / "collapsed.safetensors"), "--onnx", *words, "--out", str(tmp_path / "bundle")]
    assert sentence in refused(capsys, *words)
    assert not any(tmp_path.iterdir())


def test_no_room_for_the_engine(folder: Path, tmp_path: Path) -> None:
    """The ONNX file of 10 kB fits, the engine does not."""
    ended = within(20_000, tmp_path, "export", str(folder / "collapsed.safetensors"), "--trt", "--out", "bundle")
    assert ended.returncode == 1
    assert "error: bundle" in ended.stderr
    assert "could not be written: File too large" in ended.stderr
    assert not any(tmp_path.iterdir())
