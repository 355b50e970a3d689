"""The whole way, from a checkpoint to a report."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from jsonschema import validate

import gatedeploy as gd
from gatedeploy.benchmarks.bench import bench
from gatedeploy.benchmarks.bench_options import BenchOptions
from gatedeploy.benchmarks.candidates import mixture_candidates
from gatedeploy.benchmarks.flops import file_costs, recipe_costs
from gatedeploy.benchmarks.page import TEMPLATES, render_json
from gatedeploy.benchmarks.rivals import mixture_of_recipe
from gatedeploy.benchmarks.runners import open_candidate, picture
from gatedeploy.benchmarks.scenarios import Effort
from gatedeploy.benchmarks.timing import Plan, measure
from gatedeploy.errors import MissingExtraError
from gatedeploy.exporters import export
from gatedeploy.graph.cost import cost
from gatedeploy.training.recipe_file import load_recipe
from tests.benchmarks.tiny import BACKBONE_MACS, EXAMPLE, HEAD_MACS, RECIPE_INFO, save_gated, some_report

SCHEMA = json.loads((TEMPLATES / "report.schema.json").read_text(encoding="utf-8"))
PLAN = Plan(seconds=0, min_rounds=3, max_rounds=3, block_ms=1, warm_up_ms=1)
EFFORT = Effort(single=PLAN, batches=(2, 8), batch=PLAN, loads=(0.2, 0.8), seconds=0.05, energy_seconds=0.05)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gated(tmp_path_factory.mktemp("run") / "checkpoint.pt")


@pytest.fixture(scope="module")
def collapsed(checkpoint: Path) -> Path:
    path = checkpoint.with_name("collapsed.safetensors")
    gd.save(gd.collapse(gd.load(checkpoint), example_input=EXAMPLE), path)
    return path


@pytest.mark.slow
def test_from_a_checkpoint_to_a_report(checkpoint: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = bench([checkpoint], tmp_path / "report", BenchOptions(quick=True, effort=EFFORT), say=said.append)
    assert [each.name for each in report.candidates] == ["stl", "mtl", "gated", "naive", "collapsed"]
    assert report.baseline == "mtl"
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    assert plain == json.loads(json.dumps(report.plain()))
    validate(plain, SCHEMA)
    assert plain["missing"] == []
    candidates = plain["candidates"]
    assert candidates["mtl"]["macs"] == BACKBONE_MACS + 2 * HEAD_MACS
    assert candidates["stl"]["macs"] == 2 * (BACKBONE_MACS + HEAD_MACS)
    assert candidates["stl"]["passes"] == 2
    assert candidates["mtl"]["macs"] < candidates["collapsed"]["macs"] < candidates["gated"]["macs"]
    for each in candidates.values():
        assert max(each["parity"]["onnx"].values()) < 1e-4
        assert len(each["latency"]["samples_ms"]) == 3
        assert each["latency"]["median_ms"] > 0
        assert each["size_bytes"] > 0
        assert set(each["throughput"]) <= {"1", "2", "8"}  # what so few rounds let tell
        assert each["offered"][0]["rate"] == pytest.approx(200 / candidates["mtl"]["latency"]["median_ms"], rel=1e-3)
        assert each["footprint"]["load_ms"] > 0
        assert each["footprint"]["memory_bytes"] > 0
    assert set(candidates["collapsed"]["parity"]["collapse"]) == {"task0", "task1"}
    assert plain["command"] == f"gatedeploy bench {checkpoint} --quick --out {tmp_path / 'report'}"
    assert len(plain["sharing"][checkpoint.parent.name]) == 2
    assert "plot-ratios" in (tmp_path / "report" / "report.html").read_text()
    assert said[0].startswith(f"collapsing and counting: {checkpoint.parent.name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("measure_footprint", ["loading and memory", "layers", "batches", "offered load", "energy"]),
        ("offer_loads", ["offered load", "energy"]),
    ],
)
def test_stopped_in_the_middle_it_leaves_what_was_measured(
    stage: str, missing: list[str], collapsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"gatedeploy.benchmarks.measured.{stage}", stop)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        bench([collapsed], tmp_path / "report", BenchOptions(effort=EFFORT), say=said.append)
    assert said[-1] == f"stopped; what was measured is in {tmp_path / 'report'}, and the report says what is missing"
    plain = json.loads((tmp_path / "report" / "report.json").read_text())
    validate(plain, SCHEMA)
    assert plain["missing"] == missing
    assert plain["candidates"]["collapsed"]["latency"]["median_ms"] > 0
    assert "This report is not complete" in (tmp_path / "report" / "report.html").read_text()


def test_a_recipe_without_fitting_pictures_is_refused_before_anything_is_measured(
    collapsed: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(gd.InputError, match=r"--data demo: .*the data set scenes has no labels for task task0"):
        bench([collapsed], tmp_path / "report", BenchOptions(data="demo", effort=EFFORT), say=said.append)
    assert not any("measuring" in line for line in said)


def test_a_runtime_that_is_not_installed_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"measuring in openvino needs openvino, .*gatedeploy\[openvino\]"):
        bench([tmp_path / "nowhere.pt"], tmp_path / "report", BenchOptions(runtime="openvino"))


def test_an_earlier_report_of_others_is_refused_before_anything_is_exported(collapsed: Path, tmp_path: Path) -> None:
    (tmp_path / "earlier.json").write_text(render_json(some_report()))  # beside uniform MTL, which is not here
    said: list[str] = []
    with pytest.raises(gd.InputError, match="compares with mtl, this one with collapsed"):
        bench([collapsed], tmp_path / "report", BenchOptions(against=tmp_path / "earlier.json"), say=said.append)
    assert not any(line.startswith("exporting") for line in said)
    assert not (tmp_path / "report").exists()


def test_an_unknown_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gd.InputError, match=r"the runtime 'openvin' is unknown|openvin"):
        bench([tmp_path / "nowhere.pt"], tmp_path / "report", BenchOptions(runtime="openvin"))


@pytest.mark.slow
def test_it_measures_in_openvino(collapsed: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino: pip install 'gatedeploy[openvino]'")
    report = bench([collapsed], tmp_path / "report", BenchOptions(runtime="openvino", effort=EFFORT))
    assert report.latency["runtime"] == "openvino"
    assert max(report.candidates[0].onnx_parity.values()) < 1e-4
    assert set(report.candidates[0].batches) == {2, 8}
    assert "--runtime openvino" in report.command


@pytest.mark.parametrize("threads", [0, 3, 1000])
def test_more_threads_than_cores_are_refused(
    checkpoint: Path, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatedeploy.benchmarks.bench_options.cores", lambda: 2)
    message = f"threads: {threads} for one request; expected 1 to 2, the cores this process may use"
    with pytest.raises(gd.InputError, match=message):
        bench([checkpoint], tmp_path / "report", BenchOptions(threads=threads))


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(gd.InputError, match=r"file: Not a directory; name another place"):
        bench([tmp_path / "nowhere.pt"], tmp_path / "file")
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(gd.InputError, match=r"report\.html: could not be written: a folder; name a file"):
        bench([tmp_path / "nowhere.pt"], tmp_path / "out")
    with pytest.raises(gd.InputError, match=r"nowhere\.pt: no such file"):
        bench([tmp_path / "nowhere.pt"], tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_a_bundle_and_a_collapsed_file_are_measured_as_they_are(
    collapsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatedeploy.benchmarks.bench_options.cores", lambda: 2)
    export(collapsed, tmp_path / "bundle")
    report = bench([collapsed, tmp_path / "bundle"], tmp_path / "report", BenchOptions(threads=2, effort=EFFORT))
    assert [each.name for each in report.candidates] == ["collapsed", "bundle"]
    assert report.baseline == "collapsed"
    assert report.candidates[0].cost.macs == report.candidates[1].cost.macs
    assert report.notes[0].startswith("Single-task networks and one shared encoder could not be made")
    assert "--threads 2" in report.command
    assert list(report.sharing) == ["collapsed.safetensors"]


@pytest.mark.slow
def test_the_costs_of_files(checkpoint: Path, collapsed: Path, tmp_path: Path) -> None:
    costs = file_costs(checkpoint)
    assert list(costs) == ["stl", "mtl", "gated", "collapsed"]
    thin, gated = gd.load(collapsed), costs["gated"]
    assert isinstance(thin, gd.Collapsed)
    counted = cost(thin.program)
    assert (costs["collapsed"]["macs"], costs["collapsed"]["params"]) == (counted.macs, counted.params)
    assert sum(gated["per_operator"].values()) == gated["macs"]
    remembered = file_costs(collapsed)
    assert list(remembered) == ["gated", "collapsed"]
    assert remembered["gated"]["macs"] == gated["macs"]
    assert remembered["gated"]["params"] == gated["params"]
    export(collapsed, tmp_path / "bundle")
    assert {form: each["macs"] for form, each in file_costs(tmp_path / "bundle").items()} == {
        form: each["macs"] for form, each in remembered.items()
    }


@pytest.mark.slow
def test_the_costs_of_a_recipe_before_it_is_trained() -> None:
    small = ["data.size=16", "data.train=1", "data.val=1"]
    costs = recipe_costs(load_recipe("demo", small), "demo")
    assert list(costs) == ["stl", "mtl", "gated"]
    assert costs["mtl"]["macs"] < costs["stl"]["macs"] < costs["gated"]["macs"]
    other = recipe_costs(
        load_recipe("demo", ["data.size=16", "data.train=1", "data.val=1", "method.name=nddr"]), "demo"
    )
    assert list(other) == ["stl", "mtl", "collapsed"]
    assert other["stl"]["macs"] == costs["stl"]["macs"]
    # At the end of stages of 4, 8 and 16 channels, three times 3·C² multiply-adds for each pixel.
    fused = sum(9 * channels**2 * (16 // by) ** 2 for channels, by in ((4, 1), (8, 2), (16, 4)))
    assert other["collapsed"]["macs"] == other["stl"]["macs"] + fused


@pytest.mark.slow
def test_experts_are_asked_once_per_task_and_own_one_trunk(tmp_path: Path) -> None:
    mixture = mixture_of_recipe(RECIPE_INFO)
    moe, batch = mixture_candidates(mixture, RECIPE_INFO.input)
    assert moe.cost.params == batch.cost.params == sum(parameter.numel() for parameter in mixture.parameters())
    with ExitStack() as stack:
        ran = open_candidate(moe, RECIPE_INFO, tmp_path, "onnxruntime", 1, stack)
        assert [output.name for output in ran.runners[0].outputs] == ["kind", "depth"]
        assert ran.runners[0].inputs[0].shape == (1, 1, 16, 16)
        assert max(ran.parity.values()) < 1e-4
        latency = measure({"moe": ran.runners}, picture(RECIPE_INFO.input), "moe", PLAN)
        assert latency.of("moe").median_ms > 0
