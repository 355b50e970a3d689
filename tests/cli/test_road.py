"""The commands, one after the other, as a user types them."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gatedeploy as gd
from gatedeploy import __version__
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks import latency
from gatedeploy.cli.app import run
from gatedeploy.cli.train import show_training
from gatedeploy.training.metrics import headline
from gatedeploy.training.recipe_file import load_recipe
from gatedeploy.training.stages import Trained

pytestmark = pytest.mark.usefixtures("shallow")


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """With --json standard output is one JSON document and nothing else."""
    return json.loads(output(capsys, *arguments, "--json"))


def test_prune(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "thin.safetensors"
    found = document(capsys, "prune", str(folder / "checkpoint.pt"), "--out", str(out))
    assert out.is_file()
    assert found["collapsed"]["macs"] < found["gated"]["macs"]
    assert found["collapsed"]["params"] < found["gated"]["params"]
    assert set(found["parity"]["float64"]["error"]) == {"kind", "depth"}
    assert [site["specific"] for site in found["sites"]] == [{"kind": 3, "depth": 6}, {"kind": 4, "depth": 0}]
    assert "multiply-adds are left" in output(capsys, "prune", str(folder / "checkpoint.pt"), "--out", str(out))


def test_prune_for_a_target(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The layout changes, the predictions do not."""
    pictures = torch.randn(3, 3, 16, 16)
    found = {}
    for level in ("none", "default", "max"):
        out = tmp_path / f"{level}.safetensors"
        output(capsys, "prune", str(folder / "checkpoint.pt"), "--optimize", level, "--out", str(out))
        found[level] = gd.load(out)(pictures)
    for task, expected in found["none"].items():
        for level in ("default", "max"):
            torch.testing.assert_close(found[level][task], expected, atol=1e-4, rtol=1e-4)


