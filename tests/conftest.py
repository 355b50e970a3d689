"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gatedeploy import price_tables
from gatedeploy.exporters import trust
from gatedeploy.models import resnet

# Two test processes with two threads each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """ResNets of one block a stage: what a training or benchmark tells can be checked on them in less time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, depths in resnet.DEPTHS.items():
            patch.setitem(resnet.DEPTHS, name, (1,) * len(depths))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_prices_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts follow from the tables that come with gatedeploy, on every machine alike."""
    monkeypatch.setattr(price_tables, "user_cache_path", lambda name: tmp_path / name)


@pytest.fixture(scope="session", autouse=True)
def _nothing_built_by_this_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests build is not remembered as this user's."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "user_state_path", lambda name: state / name)
        yield
