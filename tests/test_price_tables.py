import json

import pytest

from gatedeploy.errors import InputError
from gatedeploy.price_tables import TARGETS, own_table, prices_of, read_prices, write_prices
from tests.prices import JOINING


def test_what_was_written_is_read() -> None:
    path = own_table("onnxruntime")
    write_prices(JOINING, path)
    read = read_prices(path)
    assert read.rates == pytest.approx(dict(JOINING.rates))
    assert (read.launch_ms, read.cut_ms, read.target) == (JOINING.launch_ms, JOINING.cut_ms, "test")


@pytest.mark.parametrize("runtime", TARGETS.values())
def test_every_target_has_a_table_that_is_shipped(runtime: str) -> None:
    prices = prices_of(runtime)
    assert prices.target == runtime
    assert 0 < prices.layer(9, 16, 64, 256) < prices.layer(9, 64, 64, 256)


def test_a_table_of_this_machine_comes_first() -> None:
    write_prices(JOINING, own_table("onnxruntime"))
    assert prices_of("onnxruntime").launch_ms == JOINING.launch_ms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "reads format 1"),
        ({"launch_ms": -1}, "less than nothing"),
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
