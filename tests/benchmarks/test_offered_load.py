"""Arrivals by chance, on a clock that stands still unless something is waited for or computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from gatedeploy.benchmarks.offered_load import SPIN_S, Offered, offer

TICK = 1e-5


@dataclass
class World:
    """A clock that ticks when it is asked, and a network that takes some milliseconds."""

    service_ms: float
    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        self.now += TICK
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def request(self) -> None:
        self.now += self.service_ms / 1e3


def offered(service_ms: float, rate: float, seconds: float, seed: int = 0) -> Offered:
    world = World(service_ms)
    return offer(world.request, rate, seconds, seed=seed, clock=world.clock, sleep=world.sleep)


def test_waiting_is_what_queueing_theory_says() -> None:
    """One server, service s, Poisson arrivals: the mean wait is ρ·s / (2·(1 − ρ)) (Pollaczek and Khinchine)."""
    for load in (0.3, 0.6, 0.8):
        found = offered(10.0, rate=load * 100, seconds=20_000 / (load * 100))
        assert len(found.latencies_ms) == 20_000
        assert found.busy == pytest.approx(load, rel=0.03)
        expected = 10 + load * 10 / (2 * (1 - load))
        assert np.mean(found.latencies_ms) == pytest.approx(expected, rel=0.05)
        assert min(found.latencies_ms) == pytest.approx(10, rel=0.01)


def test_the_moments_follow_from_the_seed() -> None:
    assert offered(10, 50, 2).latencies_ms == offered(10, 50, 2).latencies_ms
    assert offered(10, 50, 2).latencies_ms != offered(10, 50, 2, seed=1).latencies_ms


def test_of_more_than_it_answers_no_percentile_is_told() -> None:
    found = offered(10, rate=130, seconds=20)
    assert found.saturated
    assert found.percentile_ms(50) is None
    third = len(found.latencies_ms) // 3
    assert np.mean(found.latencies_ms[-third:]) > 2 * np.mean(found.latencies_ms[:third])  # it grows and grows


def test_percentiles_are_told_of_enough_requests_alone() -> None:
    few, many = offered(1, 100, 5), offered(1, 100, 20)
    assert not few.saturated
    assert few.percentile_ms(90) is not None
    assert few.percentile_ms(99) is None
    assert many.percentile_ms(99) == pytest.approx(np.percentile(many.latencies_ms, 99))


def test_it_does_not_oversleep() -> None:
    world = World(1.0)
    offer(world.request, 10, 3, clock=world.clock, sleep=world.sleep)
    assert len(world.slept) > 20
    assert min(world.slept) > 0
    found = offer(world.request, 10, 3, clock=world.clock, sleep=lambda seconds: world.sleep(seconds + SPIN_S))
    assert min(found.latencies_ms) == pytest.approx(1, abs=0.05)
