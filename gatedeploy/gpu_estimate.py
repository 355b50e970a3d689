"""What kernels would cost on a GPU, from data sheets: for targets whose prices were not measured.

At batch 1 a GPU is far from full, so what counts is how many kernels run one after the other, and how many tiles of
output each of them has for the multiprocessors to share. Nothing here was measured; a layout by these prices has few
kernels, and what it saves is a guess.
"""

from __future__ import annotations

from itertools import product

from gatedeploy.graph.prices import Prices

MACHINE = "a data sheet (H200, float32): an estimate, nothing was measured"
PEAK = 67e12 / 2 / 1e3
"""Multiply-adds a millisecond: 67 Tflop/s (NVIDIA H200 data sheet)."""

BANDWIDTH = 4.8e12 / 1e3
"""Bytes a millisecond: 4.8 TB/s (the same)."""

MULTIPROCESSORS = 132
TILE = 64
"""A block of threads computes so many channels at so many positions."""

KERNEL_MS = 0.003
"""The least that one kernel takes when it is launched from a CUDA graph; assumed."""

VECTOR = 8
"""Channels in half precision that tensor cores take at a time (NVIDIA's guide to mixed precision)."""

ROWS = (64, 128, 256, 512, 1024)
POSITIONS = (16, 64, 256, 1024, 4096)


def estimated(runtime: str) -> Prices:
    """Prices of a GPU that nobody measured."""
    rates = {
        (1, rows, 64, positions): PEAK * min(1.0, rows // TILE * max(1, positions // TILE) / MULTIPROCESSORS)
        for rows, positions in product(ROWS, POSITIONS)
    }
    number = 4 / BANDWIDTH
    return Prices(
        runtime,
        MACHINE,
        VECTOR,
        rates,
        launch_ms=KERNEL_MS,
        weight_ms=number,
        add_ms=3 * number,
        join_ms=2 * number,
        cut_ms=number,
        cut_launch_ms=KERNEL_MS,
        gather_ms=number,
        gather_launch_ms=KERNEL_MS,
        turn_ms=7 / 2 * number,
        turn_launch_ms=3 * KERNEL_MS,
        last_cut_ms=number,
        last_cut_launch_ms=KERNEL_MS,
        last_gather_ms=number,
        last_gather_launch_ms=KERNEL_MS,
        last_turn_ms=7 / 2 * number,
        last_turn_launch_ms=3 * KERNEL_MS,
        last_rates=rates,
        last_by_rows=False,
    )