def test_prune_with_rounded_gates(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file no longer claims what was measured of the network as trained."""
    checkpoint, out = str(folder / "checkpoint.pt"), str(tmp_path / "rounded.safetensors")
    found = document(capsys, "prune", checkpoint, "--out", out, "--round-gates", "2")
    assert [(gate["before"], gate["after"]) for gate in found["rounded_gates"]] == [(3, 2)]
    assert [site["specific"] for site in found["sites"]] == [{"kind": 2, "depth": 6}, {"kind": 4, "depth": 0}]
    trained, flipped = document(capsys, "inspect", checkpoint), document(capsys, "inspect", out)
    assert trained["metrics"]
    assert (trained["flipped_gates"], flipped["metrics"], flipped["flipped_gates"]) == (0, {}, 1)
    bundle = str(tmp_path / "bundle")
    output(capsys, "export", out, "--onnx", "--out", bundle)
    assert document(capsys, "inspect", bundle)["flipped_gates"] == 1
    assert "not the network that was trained" in output(capsys, "inspect", bundle)
    assert "not the network that was trained" in (tmp_path / "bundle" / "README.md").read_text()
    told = output(capsys, "prune", checkpoint, "--out", out, "--round-gates", "2")
    assert "1 choice of a gate was flipped" in told
    assert "the gated network with flipped gates" in told
    assert "No gate had to be flipped" in output(capsys, "prune", checkpoint, "--out", out, "--round-gates", "3")
    assert run(["prune", checkpoint, "--round-gates", "1"]) == 2
    assert "--round-gates" in capsys.readouterr().err


def test_prune_to_a_budget(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three of six channels are kind's own, all six are depth's, and four of four behind them."""
    checkpoint, out = str(folder / "checkpoint.pt"), str(tmp_path / "thin.safetensors")
    given = ["prune", checkpoint, "--out", out, "--optimize", "none"]
    before = document(capsys, *given)
    found = document(capsys, *given[:-2], "--budget", "0.55")  # without a target the fewest are what it leaves
    most = 0.55 * found["gated"]["macs"]
    assert found["collapsed"]["macs"] <= most < before["collapsed"]["macs"]
    assert sum(gate["flipped"] for gate in found["rounded_gates"]) > 0
    assert document(capsys, "inspect", out)["metrics"] == {}
    told = output(capsys, *given, "--budget", "0.55", "--budget", "depth=0.5")
    assert "this is no longer the network that was trained" in told
    again = document(capsys, *given, "--budget", str(before["collapsed"]["macs"]))
    assert not again["rounded_gates"]
    assert document(capsys, "inspect", out)["metrics"]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (["0.1"], "multiply-adds cannot be reached: with every gate closed, so that all is shared, "),
        (
            ["much"],
            "--budget much: expected multiply-adds such as 8e6, a share such as 0.4, that of a task: depth=0.3, or "
            "milliseconds: 2.5ms",
        ),
        (["1e-9ms"], "1e-09 ms cannot be reached on onnxruntime: with every gate closed, so that all is shared, "),
        (["2ms", "0.5"], "--budget 2ms --budget 0.5: milliseconds stand alone"),
        (["fastms"], "--budget fastms: expected multiply-adds"),
        (["0.5", "6e4"], "--budget 6e4: stands twice"),
        (["height=0.5"], "a budget height: expected kind or depth"),
        (["depth=-1"], "--budget depth=-1: expected multiply-adds"),
    ],
)
def test_a_budget_that_cannot_be(
    folder: Path, tmp_path: Path, budget: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [word for each in budget for word in ("--budget", each)]
    assert run(["prune", str(folder / "checkpoint.pt"), "--out", str(tmp_path / "thin.safetensors"), *asked]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_written_may_be_read_by_others(folder: Path, tmp_path: Path) -> None:
    """All files have the mode that new files have here."""
    (tmp_path / "usual").touch()
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert {"collapsed.safetensors", "checkpoint.pt", "model.onnx", "kind.txt"} <= {file.name for file in files}
    assert {file.stat().st_mode for file in files} == {(tmp_path / "usual").stat().st_mode}


def test_prune_to_some_tasks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "depth.safetensors"
    found = document(capsys, "prune", str(folder / "checkpoint.pt"), "--tasks", "depth", "--out", str(out))
    assert list(found["parity"]["float64"]["error"]) == ["depth"]
    kept = document(capsys, "inspect", str(out))
    assert [task["name"] for task in kept["tasks"]] == ["depth"]
    assert kept["metrics"] == {"depth": {"error": 0.25}}


def test_the_next_command_can_be_pasted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "my run's")
    said = output(capsys, "prune", "my run's/checkpoint.pt", "--out", "my run's/thin one")
    _, _, following = said.strip().partition("Next: gatedeploy ")
    said = output(capsys, *shlex.split(following), "--out", "my run's/bundle")
    verifying, measuring = said.strip().partition("Next: gatedeploy ")[2].split(", or gatedeploy ")
    assert shlex.split(verifying) == ["verify", "my run's/bundle"]
    assert shlex.split(measuring) == ["bench", "my run's/thin one"]
    task = gd.Task("only", "depth")
    info = ModelInfo(
        (task,), gd.InputSpec(3, 8, 8), recipe=load_recipe("demo").plain(), metrics={"only": {headline(task).name: 1.0}}
    )
    show_training(Trained(Path("my run's/checkpoint.pt"), {}, None, info))
    said = capsys.readouterr().out
    assert shlex.split(said.strip().partition("Next: gatedeploy ")[2]) == ["prune", "my run's/checkpoint.pt"]


def test_export_and_verify(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collapsed, bundle = str(folder / "collapsed.safetensors"), str(tmp_path / "bundle")
    exported = document(capsys, "export", collapsed, "--onnx", "--out", bundle)
    assert "model.onnx" in exported["files"]
    assert set(exported["verification"]["error"]) == {"1", "3"}
    verified = document(capsys, "verify", bundle)
    assert set(verified["parity"]["error"]) == {"kind", "depth"}
    assert "all as their hashes say" in output(capsys, "verify", bundle)
    assert (Path(bundle) / "labels" / "kind.txt").read_text() == "cat\ndog\ncow\n"


@pytest.mark.parametrize("file", ["checkpoint.pt", "collapsed.safetensors", "bundle"])
def test_inspect(folder: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "inspect", str(folder / file))
    assert [task["name"] for task in found["tasks"]] == ["kind", "depth"]
    assert "kind" in output(capsys, "inspect", str(folder / file))


@pytest.mark.parametrize("file", ["checkpoint.pt", "collapsed.safetensors"])
def test_inspect_draws_a_page(folder: Path, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document(capsys, "inspect", str(folder / file), "--html", str(tmp_path / "network.html"))
    page = (tmp_path / "network.html").read_text(encoding="utf-8")
    assert page.count('<g class="box">') > 6
    assert "channels of kind" in page


def test_of_a_bundle_no_page_can_be_drawn(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(folder / "bundle"), "--html", str(tmp_path / "network.html")]) == 2
    assert "a bundle holds ONNX, which does not tell what was laid out how; name the" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--html", "--picture"])
def test_what_is_inspected_is_not_drawn_over(option: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "checkpoint.pt"
    before = file.read_bytes()
    assert run(["inspect", str(file), option, str(folder / "bundle" / ".." / "checkpoint.pt")]) == 2
    assert "would replace the file that is read; name another place" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_no_page_is_drawn_of_a_folder_that_holds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tmp_path), "--html", str(tmp_path / "network.html")]) == 2
    assert "not a bundle (no manifest.json in it)" in capsys.readouterr().err


