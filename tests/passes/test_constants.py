from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gatedeploy.graph.channels import ChannelGraph, Need, Operand, Value
from gatedeploy.passes.constants import Constants
from gatedeploy.specs import InputSpec
from tests.graph.small import Net, collapsed, conv, shape


def constants(*trainable: str, **weights: Tensor) -> Constants:
    """Makes constants of these weights; in their names `_dot_` stands for a dot."""
    named = {name.replace("_dot_", "."): tensor for name, tensor in weights.items()}
    return Constants(ChannelGraph(named, frozenset(trainable), InputSpec(3, 4, 4)))


def channels(made: Constants, name: str, *positions: int, axis: int = 0, block: int = 1) -> Value:
    whole = made.graph.weight(name, axis, block)
    return Value(whole.ids[list(positions)], axis, block, whole.shape)


def layer(made: Constants, name: str, *rows: int) -> tuple[str, str | None]:
    """These rows of the layer, for its three channels of input as they come."""
    weight = Operand(channels(made, f"{name}.weight", *rows), Need.ALIGNED, columns=1)
    bias = f"{name}.bias" in made.graph.weights
    offset = Operand(channels(made, f"{name}.bias", *rows), Need.ALIGNED) if bias else None
    data = Value(np.array([1000, 1001, 1002]), 1, 1, (1, 3, 1, 1))
    return made.layer(weight, offset, data, data.ids, None)


def test_a_piece_is_cut_once_and_named_after_where_it_comes_from() -> None:
    made = constants(a_dot_scale=torch.arange(4.0))
    assert made.rows(channels(made, "a.scale", 2, 0)) == "a.scale"
    assert made.rows(channels(made, "a.scale", 2, 0)) == "a.scale"
    assert made.rows(channels(made, "a.scale", 1)) == "a_2.scale"
    assert made.weights["a.scale"].tolist() == [2.0, 0.0]
    assert made.weights["a_2.scale"].tolist() == [1.0]


def test_rows_lie_along_their_axis_in_blocks() -> None:
    made = constants(p=torch.arange(12.0).view(2, 6))
    name = made.rows(channels(made, "p", 2, 0, axis=1, block=2))
    assert made.weights[name].tolist() == [[4.0, 5.0, 0.0, 1.0], [10.0, 11.0, 6.0, 7.0]]


def test_whole_numbers_stay_whole() -> None:
    made = constants(p=torch.arange(4))
    assert made.weights[made.rows(channels(made, "p", 3, 1))].tolist() == [3, 1]
    assert made.weights["p"].dtype == torch.int64


def test_what_was_a_parameter_stays_one() -> None:
    made = constants("a.scale", a_dot_scale=torch.ones(2), a_dot_mean=torch.ones(2))
    made.rows(channels(made, "a.scale", 0))
    made.rows(channels(made, "a.mean", 0))
    assert made.trainable == {"a.scale"}


def test_branches_are_named_by_their_task_alone() -> None:
    made = constants(branches_dot_depth_dot_scale=torch.ones(2))
    assert made.rows(channels(made, "branches.depth.scale", 0)) == "depth.scale"


def test_equal_pieces_of_a_layer_are_one_layer() -> None:
    made = constants(a_dot_weight=torch.randn(4, 3, 1, 1), a_dot_bias=torch.randn(4))
    assert layer(made, "a", 0, 2) == layer(made, "a", 0, 2) == ("a.weight", "a.bias")
    assert layer(made, "a", 1) == ("a_2.weight", "a_2.bias")
    assert made.weights["a.weight"].shape == (2, 3, 1, 1)


def test_a_layer_without_bias_has_none() -> None:
    made = constants(a_dot_weight=torch.randn(4, 3, 1, 1))
    assert layer(made, "a", 0, 2) == ("a.weight", None)
    assert layer(made, "a", 0, 2) == ("a.weight", None)


def test_a_name_is_free_if_nothing_lies_below_it() -> None:
    """A piece may not be called as a module that holds other pieces is, nor lie below one."""
    made = constants(a=torch.ones(2), a_dot_weight=torch.ones(2), a_dot_b_dot_c=torch.ones(2))
    assert made.rows(channels(made, "a.weight", 0)) == "a.weight"
    assert made.rows(channels(made, "a", 0)) == "a_2"
    assert made.rows(channels(made, "a.b.c", 0)) == "a.b.c"
    assert made.rows(channels(made, "a", 1)) == "a_3"


@pytest.mark.parametrize("name", ["graph", "code", "recompile", "print_readable"])
def test_names_that_a_graph_module_has_itself_are_avoided(name: str) -> None:
    thin = collapsed(Net(lambda n, x: getattr(n, name)(x), **{name: conv()}))
    assert shape(thin, f"{name}_.weight") == (4, 3, 1, 1)


@pytest.mark.parametrize("name", ["meta", "_graph", "_code"])
def test_names_that_an_instance_of_a_graph_module_has_are_avoided(name: str) -> None:
    collapsed(Net(lambda n, x: getattr(n, name)(x), **{name: conv()}))


def test_a_bias_that_is_read_apart_from_its_layer_keeps_its_name() -> None:
    """The whole bias is written first; the layer then needs two of its rows."""
    network = Net(lambda n, x: n.bias_of(n.a.bias, x) + n.a(x)[:, 1:3], a=conv())
    collapsed(network.having(bias_of=lambda bias, x: bias.view(4, 1, 1)[:2] * x[:, :1]))
