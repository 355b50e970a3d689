"""What it takes to have a network ready: time to load it, its first request, and memory.

Each is measured in a process of its own that has the library loaded, and nothing else of what a benchmark needs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gatedeploy.benchmarks.memory import PeakMemory
from gatedeploy.benchmarks.runners import open_file
from gatedeploy.benchmarks.timing import request_of
from gatedeploy.errors import GatedeployError
from gatedeploy.runners.base import Array

REQUESTS = 5
"""How many are made before the peak is read: libraries allocate in the first ones, and keep it."""


@dataclass(frozen=True)
class Footprint:
    """What it takes to have a network ready.

    Args:
        load_ms: from its files to readiness.
        first_ms: the first request.
        memory_bytes: of the process at the peak, beyond the library's own; None where the system does not tell.
    """

    load_ms: float
    first_ms: float
    memory_bytes: int | None


def measure_footprint(files: Sequence[Path], runtime: str, threads: int, image: Array) -> Footprint:
    """Load ONNX files in a fresh process and make some requests.

    Args:
        files: what a request runs, one after the other.
        runtime: as for `open_file`.
        threads: of a request.
        image: what is asked about, `(1, channels, height, width)`.

    Raises:
        GatedeployError: the process ended by itself.
    """
    # A process that is forked off one which has done nothing but import: sooner ready than one that starts anew.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    fresh = context.Process(target=_send, args=(sender, tuple(files), runtime, threads, image), daemon=True)
    with unreached_by_ctrl_c():
        fresh.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        fresh.join()
        raise GatedeployError(f"a process that loads {files[0]} ended by itself (exit code {fresh.exitcode})") from None
    finally:  # also where somebody interrupts: nobody else would end it
        fresh.kill()
        fresh.join()
        receiver.close()
    if isinstance(found, Footprint):
        return found
    raise found


@contextmanager
def unreached_by_ctrl_c() -> Iterator[None]:
    """No process that is started inside is told of Ctrl-C, which each would complain of; their starter ends them."""
    resource_tracker.ensure_running()  # where it starts later, it lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(sender: Connection, *measured: Any) -> None:
    """In the fresh process: what was measured, or what went wrong, to the one that asked."""
    try:
        sender.send(_measure(*measured))
    except Exception as error:
        sender.send(error)


def _measure(files: Sequence[Path], runtime: str, threads: int, image: Array) -> Footprint:
    _import(runtime)
    with ExitStack() as stack, PeakMemory() as memory:
        start = time.perf_counter()
        runners = [stack.enter_context(open_file(file, runtime, threads)) for file in files]
        ready = time.perf_counter()
        request = request_of(runners, image)
        request()
        first = time.perf_counter()
        for _ in range(REQUESTS):
            request()
    return Footprint(1e3 * (ready - start), 1e3 * (first - ready), memory.more)


def _import(runtime: str) -> None:
    """Load the library, which is not what is measured."""
    if runtime == "openvino":
        import openvino

        openvino.Core()
    else:
        import onnxruntime  # noqa: F401
