"""Another method than gates, by the same commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gatedeploy.artifact import read_checkpoint
from gatedeploy.benchmarks.candidates import trained_mixture
from gatedeploy.cli.app import run
from gatedeploy.program import evaluate, flat_predictions

pytestmark = pytest.mark.usefixtures("shallow")

TINY = [
    *("data.train=16", "data.val=8", "data.size=16", "train.epochs=1", "train.single_epochs=1", "train.batch_size=8"),
    *("tasks={depth: {}, normals: {}}", "train.rivals=false"),
]


def train(out: Path, *changes: str) -> int:
    asked = [argument for change in (*TINY, *changes) for argument in ("--set", change)]
    return run(["train", "demo", *asked, "--out", str(out)])


@pytest.mark.slow
def test_a_rival_takes_the_road(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train(out, "method.name=nddr", "budget.macs=0.4") == 0
    said = capsys.readouterr()
    assert "budget: is met by choosing gates, which method nddr has none of; it is left out" in said.err
    assert f"Next: gatedeploy prune {out / 'checkpoint.pt'}\n" in said.out
    assert "nddr: epoch 1 of 1: depth rmse " in said.err
    assert "nddr" in said.out
    assert "gated " not in said.out.replace("gatedeploy ", "")
    assert run(["prune", str(out / "checkpoint.pt"), "--budget", "0.4"]) == 2
    assert "a budget is met by flipping gates, and this network has none that choose" in capsys.readouterr().err
    assert run(["prune", str(out / "checkpoint.pt")]) == 0
    said = capsys.readouterr()
    assert "nddr, as trained" in said.out
    assert "The same as the nddr network to " in said.out
    assert run(["export", str(out / "collapsed.safetensors"), "--onnx"]) == 0
    assert run(["verify", str(out / "bundle")]) == 0
    assert run(["inspect", str(out / "checkpoint.pt")]) == 0
    assert "checkpoint.pt: nddr, " in capsys.readouterr().out
    assert run(["bench", str(out), "--quick", "--json", "--out", str(tmp_path / "report")]) == 0
    assert list(json.loads(capsys.readouterr().out)["candidates"]) == ["stl", "mtl", "moe", "moe-batch", "collapsed"]


@pytest.mark.slow
def test_a_mixture_of_experts_is_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, options = tmp_path / "run", "method={name: moe, experts: 4, top_k: 2}"
    assert train(out, options) == 0
    said = capsys.readouterr()
    assert "moe: epoch 2 of 2: depth rmse " in said.err
    assert f"Next: gatedeploy bench {out / 'checkpoint.pt'}\n" in said.out
    assert run(["prune", str(out / "checkpoint.pt")]) == 2
    assert (
        "checkpoint.pt: a mixture of experts answers one task a pass, through experts that" in capsys.readouterr().err
    )
    assert run(["bench", str(out), "--quick", "--json", "--out", str(tmp_path / "report")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["candidates"]) == ["stl", "mtl", "moe", "moe-batch"]
    assert set(report["accuracy"]["run"]["metrics"]) == {"depth", "normals"}
    trained = read_checkpoint(out / "checkpoint.pt")
    image = torch.rand(1, 3, 16, 16)
    expected = flat_predictions(evaluate(trained.program, image.double()))
    mixture = trained_mixture(trained.info, out / "checkpoint.pt")
    for task, prediction in mixture.request(together=True).double()(image.double()).items():
        torch.testing.assert_close(prediction, expected[task])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "method.name=ndr",
            "method: there is no method 'ndr'; known are mtl, cross_stitch, nddr, mtan, adashare",
        ),
        ("method={name: nddr, same: 2}", "method: same must lie between 0 and 1, got 2"),
        ("method={name: nddr, sharing: 2}", "method nddr: there is no option 'sharing'; known are sites, same, rate"),
        ("train.balance.name=pcgard", "train.balance.name: must be sum or random or "),
        ("train.balance={name: cagrad, c: -1}", "train.balance.c: must be a number of at least 0, got -1"),
        ("method={name: nddr, backbone: 1}", "method: method nddr: there is no option 'backbone'; known are sites, "),
        ("train.hold_out=1", "train.hold_out: must be a number from 0 to 0.9, got 1"),
        ("gates.sites=encoder", "gates='channel' behind whole encoders or decoders is in no paper; the nearest are "),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    change: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", change) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.rglob("*.pt")) == []
