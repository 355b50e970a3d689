"""What got slower since an earlier report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatedeploy.benchmarks.against import Against, Change, changes, read_earlier, unlike
from gatedeploy.benchmarks.latency import Latency, Measurement
from gatedeploy.benchmarks.page import render_json, render_markdown
from gatedeploy.errors import InputError
from tests.benchmarks.tiny import some_report

HERE = ("some <cpu>", 1, "onnxruntime")


def latency(mtl: Sequence[float], thin: Sequence[float], baseline: str = "mtl") -> Latency:
    """Rounds of one request each."""
    turns = {"mtl": tuple((time,) for time in mtl), "collapsed": tuple((time,) for time in thin)}
    return Latency(tuple(Measurement(name, each, each) for name, each in turns.items()), baseline, 0)


def written(path: Path, now: Latency) -> Path:
    """A report of these, as `bench` writes it."""
    report = some_report()
    chosen = [each for each in report.candidates if now.has(each.name)]
    candidates = [replace(each, measurement=now.of(each.name), ratio=now.ratio(each.name)) for each in chosen]
    path.write_text(render_json(replace(report, candidates=tuple(candidates))))
    return path


STEADY = latency([1.0, 1.01, 0.99, 1.0, 1.0, 1.02], [1.5, 1.52, 1.49, 1.5, 1.51, 1.53])


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return written(tmp_path / "report.json", STEADY)


def verdicts(earlier: Path, now: Latency, where: tuple[str, int, str] = HERE) -> dict[str, str]:
    return {each.candidate: each.verdict for each in changes(read_earlier(earlier), now, where)}


@pytest.mark.parametrize(
    ("mtl", "thin", "expected"),
    [
        ([1.0] * 6, [1.5] * 6, ("as before", "as before")),
        ([1.0] * 6, [1.8, 1.81, 1.8, 1.79, 1.8, 1.8], ("as before", "slower")),
        ([1.0] * 6, [1.2, 1.21, 1.2, 1.19, 1.2, 1.2], ("as before", "faster")),
        # A machine that is slower today hurts both: the ratio stays.
        ([2.0] * 6, [3.0] * 6, ("slower", "as before")),
        # Intervals do not overlap, but so little is no change.
        ([1.0] * 6, [1.55] * 6, ("as before", "as before")),
        ([1.0] * 6, [1.0, 3.0, 1.0, 3.0, 2.0, 2.9], ("as before", "too noisy to tell")),
    ],
)
def test_what_became_of_each(mtl: list[float], thin: list[float], expected: tuple[str, str], earlier: Path) -> None:
    assert verdicts(earlier, latency(mtl, thin)) == dict(zip(("mtl", "collapsed"), expected, strict=True))


def test_milliseconds_of_another_machine_are_not_compared(earlier: Path) -> None:
    now = latency([9.0] * 6, [13.5] * 6)
    assert verdicts(earlier, now, ("another", 1, "onnxruntime")) == {"collapsed": "as before"}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("some <cpu>", 2, "onnxruntime"), "was measured with threads 1, this one with 2; measure alike"),
        (("some <cpu>", 1, "openvino"), "was measured with runtime onnxruntime, this one with openvino; measure alike"),
    ],
)
def test_what_was_measured_in_another_way_is_not_compared(
    where: tuple[str, int, str], message: str, earlier: Path
) -> None:
    with pytest.raises(InputError, match=message):
        verdicts(earlier, STEADY, where)


def test_what_is_not_the_same_is_told(earlier: Path) -> None:
    then = read_earlier(earlier)
    same = [("a.pt", "0" * 64)], ["mtl", "collapsed"]
    assert unlike(then, *same, HERE) == []
    said = unlike(then, [*same[0], ("b.pt", "1" * 64)], ["mtl", "collapsed b"], ("another", 1, "onnxruntime"))
    assert said[0] == "The earlier report is not of b.pt: what changed may be the network."
    assert said[1].startswith("Nothing by the name of collapsed b is in the earlier report")
    assert said[2].startswith("The earlier report is of another processor (some <cpu>)")


def test_a_baseline_that_others_held_up_is_no_slower_one(tmp_path: Path) -> None:
    def held_up(share: float) -> Latency:
        turns = tuple((1 / (1 - share) + 0.001 * number,) for number in range(6))
        cpu = ((1.0,),) * 6
        return Latency(tuple(Measurement(name, turns, cpu) for name in ("mtl", "collapsed")), "mtl", 0)

    earlier = written(tmp_path / "report.json", held_up(0))
    found = {each.candidate: each for each in changes(read_earlier(earlier), held_up(0.5), HERE)}
    assert found["mtl"].verdict == "too noisy to tell"
    assert found["mtl"].now.low == 1  # what it takes without the time that others had
    assert found["collapsed"].verdict == "as before"


def samples(turns: Any, cpu: Any = ((1.0,),) * 3) -> dict[str, Any]:
    return {"mtl": {"latency": {"samples_ms": turns, "cpu_ms": cpu}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": samples([[1.0]] * 3, [[1.0]] * 2)}, "mtl has not as many processor times as samples"),
        ({"candidates": samples([[1e308]] * 3)}, r"a sample is 1e\+308; expected a number from 0 to 1e\+09"),
        ({"candidates": samples([[5e-324]] * 3)}, "requests take some time"),
        ({"candidates": samples([[0.0, 0.0, 1.0]] * 3, [[1.0] * 3] * 3)}, "requests take some time"),
        ({"candidates": samples([["1.0"]] * 3)}, "a sample is '1.0'"),
        ({"candidates": samples(["123"] * 3)}, "a sample is '1'"),
        ({"candidates": samples([[True]] * 3)}, "a sample is True"),
        ({"candidates": samples([])}, "there are no samples"),
        ({"latency": {"seed": float("inf"), "threads": 1, "runtime": "onnxruntime"}}, "seed is inf"),
        ({"latency": {"seed": -5, "threads": 1, "runtime": "onnxruntime"}}, "seed is -5"),
        ({"latency": {"seed": 0, "threads": "1", "runtime": "onnxruntime"}}, "threads is '1'"),
        ({"latency": {"seed": 0, "threads": 1, "runtime": 1}}, "runtime is 1; expected a text"),
        ({"created": None}, "created is None"),
    ],
)
def test_figures_that_nobody_measured_are_refused(change: dict[str, Any], message: str, earlier: Path) -> None:
    earlier.write_text(json.dumps({**json.loads(earlier.read_text()), **change}))
    with pytest.raises(InputError, match=f"is damaged \\(.*{message}.*\\); measure it again"):
        read_earlier(earlier)


def test_the_report_tells_it(earlier: Path) -> None:
    found = changes(read_earlier(earlier), latency([1.0] * 6, [1.8] * 6), HERE)
    assert isinstance(found[0], Change)
    against = Against("old/report.json", "2030-01-01 00:00 UTC", found)
    assert [each.candidate for each in against.slower] == ["collapsed"]
    report = replace(some_report(), against=against)
    text = render_markdown(report)
    assert "Beside old/report.json, measured 2030-01-01 00:00 UTC" in text
    assert "| 1.50 × | 1.80 × | slower by 20% |" in text
    told = json.loads(render_json(report))["against"]["changes"]["collapsed"]
    assert told["verdict"] == "slower"


NO_TIME = {"samples_ms": [[0.0]], "cpu_ms": [[0.0]]}


def damaged(change: dict[str, Any]) -> dict[str, Any]:
    return {**json.loads(render_json(some_report())), **change}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"nowhere\.json: no such file; expected the report\.json of an earlier benchmark"),
        ("{", "is no report.json"),
        ("[" * 100_000, r"is no report.json \(RecursionError\)"),
        ("[]", "is no report of gatedeploy bench"),
        (json.dumps({"format": "gatedeploy.report", "version": 1}), r"is of version 1; expected 2: measure it again"),
        (json.dumps(damaged({"candidates": {}})), "is damaged"),
        (json.dumps(damaged({"candidates": [{}]})), "is damaged"),
        (
            json.dumps(damaged({"candidates": {"mtl": {"latency": {"samples_ms": [[0]], "cpu_ms": [[0]]}}}})),
            "some time",
        ),
        (json.dumps(damaged({"paths": 3})), "is damaged"),
        (json.dumps(damaged({"baseline": "nobody"})), "its candidates were not measured together"),
        (json.dumps(damaged({"candidates": {"mtl": {"latency": {"samples_ms": [[-1]]}}}})), "from 0 to"),
        (json.dumps(damaged({"candidates": {"mtl": {"latency": {"samples_ms": [["x"]]}}}})), "is damaged"),
    ],
)
def test_other_files_are_refused(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=message):
        read_earlier(file)


def test_what_cannot_be_compared_is_explained(earlier: Path) -> None:
    with pytest.raises(InputError, match="compares with mtl, this one with collapsed; measure the same files"):
        verdicts(earlier, latency([1.0] * 6, [1.5] * 6, baseline="collapsed"))
    other = Latency((replace(STEADY.measurements[0], candidate="mtl"),), "mtl", 0)
    with pytest.raises(InputError, match="nothing that was measured in the earlier report was measured again"):
        verdicts(earlier, other, ("another", 1, "onnxruntime"))
