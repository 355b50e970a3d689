"""How networks answer: one request at a time, in batches, and when requests come as they like.

The scenarios are those of MLPerf inference (Reddi et al., ISCA 2020), at a laptop's scale: MLPerf-style, not compliant.

    single-stream   the next request is made when the last is answered: `latency.measure`
    multi-stream    likewise, of requests of eight pictures
    offline         all pictures are there: the batch that gets most of them done
    server          requests come at random moments: `offered_load`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from gatedeploy.benchmarks.energy import Energy
from gatedeploy.benchmarks.footprint import Footprint
from gatedeploy.benchmarks.latency import NOISY_SPREAD, Latency
from gatedeploy.benchmarks.layers import Layer
from gatedeploy.benchmarks.offered_load import SLOWED, Offered, offer
from gatedeploy.benchmarks.timing import Plan, measure, request_of
from gatedeploy.runners.base import Array, Runner

STYLE = "MLPerf-style, not compliant"
MULTI_STREAM = 8
"""Pictures of a request, as MLPerf has it."""

Runners = Mapping[str, Sequence[Runner]]
"""By candidate, what one request runs, one after the other."""


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        single: of single requests.
        batches: sizes; `MULTI_STREAM` is among them.
        batch: of each size.
        loads: what is offered, as shares of what the baseline could answer.
        seconds: for how long each is offered.
        energy_seconds: for how long each candidate runs for its energy.
    """

    single: Plan
    batches: tuple[int, ...]
    batch: Plan
    loads: tuple[float, ...]
    seconds: float
    energy_seconds: float


QUICK = Effort(
    single=Plan(seconds=20, min_rounds=7, max_rounds=200, block_ms=15, warm_up_ms=100),
    batches=(2, 8),
    batch=Plan(seconds=4, min_rounds=3, max_rounds=10, block_ms=15, warm_up_ms=30),
    loads=(0.1, 0.2, 0.4, 0.8),
    seconds=1.0,
    energy_seconds=0.5,
)
FULL = Effort(
    single=Plan(seconds=120, min_rounds=15, max_rounds=500, block_ms=40, warm_up_ms=500),
    batches=(2, 4, 8, 16, 32),
    batch=Plan(seconds=15, min_rounds=7, max_rounds=50, block_ms=40, warm_up_ms=100),
    loads=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    seconds=5.0,
    energy_seconds=3.0,
)


@dataclass
class Scenarios:
    """What was measured beside single requests; what was not, or not yet, is empty.

    Args:
        batches: by batch size.
        offered: by candidate, from the least that was offered.
        footprints: by candidate.
        energy: by candidate; empty where the machine does not tell.
        layers: by candidate, where its time and multiply-adds go; empty but in ONNX Runtime.
    """

    batches: dict[int, Latency] = field(default_factory=dict)
    offered: dict[str, Sequence[Offered]] = field(default_factory=dict)
    footprints: dict[str, Footprint] = field(default_factory=dict)
    energy: dict[str, Energy] = field(default_factory=dict)
    layers: dict[str, Sequence[Layer]] = field(default_factory=dict)

    def complaints(self, single: Latency) -> list[str]:
        """What makes batches and offered load doubtful, in sentences; empty when all was quiet.

        Args:
            single: what was measured of single requests.
        """
        said = []
        spreads = {(size, each.candidate): each.spread for size, of in self.batches.items() for each in of.measurements}
        size, name = max(spreads, key=lambda key: spreads[key], default=(0, ""))
        if spreads and spreads[size, name] > NOISY_SPREAD:
            said.append(
                f"Throughput: rounds differ by up to {spreads[size, name]:.0%} ({name}, {size} pictures; quiet is up "
                f"to {NOISY_SPREAD:.0%})."
            )
        slowed = {
            (name, each.rate): each.slowed(single.of(name).median_ms)
            for name, of in self.offered.items()
            for each in of
            if not each.saturated
        }
        name, rate = max(slowed, key=lambda key: slowed[key], default=("", 0.0))
        if slowed and slowed[name, rate] > SLOWED:
            said.append(
                f"Offered load: requests took up to {slowed[name, rate]:.1f} times as long as single ones ({name}, "
                f"{rate:.0f} a second; quiet is up to {SLOWED:g}), so others had the processor."
            )
        return said


def sweep_batches(
    open_at: Callable[[int, ExitStack], Runners], image: Array, baseline: str, effort: Effort, seed: int
) -> Iterator[tuple[int, Latency]]:
    """Time requests of several pictures, candidates in turns, size after size; see `latency.measure`.

    Args:
        open_at: runners of all candidates that take so many pictures, or one at a time; the stack closes them.
        image: one picture, `(1, channels, height, width)`.
        baseline: the candidate to compare with.
        effort: says which sizes, and how long.
        seed: of the order of turns.
    """
    for size in effort.batches:
        with ExitStack() as stack:
            pictures = np.repeat(image, size, axis=0)
            yield size, measure(open_at(size, stack), pictures, baseline, effort.batch, seed=seed)


def offer_loads(
    runners: Runners, image: Array, capacity: float, effort: Effort, seed: int
) -> Iterator[tuple[str, list[Offered]]]:
    """Offer the same loads to all candidates, one after the other; who cannot keep up with one is offered no more.

    Args:
        runners: of all candidates.
        image: one picture, `(1, channels, height, width)`.
        capacity: requests a second that the baseline could answer.
        effort: says which shares of it, and how long.
        seed: of the moments at which requests come, which are the same for all.
    """
    for name, each in runners.items():
        request = request_of(each, image)
        request()
        found: list[Offered] = []
        for load in effort.loads:
            found.append(offer(request, load * capacity, effort.seconds, seed=seed))
            if found[-1].saturated:
                break
        yield name, found
