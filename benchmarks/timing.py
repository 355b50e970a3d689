"""Time candidates side by side.

On a machine that does other things too, no absolute time is worth much. So the candidates take turns, in a new random
order each round, and what is reported first are ratios within a round. A request is everything that answers all tasks:
the passes of T networks are timed as one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gatedeploy.benchmarks.latency import Latency, Measurement
from gatedeploy.errors import InputError
from gatedeploy.runners.base import Array, Runner

Clock = Callable[[], float]
"""Seconds, from any start."""

MAX_REPEATS = 50
"""Requests in one turn, so that raw samples of a tiny network still fit a report."""

MAX_WARM_UPS = 10_000


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Args:
        seconds: when they are used up, the round that runs is the last.
        min_rounds: but not before so many.
        max_rounds: and never more.
        block_ms: about how long one candidate's turn lasts; a slow one answers one request a turn.
        warm_up_ms: how long each candidate runs before anything counts.
    """

    seconds: float
    min_rounds: int
    max_rounds: int
    block_ms: float
    warm_up_ms: float


class Stopped(KeyboardInterrupt):
    """Somebody stopped a measurement; `latency` is what there was of it, from the rounds that were complete."""

    def __init__(self, latency: Latency) -> None:
        super().__init__()
        self.latency = latency


def measure(
    candidates: Mapping[str, Sequence[Runner]],
    image: Array,
    baseline: str,
    plan: Plan,
    *,
    seed: int = 0,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Latency:
    """Time candidates in turns, in this process.

    Args:
        candidates: by name, the runners that one request runs one after the other.
        image: `(batch, channels, height, width)`; cast to what a runner takes. A runner that takes a batch of one alone
            is asked picture by picture.
        baseline: the candidate to compare with.
        plan: how long.
        seed: of the order of turns and of the bootstrap.
        clock: tells the time.
        cpu_clock: tells how much processor time this process has used.

    Raises:
        InputError: there is nothing to measure, the baseline is none of the candidates, or the clock stands still.
        Stopped: it was interrupted after a whole round.
    """
    if baseline not in candidates:
        raise InputError(f"the baseline {baseline!r} is none of the candidates {', '.join(candidates) or '(none)'}")
    requests = {name: request_of(runners, image) for name, runners in candidates.items()}
    repeats = {name: _warm_up(request, plan, clock) for name, request in requests.items()}
    order = list(requests)
    shuffle = random.Random(seed).shuffle
    turns: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in requests}
    start = clock()
    try:
        for number in range(plan.max_rounds):
            if number >= plan.min_rounds and clock() - start >= plan.seconds:
                break
            shuffle(order)
            for name in order:
                requests[name]()  # brings the network back into the caches, and does not count
                turns[name].append([_times_ms(requests[name], clock, cpu_clock) for _ in range(repeats[name])])
    except KeyboardInterrupt:
        rounds = min(map(len, turns.values()))
        if not rounds:
            raise
        whole = {name: taken[:rounds] for name, taken in turns.items()}
        raise Stopped(_latency(whole, baseline, seed)) from None
    return _latency(turns, baseline, seed)


def _latency(turns: Mapping[str, Sequence[Sequence[tuple[float, float]]]], baseline: str, seed: int) -> Latency:
    measurements = tuple(_measurement(name, taken) for name, taken in turns.items())
    if any(each.rounds_ms.min() <= 0 for each in measurements):
        raise InputError("the clock stands still, so nothing can be measured with it")
    return Latency(measurements, baseline, seed)


def request_of(runners: Sequence[Runner], image: Array) -> Callable[[], None]:
    """What runs all runners once, one after the other; `image` as for `measure`."""
    calls = []
    for runner in runners:
        taken = runner.inputs[0]
        pictures = np.ascontiguousarray(image, taken.dtype)
        parts = np.split(pictures, len(pictures)) if taken.shape[0] == 1 else [pictures]
        calls += [(runner.infer, {taken.name: part}) for part in parts]

    def request() -> None:
        for infer, feed in calls:
            infer(feed)

    return request


def _warm_up(request: Callable[[], None], plan: Plan, clock: Clock) -> int:
    """Run for a while; returns how many requests fill a turn."""
    times = [_times_ms(request, clock, clock)[0]]
    while sum(times) < plan.warm_up_ms and len(times) < MAX_WARM_UPS:
        times.append(_times_ms(request, clock, clock)[0])
    return min(MAX_REPEATS, max(1, round(plan.block_ms / max(float(np.median(times)), 1e-3))))


def _times_ms(request: Callable[[], None], clock: Clock, cpu_clock: Clock) -> tuple[float, float]:
    """The time that a request takes, and the processor time that it uses."""
    cpu_start, start = cpu_clock(), clock()
    request()
    end, cpu_end = clock(), cpu_clock()
    return 1e3 * (end - start), 1e3 * (cpu_end - cpu_start)


def _measurement(name: str, turns: Sequence[Sequence[tuple[float, float]]]) -> Measurement:
    samples, cpu = (tuple(tuple(times[which] for times in turn) for turn in turns) for which in (0, 1))
    return Measurement(name, samples, cpu)
