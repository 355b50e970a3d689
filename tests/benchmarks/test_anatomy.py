"""A collapsed network as a page."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import pytest

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.anatomy import LABEL, TALL, anatomy_page
from gatedeploy.compiler import Collapsed
from gatedeploy.errors import InputError
from tests.benchmarks.test_page import Page
from tests.benchmarks.tiny import EVIL, EXAMPLE, gated


@pytest.fixture(scope="module")
def by_price() -> Collapsed:
    return gd.collapse(gated(), example_input=EXAMPLE)


@pytest.fixture(scope="module")
def plain() -> Collapsed:
    return gd.collapse(gated(), example_input=EXAMPLE, target=None)


def info_of(thin: Collapsed) -> ModelInfo:
    assert thin.info is not None
    assert thin.report is not None
    return replace(thin.info, report=asdict(thin.report))


def page_of(thin: Collapsed, **report: Any) -> str:
    info = info_of(thin)
    return anatomy_page(thin.program, replace(info, report={**info.report, **report}), f"thin {EVIL}.safetensors")


def titles(page: str) -> list[str]:
    return re.findall(r"<g class=\"box\"><title>(.*?)</title>", page)


def test_every_tensor_of_the_layout_is_a_box(by_price: Collapsed) -> None:
    page = page_of(by_price)
    assert by_price.report is not None
    for site in by_price.report.layout:
        for tensor in site.tensors:
            held = [f"{count} channels of {branch}" for branch, count in tensor.rows.items() if branch]
            said = [title for title in titles(page) if title.startswith(f"{', '.join(site.layers)}: ")]
            assert any(all(each in title for each in held) for title in said)
    kernels = {kernel.tactic for site in by_price.report.layout for tensor in site.tensors for kernel in tensor.kernels}
    assert all(any(f"{tactic} (" in title for title in titles(page)) for tactic in kernels)
    assert "predicted milliseconds" in page


def test_a_layer_of_several_heads_is_nobodys(by_price: Collapsed) -> None:
    layout = info_of(by_price).report["layout"]
    site = {**layout[-1], "layers": ["heads.task0.fc", "heads.task1.fc"]}
    one = {**layout[-1], "layers": ["heads.task1.fc"]}
    for each in (site, one):
        each["tensors"] = [{**tensor, "rows": {"": 7}} for tensor in layout[-1]["tensors"]]
    said = titles(page_of(by_price, layout=[site, one]))
    assert any(title.startswith("heads.task0.fc, heads.task1.fc: 7 channels; reads") for title in said)
    assert any(title.startswith("heads.task1.fc: 7 channels of task1; reads") for title in said)


def test_of_one_task_all_layers_are_its_own() -> None:
    alone = gd.collapse(gated(), example_input=EXAMPLE, tasks=["task0"])
    page = page_of(alone)
    assert "of several" not in page
    assert "channels of task0" in page


def test_without_prices_it_is_drawn_from_the_network_itself(plain: Collapsed) -> None:
    page = page_of(plain)
    assert "On the right multiply-adds." in page
    assert plain.report is not None
    layers = [node for node in plain.network.graph.nodes if node.op == "call_module"]
    tall = re.findall(rf'<rect x="([\d.]+)" y="\d+" width="([\d.]+)" height="{TALL}"', page)
    assert len(tall) == len(layers)
    # Boxes of one row stand beside each other, and are as wide as they have channels.
    assert all(float(left) >= LABEL for left, _ in tall)
    weights = dict(plain.network.named_parameters())
    counts = [len(weights[f"{node.target}.weight"]) for node in layers]
    assert sorted(float(width) / max(counts) for _, width in tall) == pytest.approx(
        sorted(count * max(float(width) for _, width in tall) / max(counts) ** 2 for count in counts), abs=0.02
    )


def test_the_page_needs_nothing_and_names_are_text(by_price: Collapsed) -> None:
    page = page_of(by_price)
    parsed = Page(page)
    assert not {"script", "img", "iframe", "link", "object"} & set(parsed.tags)
    assert "://" not in page
    assert f"thin {EVIL}.safetensors" in parsed.text
    hostile = [{"layers": [EVIL], "plain_ms": 1.0, "tensors": [tensor(rows={EVIL: 3})]}]
    assert "script" not in Page(page_of(by_price, layout=hostile)).tags


def tensor(**more: Any) -> dict[str, Any]:
    made = {"rows": {"shared": 3}, "kernels": [{"tactic": "whole", "channels": 2}], "copies": 0, "copied_bytes": 0}
    return {**made, "ms": 0.5, **more}


@pytest.mark.parametrize(
    "layout",
    [
        [{"layers": ["a"], "plain_ms": 1.0}],
        [{"layers": ["a"], "plain_ms": "x", "tensors": []}],
        [{"layers": ["a"], "plain_ms": 1.0, "tensors": [{"rows": 3}]}],
        [3],
    ],
)
def test_a_damaged_report_is_refused(layout: list[Any], by_price: Collapsed) -> None:
    with pytest.raises(InputError, match="its report of the layout is damaged"):
        page_of(by_price, layout=layout)
