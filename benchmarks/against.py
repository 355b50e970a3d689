"""What got slower since an earlier report.

Two runs never find a machine in the same state, so what is compared first is each candidate's latency over that of the
baseline in the same run. The baseline itself can only be compared in milliseconds, and only on the same processor with
as many threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gatedeploy.benchmarks.latency import Latency, Measurement, Ratio
from gatedeploy.errors import InputError, located

FORMAT, VERSION = "gatedeploy.report", 2
LEAST = 0.05
"""A smaller change is none: the same code measured twice differs by as much."""

NOTHING = "nothing that was measured in the earlier report was measured again"

Verdict = Literal["slower", "faster", "as before", "too noisy to tell"]


@dataclass(frozen=True)
class Change:
    """One candidate, then and now.

    Args:
        candidate: its name.
        before: latency over the baseline's, then; of the baseline itself milliseconds.
        now: the same now.
        verdict: what became of it.
    """

    candidate: str
    before: Ratio
    now: Ratio
    verdict: Verdict

    @property
    def factor(self) -> float:
        """By how much it takes longer."""
        return self.now.value / self.before.value


@dataclass(frozen=True)
class Earlier:
    """An earlier report, as far as it is compared with.

    Args:
        created: when.
        latency: of its single requests.
        where: processor, threads and runtime.
    """

    created: str
    latency: Latency
    where: tuple[str, int, str]


def read_earlier(path: Path) -> Earlier:
    """Read a `report.json`.

    Raises:
        InputError: no such file, or something else.
    """
    with located(str(path)):
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError("no such file; expected the report.json of an earlier benchmark") from None
        except (OSError, ValueError) as error:
            raise InputError(f"is no report.json ({type(error).__name__})") from None
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise InputError("is no report of gatedeploy bench; expected its report.json")
        if plain.get("version") != VERSION:
            raise InputError(f"is of version {plain.get('version')!r}; expected {VERSION}: measure it again")
        try:
            return _earlier(plain)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"is damaged ({type(error).__name__}: {error}); measure it again") from None


def check_comparable(earlier: Earlier, baseline: str, names: Sequence[str]) -> None:
    """Raise `InputError` unless ratios refer to the same baseline, and something is measured both times.

    Args:
        earlier: what was.
        baseline: the candidate that all are compared with now.
        names: what is measured now.
    """
    then = earlier.latency
    if then.baseline != baseline:
        raise InputError(
            f"the earlier report compares with {then.baseline}, this one with {baseline}; measure the same files"
        )
    if not any(then.has(name) for name in names):
        raise InputError(NOTHING)


def changes(earlier: Earlier, now: Latency, where: tuple[str, int, str]) -> tuple[Change, ...]:
    """What became of each candidate that both have.

    Args:
        earlier: what was.
        now: what is.
        where: processor, threads and runtime now.

    Raises:
        InputError: ratios refer to different baselines, or nothing was measured both times.
    """
    check_comparable(earlier, now.baseline, [each.candidate for each in now.measurements])
    then = earlier.latency
    found = []
    for each in now.measurements:
        name = each.candidate
        if not then.has(name):
            continue
        if name == now.baseline:
            if earlier.where != where:
                continue
            pair = _milliseconds(then, name), _milliseconds(now, name)
        else:
            pair = then.ratio(name), now.ratio(name)
        found.append(Change(name, *pair, _verdict(*pair)))
    if not found:
        raise InputError(NOTHING)
    return tuple(found)


def _verdict(before: Ratio, now: Ratio) -> Verdict:
    if not (before.told and now.told):
        return "too noisy to tell"
    if now.low > before.high and now.value > (1 + LEAST) * before.value:
        return "slower"
    if now.high < before.low and before.value > (1 + LEAST) * now.value:
        return "faster"
    return "as before"


def _milliseconds(latency: Latency, name: str) -> Ratio:
    return latency.sure(latency.of(name).rounds_ms)


def _earlier(plain: Mapping[str, Any]) -> Earlier:
    measurements = []
    for name, candidate in plain["candidates"].items():
        samples, cpu = (_turns(candidate["latency"][key]) for key in ("samples_ms", "cpu_ms"))
        measurements.append(Measurement(str(name), samples, cpu))
    latency = Latency(tuple(measurements), str(plain["baseline"]), int(plain["latency"]["seed"]))
    rounds = {len(each.samples_ms) for each in measurements}
    if len(rounds) != 1 or not latency.has(latency.baseline):
        raise ValueError("its candidates were not measured together")
    where = plain["environment"]["cpu"], plain["latency"]["threads"], plain["latency"]["runtime"]
    return Earlier(str(plain["created"]), latency, where)


def _turns(turns: Any) -> tuple[tuple[float, ...], ...]:
    found = tuple(tuple(float(sample) for sample in turn) for turn in turns)
    if not all(turn and np.isfinite(turn).all() and min(turn) >= 0 for turn in found) or not found:
        raise ValueError("samples must be numbers of at least 0")
    return found
