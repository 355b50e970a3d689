from __future__ import annotations

import pytest
import torch
from torch import nn

from gatedeploy.benchmarks import step_time
from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.step_time import BASELINE, Row, batched, kept_bytes, page, rows

TINY = Trunk("resnet20", {"width": 0.125}, "dense", (8, 8))


def test_every_way_is_measured_beside_uniform_mtl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_time, "compiled", lambda function, device: function)  # making machine code takes minutes
    found = {row.name: row for row in rows("tiny", TINY, 2, 2, torch.device("cpu"), rounds=1, compiles=True)}
    assert list(found)[:3] == [BASELINE, "gates move", "gates stand still"]
    compiled = [name for name in found if name.endswith("compiled")]
    assert compiled == [f"{BASELINE}, compiled", "gates move, compiled", "live, p = 0.2, compiled"]
    assert list(found)[-2:] == ["branches in a loop", "branches batched"]
    assert (found[BASELINE].forward, found[BASELINE].backward) == (1.0, 1.0)
    assert all(row.forward_ms > 0 and row.backward_ms > 0 for row in found.values())
    lively = [row.kept_bytes for name, row in found.items() if name.startswith("live")]
    assert lively[0] > lively[1] > lively[2] > found[BASELINE].kept_bytes
    assert found["gates move"].kept_bytes > 2 * found[BASELINE].kept_bytes


def test_what_is_kept_for_the_backward_pass_is_counted_once() -> None:
    """ReLU keeps its result, which the second convolution reads and keeps too; the first keeps the picture."""
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    image = torch.randn(2, 3, 4, 4)
    assert kept_bytes(network, image) == 4 * 2 * 4 * 4 * (3 + 5)


def test_batched_branches_compute_what_single_ones_do() -> None:
    branches = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).double().train() for _ in range(3)]
    image = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    expected = torch.stack([branch(image) for branch in branches])
    torch.testing.assert_close(batched(branches)(image), expected)


def test_the_page() -> None:
    text = page(
        [Row("a", 3, BASELINE, 10.0, 20.0, 1.0, 1.0, 2**20), Row("a", 3, "gates move", 45.0, 80.0, 4.5, 4.0, 2**23)]
    )
    assert "### a, T = 3" in text
    assert "| gates move | 45.0 | 80.0 | 4.50 | 4.00 | 8 |" in text
