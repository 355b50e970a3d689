"""What got slower since an earlier report.

Two runs never find a machine in the same state, so what is compared first is each candidate's latency over that of the
baseline in the same run. The baseline itself can only be compared in milliseconds, and only on the same processor. What
ran in another runtime or with another number of threads is something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gatedeploy.benchmarks.latency import Latency, Measurement, Ratio
from gatedeploy.errors import InputError, located

FORMAT, VERSION = "gatedeploy.report", 2
SHORTEST_MS, LONGEST_MS = 1e-6, 1e9
"""What a request may take to be believed: a nanosecond to twelve days, so that no ratio leaves what floats hold."""

LEAST = 0.1
"""A smaller change is none: the same networks measured twice differ by as much, whatever one run's intervals say."""

NOTHING = "nothing that was measured in the earlier report was measured again"

Verdict = Literal["slower", "faster", "as before", "too noisy to tell"]
Where = tuple[str, int, str]
"""Processor, threads and runtime."""


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
        where: it was measured.
        files: hashes of what was measured.
    """

    created: str
    latency: Latency
    where: Where
    files: frozenset[str]


@dataclass(frozen=True)
class Against:
    """What became of the candidates of an earlier report.

    Args:
        path: of the earlier report.
        created: when it was.
        changes: candidate by candidate.
    """

    path: str
    created: str
    changes: tuple[Change, ...]

    @property
    def slower(self) -> list[Change]:
        """Those that got slower."""
        return [each for each in self.changes if each.verdict == "slower"]

    def plain(self) -> dict[str, Any]:
        """In JSON types."""
        told = {
            each.candidate: {"before": asdict(each.before), "now": asdict(each.now), "verdict": each.verdict}
            for each in self.changes
        }
        return {"path": self.path, "created": self.created, "changes": told}


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
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"is no report.json ({type(error).__name__})") from None
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            raise InputError("is no report of gatedeploy bench; expected its report.json")
        if plain.get("version") != VERSION:
            raise InputError(f"is of version {plain.get('version')!r}; expected {VERSION}: measure it again")
        try:
            return _earlier(plain)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"is damaged ({type(error).__name__}: {error}); measure it again") from None


def check_comparable(earlier: Earlier, baseline: str, names: Sequence[str], where: Where) -> None:
    """Raise `InputError` unless ratios refer to the same baseline, and something is measured both times in one way.

    Args:
        earlier: what was.
        baseline: the candidate that all are compared with now.
        names: what is measured now.
        where: it is measured now.
    """
    then = earlier.latency
    for what, before, now in zip(("threads", "runtime"), earlier.where[1:], where[1:], strict=True):
        if before != now:
            raise InputError(
                f"the earlier report was measured with {what} {before}, this one with {now}; measure alike"
            )
    if then.baseline != baseline:
        raise InputError(
            f"the earlier report compares with {then.baseline}, this one with {baseline}; measure the same files"
        )
    if not any(then.has(name) for name in names):
        raise InputError(NOTHING)


def unlike(earlier: Earlier, files: Sequence[tuple[str, str]], names: Sequence[str], where: Where) -> list[str]:
    """What makes a comparison with an earlier report another than that of the same networks, in sentences.

    Args:
        earlier: what was.
        files: path and hash of what is measured now.
        names: of the candidates now.
        where: it is measured now.
    """
    said = []
    if other := [path for path, sha256 in files if sha256 not in earlier.files]:
        said.append(f"The earlier report is not of {', '.join(other)}: what changed may be the network.")
    if new := [name for name in names if not earlier.latency.has(name)]:
        said.append(f"Nothing by the name of {', '.join(new)} is in the earlier report, so it is not compared.")
    if earlier.where[0] != where[0]:
        said.append(f"The earlier report is of another processor ({earlier.where[0]}), on which ratios differ, too.")
    return said


def changes(earlier: Earlier, now: Latency, where: Where) -> tuple[Change, ...]:
    """What became of each candidate that both have.

    Args:
        earlier: what was.
        now: what is.
        where: it was measured now.

    Raises:
        InputError: ratios refer to different baselines, or nothing was measured both times in one way.
    """
    check_comparable(earlier, now.baseline, [each.candidate for each in now.measurements], where)
    then = earlier.latency
    found = []
    for each in now.measurements:
        name = each.candidate
        if not then.has(name):
            continue
        if name == now.baseline:
            if earlier.where != where:
                continue
            pair = then.milliseconds(name), now.milliseconds(name)
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


def _earlier(plain: Mapping[str, Any]) -> Earlier:
    measurements = []
    for name, candidate in dict(plain["candidates"]).items():
        samples, cpu = (_turns(candidate["latency"][key]) for key in ("samples_ms", "cpu_ms"))
        if [len(turn) for turn in samples] != [len(turn) for turn in cpu]:
            raise ValueError(f"{name} has not as many processor times as samples")
        if any(np.median(turn) < SHORTEST_MS for turn in samples):
            raise ValueError("requests take some time")
        measurements.append(Measurement(name, samples, cpu))
    said = plain["latency"]
    latency = Latency(tuple(measurements), plain["baseline"], _number("seed", said["seed"], int))
    rounds = {len(each.samples_ms) for each in measurements}
    if len(rounds) != 1 or not latency.has(latency.baseline):
        raise ValueError("its candidates were not measured together")
    where = (
        _text("cpu", plain["environment"]["cpu"]),
        _number("threads", said["threads"], int),
        _text("runtime", said["runtime"]),
    )
    created = _text("created", plain["created"])
    return Earlier(created, latency, where, frozenset(str(each["sha256"]) for each in plain["paths"]))


def _turns(turns: Any) -> tuple[tuple[float, ...], ...]:
    found = tuple(tuple(_number("a sample", sample, int, float) for sample in turn) for turn in turns)
    if not all(found) or not found:
        raise ValueError("there are no samples")
    return found


def _number(what: str, value: Any, *kinds: type) -> Any:
    """A value that is a number of one of these types, such as a measurement has; a bool is none."""
    if type(value) not in kinds or not 0 <= value <= LONGEST_MS:
        raise ValueError(f"{what} is {value!r:.80}; expected a number from 0 to {LONGEST_MS:g}")
    return value


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r:.80}; expected a text")
    return value
