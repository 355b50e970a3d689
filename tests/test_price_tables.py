import json
from dataclasses import replace

import pytest
import torch

from gatedeploy.benchmarks.random_gates import Trunk
from gatedeploy.benchmarks.realisation import gated_program
from gatedeploy.errors import InputError
from gatedeploy.lowering import lower
from gatedeploy.price_tables import ESTIMATED, TARGETS, own_table, prices_of, read_prices, write_prices
from tests.prices import CUTTING, JOINING


def test_what_was_written_is_read() -> None:
    path = own_table("test")
    write_prices(JOINING, path)
    read = read_prices(path, "test")
    assert read.rates == pytest.approx(dict(JOINING.rates))
    assert read.last_rates == pytest.approx(dict(JOINING.last_rates))
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
    assert 0 < prices.where(True).layer(1, 16, 384, 197) < prices.where(True).layer(1, 64, 384, 197)


def test_a_table_of_this_machine_comes_first() -> None:
    write_prices(replace(JOINING, target="onnxruntime"), own_table("onnxruntime"))
    assert prices_of("onnxruntime").launch_ms == JOINING.launch_ms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "reads format 5"),
        ({"last_by_rows": 1}, "last_by_rows: expected true or false, got 1"),
        ({"runtime": "openvino"}, "expected prices of onnxruntime, got those of 'openvino'"),
        ({"machine": "\x1b[2J"}, "printable"),
        ({"machine": None}, "printable"),
        ({"columns": ["rows", "taps"]}, "expected layers by taps, rows"),
        ({"launch_ms": -1}, "launch_ms: expected milliseconds from 0"),
        ({"launch_ms": None}, "launch_ms: expected milliseconds"),
        ({"launch_ms": "0.1"}, "launch_ms: expected milliseconds"),
        ({"launch_ms": True}, "launch_ms: expected milliseconds"),
        ({"launch_ms": 1e300}, "launch_ms: expected milliseconds"),
        ({"launch_ms": float("inf")}, "launch_ms: expected milliseconds"),
        ({"vector": 0}, "vector: expected a whole number"),
        ({"vector": 16.9}, "vector: expected a whole number"),
        ({"layers": []}, "a list of measured kernels"),
        ({"layers": {}}, "a list of measured kernels"),
        ({"layers": [[1, 2]]}, "layers: expected taps, rows"),
        ({"last_layers": []}, "last_layers: expected a list of measured kernels"),
        ({"layers": [[0, 2, 3, 4, 1]]}, "layers: expected a whole number"),
        ({"layers": [[1, -2, 3, 4, -1]]}, "layers: expected a whole number"),
        ({"layers": [[1, 2, 3, 4, float("nan")]]}, "expected milliseconds"),
        ({"layers": [[1, 2, 3, 4, 0]]}, "takes no time"),
        ({"layers": [[1, 2, 3, 4, 1], [1, 4, 3, 4, 1], [1, 2, 8, 4, 1]]}, r"1 are missing .* \(4, 8, 4\)"),
    ],
)
def test_a_damaged_table_is_told(change: dict[str, object], message: str) -> None:
    path = own_table("onnxruntime")
    write_prices(replace(JOINING, target="onnxruntime"), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message) as caught:
        prices_of("onnxruntime")
    assert "gatedeploy tune" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{", "no JSON"),
        ("7", "got int"),
        ("[]", "got list"),
        ("{}", "lacks format, runtime"),
        ('{"format": 4}', "format 4; this version reads format 5"),
    ],
    ids=["nothing", "deep", "cut off", "a number", "a list", "empty", "of another version"],
)
def test_what_is_no_table_is_told(text: str, message: str) -> None:
    path = own_table("onnxruntime")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        prices_of("onnxruntime")


def test_what_is_no_file_is_told() -> None:
    own_table("onnxruntime").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
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
