from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatedeploy.benchmarks.latency import Latency, Measurement
from gatedeploy.benchmarks.timing import Plan, Stopped, measure, request_of
from gatedeploy.errors import InputError
from gatedeploy.runners.base import Array, Runner, TensorSpec
from tests.benchmarks.tiny import Clock, Sleeper, image

PLAN = Plan(seconds=60, min_rounds=5, max_rounds=9, block_ms=0.001, warm_up_ms=0)


def run(times: dict[str, list[list[float]]], plan: Plan = PLAN, log: list[str] | None = None) -> Latency:
    """Measure candidates whose runners take the milliseconds in `times`, one list for each runner."""
    clock = Clock()
    candidates: dict[str, list[Runner]] = {
        name: [Sleeper(clock, each, log, name) for each in runners] for name, runners in times.items()
    }
    return measure(candidates, image(), next(iter(times)), plan, clock=clock, cpu_clock=clock)


def rounds(*times: float) -> list[float]:
    """What a runner takes so that its rounds take `times`: once to warm up, and once before each timed request."""
    return [times[0], *itertools.chain.from_iterable((1000.0, time) for time in times)]


def test_medians_percentiles_and_ratios_of_known_times() -> None:
    plan = Plan(seconds=60, min_rounds=5, max_rounds=5, block_ms=0.001, warm_up_ms=0)
    measured = run({"mtl": [rounds(2, 4, 2, 2, 2)], "thin": [rounds(3, 6, 3, 3, 30)]}, plan)
    assert measured.of("mtl").rounds_ms.tolist() == pytest.approx([2, 4, 2, 2, 2])
    assert measured.of("thin").median_ms == pytest.approx(3)
    ratio = measured.ratio("thin")
    # The second round was slow for both, and the ratio does not mind.
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(15)
    assert measured.ratio("mtl").value == measured.ratio("mtl").high == 1
    assert measured.ratio("mtl", "thin").value == pytest.approx(1 / 1.5)


def test_a_percentile_takes_ten_samples_beyond_it() -> None:
    times = [float(number) for number in range(1, 1001)]
    for count, ninetieth, ninety_ninth in (
        (99, None, None),
        (100, 90.1, None),
        (999, 899.2, None),
        (1000, 900.1, 990.01),
    ):
        measured = of_rounds(*times[:count])
        assert measured.percentile_ms(90) == (None if ninetieth is None else pytest.approx(ninetieth))
        assert measured.percentile_ms(99) == (None if ninety_ninth is None else pytest.approx(ninety_ninth))


def test_where_noise_hides_a_ratio_it_says_so() -> None:
    rows = [[1.0, 1.0], [1.0, 1.04], [1.0, 0.98], [1.0, 1.02], [1.0, 1.0], [1.0, 1.01]]
    quiet = Latency((of("mtl", [a for a, _ in rows]), of("thin", [b for _, b in rows])), "mtl", 0)
    assert quiet.ratio("thin").told
    rows = [[1.0, 1.0], [1.0, 2.0], [1.0, 0.7], [1.0, 1.9], [1.0, 0.8], [1.0, 2.1]]
    noisy = Latency((of("mtl", [a for a, _ in rows]), of("thin", [b for _, b in rows])), "mtl", 0)
    assert not noisy.ratio("thin").told


def test_a_runner_that_takes_one_picture_is_asked_picture_by_picture() -> None:
    seen: list[tuple[int, ...]] = []

    class One(Sleeper):
        def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
            seen.append(feed["image"].shape)
            return super().infer(feed)

    one = One(Clock(), [1.0])
    one.inputs = (TensorSpec("image", (1, 3, 8, 8), "float32"),)
    request_of([one], np.repeat(image(), 3, axis=0))()
    assert seen == [(1, 3, 8, 8)] * 3


def test_stopped_it_hands_on_the_rounds_that_were_whole() -> None:
    clock = Clock()

    class Stops(Sleeper):
        def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
            if self.calls == self.last:
                raise KeyboardInterrupt
            return super().infer(feed)

        last = 0

    plan = Plan(seconds=60, min_rounds=5, max_rounds=9, block_ms=0.001, warm_up_ms=0)
    candidates: dict[str, list[Runner]] = {"mtl": [Sleeper(clock, [2.0])], "thin": [Stops(clock, [3.0])]}
    stops = candidates["thin"][0]
    assert isinstance(stops, Stops)
    stops.last = 1 + 2 * 3 + 1  # in the fourth round
    with pytest.raises(Stopped) as stopped:
        measure(candidates, image(), "mtl", plan, clock=clock, cpu_clock=clock)
    latency = stopped.value.latency
    assert [len(each.samples_ms) for each in latency.measurements] == [3, 3]
    assert latency.ratio("thin").value == pytest.approx(1.5)
    stops.calls, stops.last = 0, 2  # in the first one: there is nothing to hand on
    with pytest.raises(KeyboardInterrupt) as nothing:
        measure(candidates, image(), "mtl", plan, clock=clock, cpu_clock=clock)
    assert not isinstance(nothing.value, Stopped)


def test_several_passes_are_one_request() -> None:
    measured = run({"mtl": [[1.0]], "stl": [[1.0], [2.0], [4.0]]})
    assert measured.of("stl").median_ms == pytest.approx(7)
    assert measured.ratio("stl").value == pytest.approx(7)


