"""What every test shares."""

from __future__ import annotations

import pytest
import torch

# Two test processes with two threads each would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
