from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

import gatedeploy as gd
from gatedeploy.parity import FLOAT32, FLOAT64, Parity, compare


def test_a_difference_is_judged_by_the_largest_number_expected() -> None:
    expected, got = {"a": torch.tensor([1.0, -200.0])}, {"a": torch.tensor([3.0, -200.0])}
    parity = compare(expected, got, 0.05)
    assert parity.error == pytest.approx({"a": 0.01})
    assert parity.holds
    assert not compare(expected, got, 0.005).holds


def test_where_all_is_zero_a_difference_counts_as_it_is() -> None:
    assert compare({"a": torch.zeros(3)}, {"a": torch.full((3,), 0.5)}, 1e-9).error == {"a": 0.5}
    assert compare({"a": torch.zeros(3)}, {"a": torch.zeros(3)}, 0.0).holds


def test_structures_are_compared_leaf_by_leaf() -> None:
    expected: dict[str, Any] = {
        "a": [torch.ones(2), (torch.full((3,), 10.0), {"x": torch.ones(1)})],
        "b": torch.ones(1),
    }
    got = {"a": [torch.ones(2), (torch.full((3,), 11.0), {"x": torch.ones(1)})], "b": torch.ones(1)}
    assert compare(expected, got, 0.0).error == pytest.approx({"a": 0.1, "b": 0.0})


def test_numbers_truth_values_and_nothing_at_all() -> None:
    assert compare({"a": 3, "b": []}, {"a": 3, "b": []}, 0.0).holds
    assert compare({"a": torch.tensor([True, False])}, {"a": torch.tensor([True, True])}, 0.5).error == {"a": 1.0}
    assert compare({"a": torch.zeros(0, 3)}, {"a": torch.zeros(0, 3)}, 0.0).holds


@pytest.mark.parametrize(("expected", "got"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1.0, -math.inf)])
def test_what_is_undefined_in_one_only_never_agrees(expected: float, got: float) -> None:
    parity = compare({"a": torch.tensor([expected, 2.0])}, {"a": torch.tensor([got, 2.0])}, 1e9)
    assert parity.error == {"a": math.inf}
    with pytest.raises(gd.CheckError, match="the network differs in task 'a' by inf"):
        parity.check("the network")


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_what_is_infinite_in_both_agrees(value: float) -> None:
    both = {"a": torch.tensor([value, 2.0])}
    assert compare(both, {"a": both["a"].clone()}, 0.0).holds


@pytest.mark.parametrize("values", [[math.nan, 2.0], [math.nan, math.nan]])
def test_what_is_undefined_in_both_never_agrees(values: list[float]) -> None:
    """Nothing is known of it; two networks that broke in two ways would agree in everything."""
    both: dict[str, Any] = {"a": torch.tensor(values), "b": [torch.tensor(values), torch.ones(1)]}
    parity = compare(both, both, 1e9)
    assert parity.error == {"a": math.inf, "b": math.inf}
    assert not parity.holds


def test_a_nan_is_worse_than_any_number() -> None:
    parity = Parity({"a": 5.0, "b": math.nan, "c": 9.0}, 1.0)
    assert not parity.holds
    with pytest.raises(gd.CheckError, match="differs in task 'b' by nan"):
        parity.check("the network")


def test_the_worst_task_is_named_in_words() -> None:
    Parity({"a": 1e-10}, FLOAT64).check("the network")
    message = "the network differs in task 'b' by 2.00e-03 of the output's scale; at most 1e-04 is rounding"
    with pytest.raises(gd.CheckError, match=re.escape(message)):
        Parity({"a": 1e-10, "b": 2e-3}, FLOAT32).check("the network")


def test_other_tasks_or_shapes_are_told() -> None:
    with pytest.raises(gd.CheckError, match="expected predictions for a, b; got b, a"):
        compare({"a": 1, "b": 1}, {"b": 1, "a": 1}, 1.0)
    message = re.escape("task 'a': expected a prediction of shape (2, 3), got (3, 2)")
    with pytest.raises(gd.CheckError, match=message):
        compare({"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, 1.0)


def test_other_structures_are_told() -> None:
    with pytest.raises(gd.CheckError, match="task 'a': expected a prediction of 2 tensors, got 1"):
        compare({"a": [torch.zeros(1), torch.zeros(1)]}, {"a": [torch.zeros(1)]}, 1.0)
