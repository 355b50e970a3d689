"""Prices that were never measured: extremes between which every machine lies."""

from __future__ import annotations

from gatedeploy.graph.prices import Prices


def prices(narrowest: int, launch_ms: float) -> Prices:
    """A machine that computes channels `narrowest` at a time, at one multiply-add a nanosecond."""
    rates = {(taps, narrowest, 1, 1): 1e6 for taps in (1, 9)}
    return Prices(
        "test",
        "a machine",
        8,
        rates,
        launch_ms,
        weight_ms=0,
        add_ms=1e-6,
        join_ms=1e-6,
        cut_ms=1e-6,
        cut_launch_ms=2 * launch_ms,
        gather_ms=2e-6,
        gather_launch_ms=2 * launch_ms,
        turn_ms=4e-6,
        turn_launch_ms=3 * launch_ms,
        last_cut_ms=1e-6,
        last_cut_launch_ms=launch_ms,
        last_gather_ms=1e-6,
        last_gather_launch_ms=launch_ms,
        last_turn_ms=8e-6,
        last_turn_launch_ms=4 * launch_ms,
        last_rates=rates,
        last_by_rows=launch_ms > 0,
    )


CUTTING = prices(narrowest=1, launch_ms=0)
"""Small kernels are as good as large ones."""

JOINING = prices(narrowest=64, launch_ms=1)
"""One kernel costs more than all the work of a small network."""
EXTREMES = {"cutting": CUTTING, "joining": JOINING}
