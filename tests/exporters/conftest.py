"""Exports take seconds, so tests share them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torch import nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.exporters import Bundle, write_bundle
from gatedeploy.exporters import bundle as bundle_module
from tests.exporters.networks import INFO, collapsed


@pytest.fixture(scope="session")
def thin() -> gd.Collapsed:
    return collapsed()


@pytest.fixture(scope="session")
def exported(thin: gd.Collapsed, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that nobody changes."""
    return write_bundle(thin, INFO, tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture
def bundle(exported: Bundle, tmp_path: Path) -> Bundle:
    """A copy of it that a test may spoil."""
    copy = tmp_path / "bundle"
    shutil.copytree(exported.path, copy)
    return Bundle(copy, exported.manifest)


@pytest.fixture
def quick_export(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing a bundle takes the ONNX file that is already there."""

    def copy(network: nn.Module, info: ModelInfo, path: Path, opset: int) -> None:
        shutil.copy(exported.model, path)

    monkeypatch.setattr(bundle_module, "export_onnx", copy)
