"""A bundle that all servers serve."""

from __future__ import annotations

import pytest
import torch

import gatedeploy as gd
from gatedeploy.exporters import Bundle, write_bundle
from tests.exporters.networks import INFO, example, gated


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One whose network takes about half of all pictures for kitchens."""
    net = gated()
    with torch.no_grad():
        net.get_parameter("heads.scene.scores.bias").sub_(net(example(64))["scene"].mean(0))
    thin = gd.collapse(net, example_input=example())
    return write_bundle(thin, INFO, tmp_path_factory.mktemp("serving") / "bundle")