def test_inspect_draws(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "sharing.svg"
    assert f"Wrote {picture}" in output(capsys, "inspect", str(folder / "checkpoint.pt"), "--picture", str(picture))
    assert "<svg" in picture.read_text()


def test_flops(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = document(capsys, "flops", str(folder / "checkpoint.pt"))
    assert list(costs) == ["stl", "mtl", "gated", "collapsed"]
    # One encoder of 3·6·9 and 6·4·9 multiply-adds per pixel; heads: 4·1 per pixel and 4·3.
    encoder, heads = 256 * (3 * 6 * 9 + 6 * 4 * 9), 256 * 4 + 12
    assert costs["mtl"]["macs"] == encoder + heads
    assert costs["stl"]["macs"] == 2 * encoder + heads
    assert costs["gated"]["macs"] == 3 * encoder + heads
    assert "one shared encoder" in output(capsys, "flops", str(folder / "checkpoint.pt"))


def test_flops_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(document(capsys, "flops", "demo")) == ["stl", "mtl", "gated"]


def test_flops_of_a_bundle_has_no_ratio_to_a_shared_encoder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heading = output(capsys, "flops", str(folder / "bundle")).splitlines()[0]
    assert heading.split("  ")[-3:] == ["MACs", "parameters", "by operator"]


def test_what_is_called_like_a_bundled_recipe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "demo")
    assert run(["flops", "demo", "--json"]) == 0
    said = capsys.readouterr()
    assert list(json.loads(said.out)) == ["stl", "mtl", "gated"]
    assert said.err == "Reading the bundled recipe demo; the file or folder of this name here is ./demo\n"
    assert run(["flops", "./demo", "--json"]) == 0
    said = capsys.readouterr()
    assert list(json.loads(said.out)) == ["stl", "mtl", "gated", "collapsed"]
    assert said.err == ""
    assert run(["train", "demo", "--set", "train.epochs=0"]) == 2
    assert capsys.readouterr().err.startswith("Reading the bundled recipe demo; ")


PALETTE = """
data:
  name: folder
  root: {root}
  pictures: pictures
  size: 16
  val_fraction: 0.5
  tasks:
    nerve: {{kind: segmentation, classes: [background, nerve], mask: masks, values: {{0: 0, 1: 1, 2: 0, 9: ignore}}}}
    vessel: {{kind: segmentation, classes: [background, vessel], mask: masks, values: {{0: 0, 1: 0, 2: 1, 9: ignore}}}}
model: {{backbone: {{name: resnet20, width: 0.25}}, head: {{name: dense}}}}
train: {{epochs: 1, batch_size: 2}}
"""


@pytest.mark.slow
def test_one_palette_mask_for_two_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The documented value maps, from the YAML file to the collapsed network and back to the recipe in it."""
    for kind, mode in (("pictures", "RGB"), ("masks", "L")):
        (tmp_path / kind).mkdir()
        for name in "abcd":
            Image.effect_noise((16, 16), 60).point(lambda v: (0, 1, 2, 9)[v % 4]).convert(mode).save(
                tmp_path / kind / f"{name}.png"
            )
    (tmp_path / "palette.yaml").write_text(PALETTE.format(root=tmp_path))
    assert run(["train", str(tmp_path / "palette.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert run(["train", str(tmp_path / "palette.yaml"), "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert run(["prune", str(tmp_path / "run" / "checkpoint.pt")]) == 0
    costs = document(capsys, "flops", str(tmp_path / "run" / "collapsed.safetensors"))
    assert {"stl", "mtl", "collapsed"} <= set(costs)


@pytest.mark.slow
def test_bench(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = document(capsys, "bench", str(folder / "checkpoint.pt"), "--quick", "--out", str(tmp_path / "report"))
    assert {"stl", "mtl", "gated", "collapsed"} <= {candidate["kind"] for candidate in report["candidates"].values()}
    for name in ("report.html", "report.md", "report.json"):
        assert (tmp_path / "report" / name).stat().st_size > 1000


@pytest.mark.slow
def test_bench_against_an_earlier_report(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "UNSURE", 1e9)  # so short a measurement tells nothing, and here it need not
    asked = ["bench", str(folder / "checkpoint.pt"), "--quick", "--out", str(tmp_path / "report")]
    earlier = document(capsys, *asked)
    for candidate in earlier["candidates"].values():
        times = [[1e-3 if candidate["kind"] == "collapsed" else 1.0]] * 3
        candidate["latency"].update(samples_ms=times, cpu_ms=times)
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    assert run([*asked, "--against", str(tmp_path / "earlier.json")]) == 1
    said = capsys.readouterr()
    assert re.search(r"error: slower than in .*earlier\.json: .*collapsed by \d+%", said.err)
    assert "Since the earlier report" in (tmp_path / "report" / "report.md").read_text()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "--version").strip() == __version__
    overview = output(capsys, "--help")
    for command in ("demo", "train", "prune", "export", "verify", "inspect", "flops", "bench"):
        assert command in overview
        own = output(capsys, command, "--help")
        assert len(own.splitlines()) > 8
        assert "With --debug, at any place, an error shows its traceback." in own


@pytest.mark.slow
def test_the_demo_walks_the_whole_road(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["data.train=16", "data.val=8", "data.size=32", "train.epochs=1", "train.single_epochs=1"]
    monkeypatch.setattr(  # the package's own `demo` is the command
        importlib.import_module("gatedeploy.cli.demo"),
        "load_recipe",
        lambda name: load_recipe(name, [*small, "train.rivals=true"]),
    )
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--out", "my demo"]) == 0
    steps = [shlex.split(line)[2:] for line in capsys.readouterr().err.splitlines() if line.startswith("$ gatedeploy ")]
    assert [step[0] for step in steps] == ["train", "inspect", "prune", "export", "verify", "bench"]
    assert steps[-1] == ["bench", "my demo", "my demo/collapsed.safetensors", "--quick", "--out", "my demo/report"]
    report = json.loads((tmp_path / "my demo" / "report" / "report.json").read_text())
    assert set(report["candidates"]) == {"stl", "mtl", "moe", "moe-batch", "gated", "naive", "collapsed"}
    assert run(["verify", "my demo/bundle"]) == 0
