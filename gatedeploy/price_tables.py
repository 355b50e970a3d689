"""Tables of prices: those that come with gatedeploy, and those that `gatedeploy tune` measured on this machine.

A table is JSON. What is shipped was measured by `gatedeploy tune`, on the machine that the table names: one for
processors that compute 8 numbers at a time, one for those that compute 16, where small kernels, launches and copies
cost more beside the rest. What gathering costs where channels lie last was measured on the latter, and stands in both.
What layers and cuts of such channels cost was measured on an Intel Xeon with AVX-512, and brought to the speed of each
machine by what it takes for other layers and for additions, as the median over all shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from gatedeploy.errors import InputError, check_known, located
from gatedeploy.files import write_text
from gatedeploy.gpu_estimate import estimated
from gatedeploy.graph.prices import Prices

FORMAT = 5
SINGLE = (
    *("launch_ms", "weight_ms", "add_ms", "join_ms", "cut_ms", "cut_launch_ms"),
    *("gather_ms", "gather_launch_ms", "turn_ms", "turn_launch_ms"),
    *(
        "last_cut_ms",
        "last_cut_launch_ms",
        "last_gather_ms",
        "last_gather_launch_ms",
        "last_turn_ms",
        "last_turn_launch_ms",
    ),
)
COLUMNS = ["taps", "rows", "columns", "positions", "ms"]
KEYS = ("format", "runtime", "machine", "vector", *SINGLE, "last_by_rows", "columns", "layers", "last_layers")
LARGEST_COUNT, LARGEST_MS, LONGEST_NAME = 10**9, 1e9, 200
"""What no honest table has more of."""

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
    if own.exists() or own.is_symlink():
        return read_prices(own, runtime)
    if runtime in ESTIMATED:
        return estimated(runtime)
    shipped = files("gatedeploy") / "prices" / f"{runtime}-{_instructions()}.json"
    return _prices(json.loads(shipped.read_text()), runtime)


def _instructions() -> str:
    """The vector instructions of this machine, as far as there are tables for them."""
    return "avx512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "avx2"


def prices_of_target(target: str | Prices | None) -> Prices | None:
    """What `collapse` was told of the target, as prices.

    Raises:
        InputError: no such target, or its table is damaged.
    """
    if target is None or isinstance(target, Prices):
        return target
    check_known("target", str(target), TARGETS)
    return prices_of(TARGETS[str(target)])


def own_table(runtime: str) -> Path:
    """Where this user's table for a runtime lies."""
    return user_cache_path("gatedeploy") / "prices" / f"{runtime}.json"


def read_prices(path: Path, runtime: str) -> Prices:
    """Read a table of a runtime.

    Raises:
        InputError: it is none, or damaged.
    """
    with located(f"{path} (measure it again with `gatedeploy tune`, or delete it)"):
        try:
            table = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"not a table of prices, no JSON: {error}") from None
        return _prices(table, runtime)


def write_prices(prices: Prices, path: Path) -> None:
    """Write a table, complete or not at all."""
    table: dict[str, Any] = {"format": FORMAT, "runtime": prices.target}
    table |= {"machine": prices.machine, "vector": prices.vector}
    table |= {name: getattr(prices, name) for name in SINGLE}
    table |= {"last_by_rows": prices.last_by_rows, "columns": COLUMNS}
    table |= {"layers": _layers(prices.rates), "last_layers": _layers(prices.last_rates)}
    write_text(path, _layout(table))


def _layers(rates: Mapping[tuple[int, int, int, int], float]) -> list[list[float]]:
    return [[*shape, math.prod(shape) / rate] for shape, rate in sorted(rates.items())]


def _layout(table: dict[str, Any]) -> str:
    """JSON with one layer a line."""
    lists = [
        f'"{name}": [\n' + ",\n".join(json.dumps([*shape, _short(ms)]) for *shape, ms in table.pop(name)) + "\n]"
        for name in ("layers", "last_layers")
    ]
    head = json.dumps({name: _short(value) if isinstance(value, float) else value for name, value in table.items()})
    return f"{', '.join([head[:-1], *lists])}}}\n"


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def _prices(table: Any, runtime: str) -> Prices:
    """Read a table of a runtime; nothing in it is trusted.

    Raises:
        InputError: something is missing, or no price.
    """
    if not isinstance(table, dict):
        raise InputError(f"expected an object with the keys of a table of prices, got {type(table).__name__}")
    if table.get("format", FORMAT) != FORMAT:
        raise InputError(f"format {table['format']!r}; this version reads format {FORMAT}")
    if missing := [name for name in KEYS if name not in table]:
        raise InputError(f"lacks {', '.join(missing)}")
    if table["runtime"] != runtime:
        raise InputError(f"expected prices of {runtime}, got those of {table['runtime']!r}")
    if table["columns"] != COLUMNS:
        raise InputError(f"expected layers by {', '.join(COLUMNS)}, got {table['columns']!r}")
    machine = table["machine"]
    if not isinstance(machine, str) or not machine.isprintable() or len(machine) > LONGEST_NAME:
        raise InputError(f"machine: expected a name of at most {LONGEST_NAME} printable characters")
    if not isinstance(table["last_by_rows"], bool):
        raise InputError(f"last_by_rows: expected true or false, got {table['last_by_rows']!r}")
    singles: dict[str, Any] = {name: _price(name, table[name]) for name in SINGLE}
    return Prices(
        runtime,
        machine,
        _count("vector", table["vector"]),
        _rates("layers", table["layers"]),
        last_rates=_rates("last_layers", table["last_layers"]),
        last_by_rows=table["last_by_rows"],
        **singles,
    )


def _rates(name: str, layers: Any) -> dict[tuple[int, int, int, int], float]:
    """Multiply-adds per ms by shape: for each number of taps a whole grid, between whose points others are."""
    if not isinstance(layers, list) or not layers:
        raise InputError(f"{name}: expected a list of measured kernels")
    rates: dict[tuple[int, int, int, int], float] = {}
    for layer in layers:
        if not isinstance(layer, list) or len(layer) != len(COLUMNS):
            raise InputError(f"{name}: expected {', '.join(COLUMNS)}, got {str(layer)[:80]}")
        taps, rows, columns, positions = (_count(name, size) for size in layer[:-1])
        took = _price(f"{name} {layer[:-1]}", layer[-1])
        if took == 0:
            raise InputError(f"{name} {layer[:-1]}: takes no time")
        rates[taps, rows, columns, positions] = taps * rows * columns * positions / took
    for known in {shape[0] for shape in rates}:
        shapes = {shape[1:] for shape in rates if shape[0] == known}
        if absent := set(product(*map(set, zip(*shapes, strict=True)))) - shapes:
            raise InputError(f"{name}: {len(absent)} are missing among those of {known} taps, such as {min(absent)}")
    return rates


def _count(what: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST_COUNT:
        raise InputError(f"{what}: expected a whole number from 1 to {LARGEST_COUNT:,}, got {str(value)[:80]}")
    return value


def _price(what: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= LARGEST_MS:  # nor is NaN
        raise InputError(f"{what}: expected milliseconds from 0 to {LARGEST_MS:,.0f}, got {str(value)[:80]}")
    return float(value)