def test_requests_fill_a_turn_and_the_first_of_it_does_not_count() -> None:
    log: list[str] = []
    plan = Plan(seconds=60, min_rounds=1, max_rounds=4, block_ms=10, warm_up_ms=3)
    measured = run({"fast": [[1.0]], "slow": [[25.0]]}, plan, log)
    assert [len(turn) for turn in measured.of("fast").samples_ms] == [10] * 4
    assert [len(turn) for turn in measured.of("slow").samples_ms] == [1] * 4
    # Warm-up: 3 ms, or one request.
    assert log.count("fast") == 3 + 4 * (1 + 10)
    assert log.count("slow") == 1 + 4 * (1 + 1)


def test_candidates_take_turns_in_an_order_that_the_seed_decides() -> None:
    logs: list[list[str]] = [[], []]
    for log in logs:
        run({"a": [[1.0]], "b": [[1.0]], "c": [[1.0]]}, log=log)
    assert logs[0] == logs[1]
    turns = [name for name, _ in itertools.groupby(logs[0][3:])]
    by_round = [tuple(logs[0][3:][start : start + 6 : 2]) for start in range(0, 6 * PLAN.max_rounds, 6)]
    assert all(sorted(names) == ["a", "b", "c"] for names in by_round)
    assert len(set(by_round)) > 1
    assert turns != sorted(turns)


def test_measuring_ends_when_the_time_is_up_but_not_before_the_least_rounds() -> None:
    for seconds, expected in ((0.0, 5), (0.7, 7), (100.0, 9)):
        plan = Plan(seconds=seconds, min_rounds=5, max_rounds=9, block_ms=0.001, warm_up_ms=0)
        measured = run({"a": [[50.0]]}, plan)  # 100 ms a round, half of it not counted
        assert len(measured.of("a").samples_ms) == expected


def of_rounds(*times: float) -> Measurement:
    return of("thin", times)


def of(name: str, times: Sequence[float]) -> Measurement:
    turns = tuple((time,) for time in times)
    return Measurement(name, turns, turns)


def test_a_quiet_measurement_does_not_complain() -> None:
    quiet = of_rounds(1.0, 1.02, 0.99, 1.01, 1.0, 1.03, 0.98)
    assert quiet.complaint == ""
    assert Latency((quiet,), "thin", 0).complaints == []


def test_a_large_spread_is_complained_of() -> None:
    noisy = of_rounds(1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.0)
    assert noisy.complaint == "thin: rounds differ by 50% (interquartile range over median; quiet is up to 10%)."
    assert Latency((of_rounds(1, 1, 1), noisy), "thin", 0).complaints == [noisy.complaint]


@pytest.mark.parametrize(("last", "word"), [(1.2, "slower"), (0.8, "faster")])
def test_a_drift_is_complained_of(last: float, word: str) -> None:
    drifting = of_rounds(*[1.0] * 12, *[last] * 3)
    assert drifting.complaint == f"thin: became 20% {word} while it was measured (quiet is up to 10%)."


def test_a_processor_that_others_have_is_complained_of_and_processor_times_are_not_hurt() -> None:
    # Each request of 4 ms is held up for 6 ms by others; those of 1 ms fit between.
    short = Measurement("mtl", ((1.0, 1.0),) * 5, ((1.0, 1.0),) * 5)
    held_up = Measurement("thin", ((10.0, 10.0),) * 5, ((4.0, 4.0),) * 5)
    latency = Latency((short, held_up), "mtl", 0)
    assert latency.complaints == [
        "Other processes had the processor for up to 60% of the time (quiet is up to 10%), which hurts long requests "
        "more than short ones."
    ]
    ratio = latency.ratio("thin")
    assert (ratio.value, ratio.low, ratio.high) == (10, 4, 10)
    assert not ratio.told
    cpu_ratio = latency.cpu_ratio("thin")
    assert cpu_ratio is not None
    assert cpu_ratio.value == 4


def test_several_candidates_count_by_their_mean_within_a_round() -> None:
    latency = Latency((of("mtl", (1, 2, 1)), of("small", (2, 4, 2)), of("large", (4, 8, 4))), "mtl", 0)
    ratio = latency.ratio_of(["small", "large"], ["mtl"])
    assert (ratio.value, ratio.low, ratio.high) == (3, 3, 3)


def test_processor_time_is_taken_from_its_own_clock() -> None:
    clock = Clock()
    measured = measure({"a": [Sleeper(clock, [2.0])]}, image(), "a", PLAN, clock=clock, cpu_clock=lambda: clock.now / 2)
    assert measured.of("a").waiting == pytest.approx(0.5)
    coarse = measure({"a": [Sleeper(clock, [2.0])]}, image(), "a", PLAN, clock=clock, cpu_clock=lambda: 0.0)
    assert coarse.cpu_ratio("a") is None


def test_one_disturbed_round_is_no_noise() -> None:
    assert of_rounds(1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0).complaint == ""


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=9), st.floats(0.1, 10))
def test_the_ratio_of_a_constant_factor_is_that_factor_whatever_the_machine_does(
    times: list[float], factor: float
) -> None:
    base = of_rounds(*times)
    turns = tuple((factor * time,) for time in times)
    scaled = Measurement("scaled", turns, turns)
    ratio = Latency((base, scaled), "thin", 0).ratio("scaled")
    assert ratio.value == pytest.approx(factor)
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


def test_impossible_measurements_are_explained() -> None:
    with pytest.raises(InputError, match="the baseline 'mtl' is none of the candidates thin"):
        measure({"thin": [Sleeper(Clock(), [1.0])]}, image(), "mtl", PLAN, clock=Clock())
    with pytest.raises(InputError, match="the clock stands still, so nothing can be measured with it"):
        measure({"thin": [Sleeper(Clock(), [1.0])]}, image(), "thin", PLAN, clock=Clock())
