"""Channel graphs built by hand, and the networks that become of them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gatedeploy.graph.channels import BLEND, VIEW, ChannelGraph, Count, Need, Operand, Operation, Slot, Value
from gatedeploy.passes.emit import emit
from gatedeploy.passes.pools import MAX_SLICES
from gatedeploy.program import Program, evaluate
from gatedeploy.specs import InputSpec
from tests.graph.small import Net, assert_equal, calls, collapsed, conv
from tests.prices import CUTTING

aten = torch.ops.aten
SHAPE = (2, 6, 2, 2)
PICTURE = torch.randn(*SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def graph(**weights: Tensor) -> ChannelGraph:
    """A graph of a picture with six channels and no operations."""
    made = ChannelGraph(weights, frozenset(weights), InputSpec(6, 2, 2))
    made.image = made.new(6, 1, 1, SHAPE)
    return made


def taken(value: Value, *positions: int) -> Value:
    return Value(value.ids[list(positions)], value.axis, value.block, value.shape)


def joined(*values: Value) -> Value:
    return Value(np.concatenate([value.ids for value in values]), values[0].axis, values[0].block, values[0].shape)


def activation(made: ChannelGraph, value: Value, target: Any = aten.relu.default) -> Value:
    output = made.new(len(value.ids), value.axis, value.block, value.shape)
    made.operations.append(Operation(target, (Slot(0),), {}, (Operand(value, Need.ALIGNED),), output, "act"))
    return output


def layer(made: ChannelGraph, value: Value, weight: Value, bias: Value | None = None, name: str = "layer") -> Value:
    """A 1×1 convolution."""
    operands = [Operand(value, Need.ANY_ORDER), Operand(weight, Need.ALIGNED, columns=1)]
    args: tuple[Any, ...] = (Slot(0), Slot(1), None)
    if bias is not None:
        operands.append(Operand(bias, Need.ALIGNED))
        args = (Slot(0), Slot(1), Slot(2))
    output = made.new(len(weight.ids), 1, 1, SHAPE)
    made.operations.append(Operation(aten.conv2d.default, args, {}, tuple(operands), output, name))
    return output


def written(made: ChannelGraph, **outputs: Value) -> tuple[Program, dict[str, Tensor]]:
    """The program, and what it computes."""
    made.outputs = dict(outputs)
    program = emit(made)
    return program, evaluate(program, PICTURE)


def weighted(matrix: Tensor, feature: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", matrix.double(), feature)


def test_nothing_is_written_for_a_tensor_as_it_is() -> None:
    made = graph()
    program, computed = written(made, y=made.image)
    assert calls(program) == []
    assert_equal(computed["y"], PICTURE)


def test_neighbours_are_sliced_and_parts_are_joined() -> None:
    made = graph()
    rectified = activation(made, taken(made.image, 0, 1, 2))
    program, computed = written(made, slice=taken(made.image, 2, 3, 4), parts=joined(rectified, taken(made.image, 5)))
    assert calls(program) == ["slice", "relu", "slice", "slice", "cat"]
    assert_equal(computed["slice"], PICTURE[:, 2:5])
    assert_equal(computed["parts"], torch.cat([PICTURE[:, :3].relu(), PICTURE[:, 5:]], 1))


def test_more_than_a_few_slices_are_gathered_by_index() -> None:
    made = graph()
    few = taken(made.image, 0, 2, 4, 5)
    many = taken(made.image, 5, 3, 1, 4, 2)
    assert MAX_SLICES == 4
    program, computed = written(made, few=few, many=many)
    assert calls(program) == ["slice", "slice", "slice", "cat", "index_select"]
    assert_equal(computed["few"], PICTURE[:, [0, 2, 4, 5]])
    assert_equal(computed["many"], PICTURE[:, [5, 3, 1, 4, 2]])


def test_channels_of_many_tensors_in_a_wild_order_are_joined_once_and_gathered() -> None:
    made = graph()
    one, two = activation(made, made.image), activation(made, made.image, aten.sigmoid.default)
    wild = joined(*(taken(part, number) for number in range(3) for part in (one, two)))
    program, computed = written(made, y=wild)
    assert calls(program) == ["relu", "sigmoid", "slice", "slice", "cat", "index_select"]
    both = [f(PICTURE[:, number : number + 1]) for number in range(3) for f in (torch.relu, torch.sigmoid)]
    assert_equal(computed["y"], torch.cat(both, 1))


def test_blocks_of_neighbouring_entries_move_together() -> None:
    made = graph()
    flat = made.new(6, 1, 4, (2, 24))
    target = aten.reshape.default
    operands = (Operand(made.image, Need.ALIGNED),)
    made.operations.append(Operation(target, (Slot(0), [-1, Count(4)]), {}, operands, flat, "flat"))
    program, computed = written(made, few=taken(flat, 2, 1), many=taken(flat, 5, 3, 1, 4, 2))
    assert calls(program) == ["reshape", "slice", "slice", "cat", "index_select"]
    blocks = PICTURE.reshape(2, 6, 4)
    assert_equal(computed["few"], blocks[:, [2, 1]].flatten(1))
    assert_equal(computed["many"], blocks[:, [5, 3, 1, 4, 2]].flatten(1))


def test_columns_follow_the_order_in_which_the_input_lies() -> None:
    """The layer was written for channels 4, 0, 2; the tensor holds 0, 2, 4: the weight turns, the input does not."""
    matrix = torch.randn(5, 3, 1, 1)
    made = graph(**{"a.weight": matrix})
    rectified = activation(made, taken(made.image, 0, 2, 4))
    output = layer(made, taken(rectified, 2, 0, 1), made.weight("a.weight", 0))
    program, computed = written(made, y=output)
    assert calls(program) == ["slice", "slice", "slice", "cat", "relu", "conv2d"]
    assert torch.equal(program.weights["a.weight"], matrix[:, [1, 2, 0]].double())
    assert_equal(computed["y"], weighted(matrix[:, :, 0, 0], PICTURE[:, [4, 0, 2]].relu()))


def test_columns_that_read_one_channel_are_added_up() -> None:
    matrix = torch.randn(5, 4, 1, 1)
    made = graph(**{"a.weight": matrix})
    output = layer(made, taken(made.image, 1, 0, 1, 1), made.weight("a.weight", 0))
    program, computed = written(made, y=output)
    assert program.weights["a.weight"].shape == (5, 2, 1, 1)
    assert_equal(program.weights["a.weight"][:, 1], matrix[:, [0, 2, 3]].double().sum(1))
    assert_equal(computed["y"], weighted(matrix[:, :, 0, 0], PICTURE[:, [1, 0, 1, 1]]))


def test_rows_are_cut_and_bias_and_norm_go_with_them() -> None:
    matrix, bias = torch.randn(5, 6, 1, 1), torch.randn(5)
    made = graph(**{"a.weight": matrix, "a.bias": bias})
    weight, offset = taken(made.weight("a.weight", 0), 3, 1), taken(made.weight("a.bias", 0), 3, 1)
    output = layer(made, made.image, weight, offset)
    made.operations[-1].constants = {"scale": np.array([2.0, -1.0]), "shift": np.array([0.5, 0.0])}
    program, computed = written(made, y=output)
    assert_equal(program.weights["a.bias"], torch.tensor([2.0 * float(bias[3]) + 0.5, -float(bias[1])]))
    plain = weighted(matrix[[3, 1], :, 0, 0], PICTURE) + bias[[3, 1], None, None].double()
    assert_equal(
        computed["y"], plain * torch.tensor([2.0, -1.0])[:, None, None] + torch.tensor([0.5, 0])[:, None, None]
    )


def test_a_shift_becomes_the_bias_of_a_layer_without_one() -> None:
    made = graph(**{"a.weight": torch.randn(2, 6, 1, 1)})
    output = layer(made, made.image, made.weight("a.weight", 0))
    made.operations[-1].constants = {"scale": np.ones(2), "shift": np.array([3.0, 4.0])}
    program, _ = written(made, y=output)
    assert program.weights["a.bias"].tolist() == [3.0, 4.0]


def test_a_blend_adds_up_operands_that_are_one_and_the_same() -> None:
    made = graph()
    one, two = activation(made, made.image), activation(made, made.image, aten.sigmoid.default)
    output = made.new(6, 1, 1, SHAPE)
    operands = tuple(Operand(value, Need.ALIGNED) for value in (one, two, one))
    blend = Operation(BLEND, (Slot(0), Slot(1), Slot(2)), {}, operands, output, "mix")
    blend.constants["share"] = np.array([[0.5], [0.25], [0.25]]).repeat(6, axis=1)
    made.operations.append(blend)
    program, computed = written(made, y=output)
    assert calls(program) == ["relu", "sigmoid", "mul", "mul", "add"]
    assert_equal(computed["y"], 0.75 * PICTURE.relu() + 0.25 * PICTURE.sigmoid())


def test_a_view_writes_nothing_of_its_own() -> None:
    made = graph()
    rows = made.new(2, 2, 1, SHAPE)
    made.operations.append(Operation(VIEW, (Slot(0),), {}, (Operand(made.image, Need.WHOLE),), rows, "view"))
    program, computed = written(made, y=taken(rows, 1))
    assert calls(program) == ["slice"]
    assert_equal(computed["y"], PICTURE[:, :, 1:])


def test_several_results_are_taken_apart() -> None:
    made = graph()
    both, values = made.new(1, None), made.new(2, 1, 1, SHAPE)
    topk = Operation(aten.topk.default, (Slot(0), 2, 1), {}, (Operand(made.image, Need.WHOLE),), both, "topk")
    first = Operation(operator.getitem, (Slot(0), 0), {}, (Operand(both, Need.WHOLE),), values, "topk")
    made.operations += [topk, first]
    program, computed = written(made, y=joined(taken(values, 1), taken(values, 0)))
    assert_equal(computed["y"], PICTURE.topk(2, 1)[0].flip(1))
    assert calls(program)[0] == "topk"


def test_weights_are_joined_with_what_is_computed() -> None:
    offset = torch.randn(1, 2, 2, 2)
    made = graph(p=offset)
    operands, output = (Operand(made.image, Need.ALIGNED),), made.new(6, 1, 1, SHAPE)
    first = Operation(aten.slice.Tensor, (Slot(0), 0, 0, 1), {}, operands, output, "first")
    made.operations.append(first)
    program, computed = written(made, y=joined(taken(first.output, 5), made.weight("p", 1), taken(first.output, 0)))
    assert_equal(computed["y"], torch.cat([PICTURE[:1, 5:], offset, PICTURE[:1, :1]], 1))
    assert set(program.weights) == {"p"}


@pytest.mark.parametrize("name", ["reshape", "conv2d", "image", "output", "class", "torch"])
def test_operations_may_be_called_anything(name: str) -> None:
    made = graph(**{"a.weight": torch.randn(2, 6, 1, 1)})
    one = layer(made, made.image, made.weight("a.weight", 0), name=name)
    two = layer(made, made.image, taken(made.weight("a.weight", 0), 1, 0), name=name)
    program, computed = written(made, one=one, two=two)
    assert len({node.name for node in program.graph.nodes}) == len(list(program.graph.nodes))
    assert_equal(computed["one"], computed["two"].flip(1))


def test_floats_are_written_in_float64_and_their_training_is_kept() -> None:
    made = ChannelGraph({"p": torch.ones(6, 1, 1), "q": torch.ones(6, 1, 1)}, frozenset({"p"}), InputSpec(6, 2, 2))
    made.image = made.new(6, 1, 1, SHAPE)
    for name in ("p", "q"):
        operands = (Operand(made.image, Need.ALIGNED), Operand(made.weight(name, 0), Need.ALIGNED))
        output = made.new(6, 1, 1, SHAPE)
        made.operations.append(Operation(aten.mul.Tensor, (Slot(0), Slot(1)), {}, operands, output, name))
        made.outputs[name] = output
    program = emit(made)
    assert program.trainable == {"p"}
    assert {weight.dtype for weight in program.weights.values()} == {torch.float64}


def test_rows_without_a_layer_have_no_bias() -> None:
    """One sum, half of whose rows are layers: cut apart, the other half adds two tensors and nothing else."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        one, two = n.a(x), n.b(x)
        total = (torch.cat([n.c(x), one[:, 8:]], 1) + two).relu()
        return {"one": one, "two": two, "layer": n.first(total[:, :8]), "sum": n.second(total[:, 8:])}

    layers = {"a": conv(3, 16), "b": conv(3, 16), "c": conv(3, 8), "first": conv(8, 16), "second": conv(8, 16)}
    collapsed(Net(run, **layers), CUTTING)
