"""What a kernel costs here, measured on a few shapes; no price is judged by how large it is."""

import math

import pytest

from gatedeploy.benchmarks import tune
from gatedeploy.benchmarks.runners import ONE_THREAD
from gatedeploy.compiler import collapse
from gatedeploy.graph.capture import capture
from gatedeploy.price_tables import SINGLE
from tests.structures import EXAMPLE, STRUCTURES


@pytest.mark.parametrize("runtime", ONE_THREAD)
def test_every_price_is_measured(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in {
        "TAPS": (1, 3),
        "ROWS": (8, 32),
        "COLUMNS": (16,),
        "SIDES": (4,),
        "CROWD": 20,
        "SWEEPS": 2,
    }.items():
        monkeypatch.setattr(tune, name, few)
    told: list[str] = []
    prices = tune.tune(runtime, told.append)
    assert set(prices.rates) == {(taps, rows, 16, 16) for taps in (1, 9) for rows in (8, 32)}
    assert set(prices.last_rates) == {(1, rows, 16, 16) for rows in (8, 32)}
    measured = [getattr(prices, name) for name in SINGLE] + [*prices.rates.values(), *prices.last_rates.values()]
    assert all(math.isfinite(price) and price >= 0 for price in measured)
    assert prices.launch_ms > 0
    assert prices.vector in (8, 16)
    assert len(told) == 2 * 6
    collapse(capture(STRUCTURES[0].build(), EXAMPLE.double()), target=prices)
