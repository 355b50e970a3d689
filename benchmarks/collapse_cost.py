"""What collapsing costs: seconds by stage and peak memory, for ResNet-50 at output stride 8 with ASPP heads.

    python -m gatedeploy.benchmarks.collapse_cost [--tasks 3] [--size 480 640] [--specific 0.3] [--verify]

Memory is what the process holds at its peak, beyond what it held before, in units of the gated network's weights.
`gd.collapse` verifies its result too: it runs both networks on three full-size pictures in float64, whose convolutions
unfold their inputs. What that takes is told apart, and only when asked for.
"""

from __future__ import annotations

import argparse
import resource
import threading
import time
from pathlib import Path

import torch

import gatedeploy as gd
from gatedeploy.benchmarks.random_gates import Trunk, random_gates
from gatedeploy.compiler import Collapsed
from gatedeploy.graph.capture import capture
from gatedeploy.graph.cost import cost
from gatedeploy.lowering import lower

MIB = 1 << 20


class PeakMemory:
    """The largest resident size of this process while the block runs, sampled every 20 ms."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--specific", type=float, default=0.3, help="share of task-specific channels")
    parser.add_argument("--verify", action="store_true", help="verify too, and say how long it takes")
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1])
    network = random_gates(Trunk("resnet50", {"output_stride": 8}, "aspp", size), arguments.tasks, arguments.specific)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    example = torch.zeros(1, 3, *size)
    print(f"ResNet-50 OS8 + ASPP, T = {arguments.tasks}, {size[0]}×{size[1]}, {arguments.specific:.0%} specific")
    started = time.perf_counter()
    with PeakMemory() as memory:
        program = capture(network, example)
        captured = time.perf_counter()
        thin = Collapsed(lower(program).program).float()
        done = time.perf_counter()
    print(f"{cost(program).macs / 1e9:.1f} → {cost(thin.program).macs / 1e9:.1f} GMACs")
    print(f"capture {captured - started:.1f} s, passes {done - captured:.1f} s, in all {done - started:.1f} s")
    extra = memory.peak - memory.before
    print(f"weights {weights / MIB:.0f} MiB, peak {extra / MIB:.0f} MiB more: {extra / weights:.2f} × the weights")
    if arguments.verify:
        del thin
        with PeakMemory() as memory:
            report = gd.collapse(program, target=None).report
        assert report is not None
        extra = memory.peak - memory.before
        print(f"verification {report.seconds['verification']:.0f} s: {report.parity.error}")
        print(f"with it, peak {extra / MIB:.0f} MiB more: {extra / weights:.2f} × the weights")


if __name__ == "__main__":
    main()
