"""The table of other people's networks, for two that stand in the tests and one that cannot be built."""

import pytest

from gatedeploy.benchmarks import strangers


@pytest.mark.slow
def test_a_row_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["tests.modern_backbones:ConvNeXt", "tests.odd_backbones:Functional", "tests.odd_backbones:Nothing"]
    strangers.main([*names, "--size", "8"])
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    )
    told = [dict(zip(head, cells, strict=True)) for cells in rows]
    assert [each["network"] for each in told] == names
    for each in told[:2]:
        assert float(each["float64 error"]) < 1e-9
        assert 1 < float(each["left"]) < 3
    assert "mean" in told[0]["taken whole"]
    assert "AttributeError" in told[2]["taken whole"]
