"""What every test shares."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatedeploy import price_tables

# Two test processes with two threads each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_prices_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layouts follow from the tables that come with gatedeploy, on every machine alike."""
    monkeypatch.setattr(price_tables, "user_cache_path", lambda name: tmp_path / name)
