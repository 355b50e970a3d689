"""What collapsing costs, measured on a small picture; no second is judged by how long it is."""

import sys

import pytest

from gatedeploy.benchmarks import collapse_cost

pytestmark = pytest.mark.usefixtures("shallow")


@pytest.mark.slow
def test_a_row_for_each_way_to_collapse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--tasks", "2", "--backbones", "resnet18", "--size", "32", "32", "--verify"]
    monkeypatch.setattr(sys, "argv", ["collapse_cost", *arguments])
    collapse_cost.main()
    head, _, plain, by_price = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    )
    assert plain[:3] == ["resnet18", "2", "plain"]
    assert by_price[:3] == ["resnet18", "2", "by price"]
    for row in (plain, by_price):
        told = dict(zip(head, row, strict=True))
        gated, collapsed = (float(macs) for macs in told["GMACs"].split(" → "))
        assert gated >= collapsed > 0
        seconds = [float(told[name]) for name in ("capture, s", "passes, s", "both, s")]
        assert seconds[0] + seconds[1] == pytest.approx(seconds[2], abs=0.11)  # each is rounded to a tenth
        assert float(told["weights, MiB"]) > 0
        assert float(told["with it, peak ÷ weights"]) > 0
