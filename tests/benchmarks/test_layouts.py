from __future__ import annotations

from dataclasses import replace

import pytest

from gatedeploy.benchmarks import layouts
from gatedeploy.benchmarks.layouts import FEWEST, PREDICTED, candidates, try_layouts
from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.realisation import TIED, gated_program
from gatedeploy.benchmarks.timing import Plan
from gatedeploy.errors import InputError
from gatedeploy.price_tables import prices_of

pytestmark = pytest.mark.usefixtures("shallow")

TRUNK = Trunk("resnet20", {"width": 0.25}, "linear", (16, 16))


def test_every_layout_is_run_and_the_fastest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "PLAN", Plan(seconds=0, min_rounds=2, max_rounds=2, block_ms=1, warm_up_ms=1))
    prices = prices_of("onnxruntime")
    tried = try_layouts(gated_program(TRUNK, 2, 0.3, **TIED), prices)
    assert {each.name for each in tried} == set(candidates(prices))
    assert [each.ratio for each in tried] == sorted(each.ratio for each in tried)
    by_name = {each.name: each for each in tried}
    assert by_name[PREDICTED].ratio == 1
    assert by_name[PREDICTED].prices is prices
    assert by_name[FEWEST].prices is None


def test_what_cannot_be_run_here_is_refused() -> None:
    prices = replace(prices_of("onnxruntime"), target="gpu")
    with pytest.raises(InputError, match="layouts for gpu cannot be tried out, only those for onnxruntime or openvino"):
        try_layouts(gated_program(TRUNK, 2, 0.3, tie=None, group=1), prices)
