"""Tables of prices: those that come with gatedeploy, and those that `gatedeploy tune` measured on this machine.

A table is JSON. What is shipped was measured by `gatedeploy tune`, on the machine that the table names: one for
processors that compute 8 numbers at a time, one for those that compute 16, where small kernels, launches and copies
cost more beside the rest.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from gatedeploy.errors import InputError, check_known, located
from gatedeploy.files import write_text
from gatedeploy.gpu_estimate import estimated
from gatedeploy.graph.prices import Prices

FORMAT = 3
SINGLE = (
    *("launch_ms", "weight_ms", "add_ms", "join_ms", "cut_ms", "cut_launch_ms"),
    *("gather_ms", "gather_launch_ms", "turn_ms", "turn_launch_ms"),
)
TARGETS = {"cpu": "onnxruntime", "openvino": "openvino", "gpu": "gpu", "tensorrt": "gpu"}
"""The runtime whose prices a layout for a target is chosen by."""

ESTIMATED = ("gpu",)
"""Runtimes whose prices are an estimate until somebody measures them."""


def prices_of(runtime: str) -> Prices:
    """What kernels cost in `runtime`, one of those in `TARGETS`: as measured here, else as shipped or estimated.

    Raises:
        InputError: the table in the user's cache is damaged.
    """
    own = own_table(runtime)
    if own.is_file():
        return read_prices(own)
    if runtime in ESTIMATED:
        return estimated(runtime)
    shipped = files("gatedeploy") / "prices" / f"{runtime}-{_instructions()}.json"
    return _prices(json.loads(shipped.read_text()))


def _instructions() -> str:
    """The vector instructions of this machine, as far as there are tables for them."""
    return "avx512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "avx2"


def prices_of_target(target: str | Prices | None) -> Prices | None:
    """What `collapse` was told of the target, as prices.

    Raises:
        InputError: no such target, or its table is damaged.
    """
    if not isinstance(target, str):
        return target
    check_known("target", target, TARGETS)
    return prices_of(TARGETS[target])


def own_table(runtime: str) -> Path:
    """Where this user's table for a runtime lies."""
    return user_cache_path("gatedeploy") / "prices" / f"{runtime}.json"


def read_prices(path: Path) -> Prices:
    """Read a table.

    Raises:
        InputError: it is none, or damaged.
    """
    with located(f"{path} (measure it again with `gatedeploy tune`, or delete it)"):
        try:
            return _prices(json.loads(path.read_bytes()))
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise InputError(f"not a table of prices: {error}") from None


def write_prices(prices: Prices, path: Path) -> None:
    """Write a table, complete or not at all."""
    layers = [[*shape, math.prod(shape) / rate] for shape, rate in sorted(prices.rates.items())]
    table: dict[str, Any] = {"format": FORMAT, "runtime": prices.target}
    table |= {"machine": prices.machine, "vector": prices.vector}
    table |= {name: getattr(prices, name) for name in SINGLE}
    table |= {"columns": ["taps", "rows", "columns", "positions", "ms"], "layers": layers}
    write_text(path, _layout(table))


def _layout(table: dict[str, Any]) -> str:
    """JSON with one layer a line."""
    layers = ",\n".join(json.dumps([*shape, float(f"{ms:.4g}")]) for *shape, ms in table.pop("layers"))
    head = json.dumps(
        {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in table.items()}
    )
    return f'{head[:-1]}, "layers": [\n{layers}\n]}}\n'


def _prices(table: Any) -> Prices:
    if table["format"] != FORMAT:
        raise InputError(f"format {table['format']!r}; this version reads format {FORMAT}")
    numbers = {name: float(table[name]) for name in SINGLE}
    rates = {}
    for taps, rows, columns, positions, took in table["layers"]:
        shape = (int(taps), int(rows), int(columns), int(positions))
        rates[shape] = math.prod(shape) / float(took)
    values = [*numbers.values(), *rates.values()]
    if not rates or not all(math.isfinite(value) and value >= 0 for value in values):
        raise InputError("a price is no number, or less than nothing")
    vector = int(table["vector"])
    if vector < 1:
        raise InputError(f"vectors of {vector} channels")
    return Prices(str(table["runtime"]), str(table["machine"]), vector, rates, **numbers)
