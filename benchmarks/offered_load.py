"""How long a request takes when requests come as they like: arrivals by chance, first come, first served.

What MLPerf calls its server scenario (Reddi et al., "MLPerf inference benchmark", ISCA 2020), here with one network
that answers one request after the other: arrivals are a Poisson process, and a request that comes while another is
computed waits. The time until it is answered, waiting and all, is its latency. As more is offered, waiting grows
without bound before the network is busy all the time; beyond that nothing settles.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gatedeploy.benchmarks.latency import percentile
from gatedeploy.benchmarks.timing import Clock

SPIN_S = 1e-3
"""Sleeping ends late by about as much, so the last of a wait is spent asking the clock."""

SLOWED = 1.5
"""How many times as long as single requests they may take before it is told. Some is usual: the processor has slept."""

SATURATED = 0.98
"""Busy for so much of the time, a network answers less than comes in: its latencies say how long it was measured."""


@dataclass(frozen=True)
class Offered:
    """What became of requests that came at some rate.

    Args:
        rate: requests offered, per second.
        latencies_ms: from a request's arrival to its answer, in their order.
        busy: the share of the time in which something was computed.
    """

    rate: float
    latencies_ms: tuple[float, ...]
    busy: float

    def slowed(self, single_ms: float) -> float:
        """How many times as long as `single_ms` a request was computed, the mean."""
        return 1e3 * self.busy / (self.rate * single_ms)

    @property
    def saturated(self) -> bool:
        """Whether more came than was answered."""
        return self.busy >= SATURATED

    def percentile_ms(self, percent: int) -> float | None:
        """The latency that so many requests of a hundred do not exceed; None of too few, or of more than it answers."""
        return None if self.saturated else percentile(np.array(self.latencies_ms), percent)


def offer(
    request: Callable[[], None],
    rate: float,
    seconds: float,
    *,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Offered:
    """Offer requests at random moments and answer them in turn.

    Args:
        request: answers one.
        rate: requests per second, the mean.
        seconds: for how long they come; those that came by then are all answered.
        seed: of the moments.
        clock: tells the time.
        sleep: waits for some seconds, or less.
    """
    draw = random.Random(seed)
    count = max(1, round(rate * seconds))
    arrivals = list(accumulate(draw.expovariate(rate) for _ in range(count)))
    latencies, computed = [], 0.0
    start = clock()
    for arrival in arrivals:
        while (left := start + arrival - clock()) > 0:
            if left > SPIN_S:
                sleep(left - SPIN_S)
        begun = clock()
        request()
        end = clock()
        computed += end - begun
        latencies.append(1e3 * (end - start - arrival))
    return Offered(rate, tuple(latencies), computed / (clock() - start))
