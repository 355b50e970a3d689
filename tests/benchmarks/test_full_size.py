"""The table of the papers' networks, for the smallest of them; the others take minutes each."""

import sys

import pytest

from gatedeploy.benchmarks import full_size


@pytest.mark.slow
def test_a_network_all_the_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["full_size", "--recipes", "celeba_resnet20", "--tasks", "3"])
    full_size.main()
    head, _, cells = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    )
    told = dict(zip(head, cells, strict=True))
    assert told["recipe"] == "celeba_resnet20"
    assert float(told["of a trunk"]) == pytest.approx(float(told["T·p + 1 - p^T"]), rel=0.1)
    assert 0 < float(told["float64 error"]) < 1e-9
    assert 0 < float(told["ONNX error"]) < 1e-4
