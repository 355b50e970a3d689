"""`gatedeploy tune`: measure what kernels cost on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from gatedeploy.benchmarks.runners import ONE_THREAD
from gatedeploy.cli.screen import Json, note, print_json, say
from gatedeploy.errors import check_known
from gatedeploy.price_tables import own_table, write_prices


def tune(
    runtime: Annotated[
        str, typer.Option(help=f"Where collapsed networks are to run: {' or '.join(ONE_THREAD)}.")
    ] = "onnxruntime",
    json: Json = False,
) -> None:
    """Measure what kernels cost on this machine, so that `prune` chooses a layout that is fast here.

    Takes some minutes; leave the machine alone meanwhile. The table goes to the user's cache, on Linux
    `~/.cache/gatedeploy/prices/RUNTIME.json`, where `prune` finds it; without it a table that comes with gatedeploy is
    used.
    """
    check_known("--runtime", runtime, ONE_THREAD)
    from gatedeploy.benchmarks.tune import tune as measure  # it imports onnx, which takes long

    prices = measure(runtime, progress=lambda step: note(f"Measuring {step}"))
    path = own_table(runtime)
    write_prices(prices, path)
    example = prices.layer(9, 64, 64, 1024)
    if json:
        print_json({"file": str(path), "runtime": runtime, "launch_ms": prices.launch_ms, "layer_ms": example})
        return
    say(
        f"A 3×3 convolution of 64 by 64 channels at 32×32 positions takes {example:.2f} ms, a launch "
        f"{1e3 * prices.launch_ms:.1f} µs."
    )
    say(f"Wrote {path}")
