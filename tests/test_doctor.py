from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gatedeploy import doctor
from gatedeploy.cli.app import run
from gatedeploy.doctor import Gpu, Library, diagnose

NVIDIA_SMI = """#!/bin/sh
echo 'NVIDIA H200, SXM, 9.0'
echo 'NVIDIA L4, 8.9'
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's program that tells of two GPUs."""
    file = tmp_path / "nvidia-smi"
    file.write_text(NVIDIA_SMI)
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return file


def of(found: doctor.Diagnosis, name: str) -> Library:
    return next(library for library in found.libraries if library.name == name)


def test_what_is_installed() -> None:
    found = diagnose()
    assert of(found, "torch").version == torch.__version__
    assert of(found, "onnxruntime").loads
    assert "CPUExecutionProvider" in of(found, "onnxruntime").details
    assert found.uses["gatedeploy export --onnx"] == ""


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(doctor, "USES", {"export": (("onnx", "onnxruntime"), "cpu"), "no": (("no_such",), "no")})
    found = diagnose()
    assert (of(found, "onnxruntime").loads, of(found, "onnx").loads) == (False, True)
    assert of(found, "no_such") == Library("no_such", None)
    assert found.uses == {"export": "pip install 'gatedeploy[cpu]'", "no": "pip install 'gatedeploy[no]'"}


def test_a_compiler_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnose().uses[doctor.COMPILED] == "install g++"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "raise OSError('libcudart.so.13: cannot open shared object file\\nmore')",
            "libcudart.so.13: cannot open shared",
        ),
        ("import one_more_that_is_not_there", "No module named 'one_more_that_is_not_there'"),
    ],
)
def test_what_is_installed_and_does_not_load(
    code: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_library.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "USES", {"export": (("broken_library",), "x")})
    assert run(["doctor", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["uses"] == {"export": "pip install 'gatedeploy[x]'"}
    assert f"error: broken_library of an unknown version does not load: {problem}" in said.err


@pytest.mark.usefixtures("program")
def test_gpus_are_those_of_the_driver(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    found = diagnose()
    assert found.gpus == (Gpu("NVIDIA H200, SXM", "9.0"), Gpu("NVIDIA L4", "8.9"))
    assert run(["doctor"]) == 0
    assert "GPU: NVIDIA L4, compute capability 8.9" in capsys.readouterr().out


@pytest.mark.usefixtures("program")
def test_a_gpu_that_pytorch_cannot_use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(["doctor"]) == 1
    assert "there is a GPU, NVIDIA H200, SXM, and the installed PyTorch" in capsys.readouterr().err


def test_a_driver_that_does_not_answer(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write_text("#!/bin/sh\nexit 9\n")
    assert diagnose().gpus == ()

    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 10)

    monkeypatch.setattr(subprocess, "run", late)
    assert diagnose().gpus == ()


def test_libraries_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OWNERS", ("numpy", "torch"))
    (warning,) = diagnose().warnings
    assert "are both installed and overwrite each other: pip uninstall numpy torch, then install one" in warning


def test_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "No GPU of NVIDIA's was found." in said
    assert "gatedeploy export --onnx" in said
    assert "ready" in said
