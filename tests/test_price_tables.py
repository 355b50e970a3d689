import json

import pytest
import torch

from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.realisation import gated_program
from gatedeploy.errors import InputError
from gatedeploy.lowering import lower
from gatedeploy.price_tables import ESTIMATED, TARGETS, own_table, prices_of, read_prices, write_prices
from tests.prices import CUTTING, JOINING


def test_what_was_written_is_read() -> None:
    path = own_table("onnxruntime")
    write_prices(JOINING, path)
    read = read_prices(path)
    assert read.rates == pytest.approx(dict(JOINING.rates))
    assert (read.launch_ms, read.cut_ms, read.target) == (JOINING.launch_ms, JOINING.cut_ms, "test")


@pytest.mark.parametrize(("capability", "vector"), [("AVX2", 8), ("AVX512", 16), ("DEFAULT", 8)])
@pytest.mark.parametrize("runtime", sorted({*TARGETS.values()} - {*ESTIMATED}))
def test_every_target_has_a_table_that_is_shipped(
    runtime: str, capability: str, vector: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    prices = prices_of(runtime)
    assert (prices.target, prices.vector) == (runtime, vector)
    assert 0 < prices.layer(9, 16, 64, 256) < prices.layer(9, 64, 64, 256)


def test_a_table_of_this_machine_comes_first() -> None:
    write_prices(JOINING, own_table("onnxruntime"))
    assert prices_of("onnxruntime").launch_ms == JOINING.launch_ms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "reads format 3"),
        ({"launch_ms": -1}, "less than nothing"),
        ({"vector": 0}, "vectors of 0 channels"),
        ({"launch_ms": None}, "not a table of prices"),
        ({"layers": []}, "no number"),
        ({"layers": [[1, 2, 3, 4, float("nan")]]}, "no number"),
        ({"layers": [[1, 2, 3, 4, 0]]}, "not a table of prices"),
        ({"layers": [[1, 2]]}, "not a table of prices"),
    ],
)
def test_a_damaged_table_is_told(change: dict[str, object], message: str) -> None:
    path = own_table("onnxruntime")
    write_prices(JOINING, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        prices_of("onnxruntime")
    assert "gatedeploy tune" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_what_is_no_table_is_told(text: str) -> None:
    path = own_table("onnxruntime")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match="not a table of prices"):
        prices_of("onnxruntime")


def test_what_was_not_measured_says_so() -> None:
    prices = prices_of(TARGETS["tensorrt"])
    assert "estimate" in prices.machine
    # One tile of output: 9 · 64 · 64 multiply-adds at 16 positions keep one of 132 multiprocessors busy.
    work = 9 * 64 * 64 * (16 / (67e9 / 2 / 132) + 4 / 4.8e9)
    assert prices.layer(9, 64, 64, 16) == pytest.approx(work)


def test_a_layout_for_a_gpu_has_few_kernels() -> None:
    program = gated_program(Trunk("resnet20", {"width": 0.5}, "linear", (32, 32)), 3, 0.2, tie="residual", group=8)
    kernels = [
        sum(site.kernels for site in lower(program, prices).layout) for prices in (prices_of(TARGETS["gpu"]), CUTTING)
    ]
    assert kernels[0] < kernels[1]
