"""Graphs that somebody else wrote: read as what they are, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.modules import network
from gatedeploy.program import evaluate
from gatedeploy.program_json import OPERATORS, graph_from_json
from gatedeploy.specs import InputSpec
from tests.graph.small import UNSEEN, assert_equal

Plain = dict[str, Any]


IMAGE = {"node": "image"}
SMALL = InputSpec(3, 8, 8)


def call(name: str, target: str, *args: Any, **kwargs: Any) -> Plain:
    return {"name": name, "call": target, "args": list(args), "kwargs": kwargs}


def graph(*nodes: Plain, outputs: Any = None, trainable: Any = ()) -> Plain:
    """A document of a picture and these nodes, the last of which is predicted."""
    all_nodes = [{"name": "image", "input": True}, *nodes]
    predicted = {"dict": {"y": {"node": all_nodes[-1]["name"]}}} if outputs is None else outputs
    return {"nodes": all_nodes, "outputs": predicted, "trainable": list(trainable)}


def refused(plain: Any, message: str, weights: dict[str, Tensor] | None = None) -> None:
    with pytest.raises(gd.InputError, match=message):
        graph_from_json(plain, weights or {}, SMALL)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "aten.from_file.default",
            "aten.add.out",
            "aten.relu_.default",
            "aten.set_.source_Storage",
            "aten.save.default",
        ),
        *("aten.relu", "aten.relu.", "aten..default", "", "...", "aten.relu.default.__call__", "aten.relu.__class__"),
        *(
            "aten.relu.__init__",
            "aten.relu._op",
            "aten.relu.no_such",
            "aten.relu.default.redispatch",
            "aten.__dict__.x",
        ),
        *(
            "os.system",
            "builtins.eval",
            "python.eval",
            "python.getitem.x",
            "python",
            "prims.add.default",
            "inductor.x.y",
        ),
        *("gatedeploy.select", "gatedeploy.select.default.x", "gatedeploy.other.default", "aten.bernoulli.default"),
        *("aten.rand.default", "aten.resize_.default", "aten.record_stream.default", "aten._print.default"),
    ],
)
def test_only_operators_of_the_list_are_called(target: str) -> None:
    refused(graph(call("y", target, IMAGE)), "which is not among the operators that a saved network may use")


def test_operators_of_the_list_write_into_nothing() -> None:
    for packet in OPERATORS:
        for overload in getattr(torch.ops.aten, packet).overloads():
            function = getattr(getattr(torch.ops.aten, packet), overload)
            plain = graph(call("y", f"aten.{packet}.{overload}"))
            if function._schema.is_mutable:
                refused(plain, "not among the operators")


@pytest.mark.parametrize("name", ["", "1a", "x y", "a.b", "é", "ＡＢ", "a\n", "a-b", "a;import os", "$"])
def test_names_of_nodes_are_identifiers(name: str) -> None:
    refused(graph(call(name, "aten.relu.default", IMAGE)), "no identifier, or one that was there before")


@pytest.mark.parametrize(
    "name",
    [
        *("self", "torch", "__import__", "class", "None", "device", "inf", "nan", "fx_pytree", "print", "_", "forward"),
        *("image_1", "relu", "input", "operator", "__class__", "return", "lambda"),
    ],
)
def test_names_that_mean_something_in_python_mean_nothing(name: str) -> None:
    nodes = [
        {"name": "w", "weight": "layer.scale"},
        call(name, "aten.relu.default", IMAGE),
        call("y", "aten.mul.Tensor", {"node": name}, {"node": "w"}),
    ]
    weights = {"layer.scale": torch.full((3, 1, 1), 2.0)}
    made = network(graph_from_json(graph(*nodes), weights, SMALL))
    assert torch.equal(made(UNSEEN.float())["y"], UNSEEN.float().relu() * 2)


@pytest.mark.parametrize("name", ["self", "torch", "photo"])
def test_the_name_of_the_picture_means_nothing(name: str) -> None:
    read_program = graph_from_json(graph(call("y", "aten.relu.default", IMAGE)), {}, InputSpec(3, 8, 8, name=name))
    assert torch.equal(network(read_program)(UNSEEN)["y"], UNSEEN.relu())


OTHER: list[Any] = [None, 5, "text", [], {}, {"nodes": 5}, {"nodes": [5]}, {"nodes": [[]]}]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            graph(call("y", "aten.relu.default", {"node": "z"}), call("z", "aten.relu.default", IMAGE)),
            "malformed .*'z'",
        ),
        (graph(call("y", "aten.relu.default", {"node": "y"})), "malformed .*'y'"),
        (graph(call("y", "aten.relu.default", IMAGE), call("y", "aten.relu.default", IMAGE)), "there before"),
        (graph({"name": "w", "weight": "no.such"}), "reads a weight 'no.such' that is not in the file"),
        (graph({"name": "w", "weight": "a..b"}), "reads a weight"),
        (graph({"name": "w", "weight": {"a": 1}}), "reads a weight"),
        (graph(call("y", "aten.pad.default", IMAGE, [1, 1], "Reflect; rm")), "a text argument"),
        (graph(call("y", "aten.to.dtype", IMAGE, {"dtype": "complex64"})), "malformed"),
        (graph(call("y", "aten.to.dtype", IMAGE, {"dtype": ["int64"]})), "malformed"),
        (graph(call("y", "aten.mul.Scalar", IMAGE, {"float": "one"})), "malformed"),
        (graph(call("y", "aten.mul.Scalar", IMAGE, {"float": [1]})), "malformed"),
        (graph(call("y", "aten.mul.Scalar", IMAGE, {"code": "1"})), "malformed .*unknown kind 'code'"),
        (graph(call("y", "aten.mul.Scalar", IMAGE, {"float": 1, "node": "image"})), "malformed .*two kinds"),
        (graph(call("y", "aten.mul.Scalar", IMAGE, {})), "malformed"),
        (graph(outputs={"dict": {}}), "no outputs by task"),
        (graph(outputs=[IMAGE]), "no outputs by task"),
        (graph(outputs=IMAGE), "no outputs by task"),
        (graph(outputs={"dict": {"y": {"node": "z"}}}), "malformed"),
        (graph(outputs={"dict": {"y": 3}}), "outputs that it does not compute"),
        (graph({"name": "second", "input": True}), "must have one input, the picture"),
        ({**graph(), "nodes": [call("image", "aten.zeros.default", [2])]}, "must have one input, the picture"),
        ({**graph(), "trainable": 5}, "malformed"),
        ({"nodes": [{"name": "a"}]}, "malformed .*'outputs'"),
        ({"outputs": {}, "trainable": []}, "malformed .*'nodes'"),
        *((other, "malformed") for other in OTHER),
    ],
)
def test_malformed_graphs_are_refused(plain: Any, message: str) -> None:
    refused(plain, message)


def test_too_many_nodes_are_refused() -> None:
    class Endless(list[Any]):
        def __len__(self) -> int:
            return 10**9

    refused({"nodes": Endless()}, "has 1000000000 nodes; at most 1000000 are read")


def test_nothing_is_computed_while_a_graph_is_read() -> None:
    """No machine could hold these numbers."""
    graph_from_json(graph(call("y", "aten.full.default", [10**9, 10**9], 1.0)), {}, SMALL)


def deep(depth: int) -> Any:
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


def test_deep_nesting_is_refused() -> None:
    refused(graph(call("y", "aten.mul.Scalar", IMAGE, deep(100_000))), "malformed: nested too deep")
    refused(graph(call("y", "aten.mul.Scalar", IMAGE, deep(900))), "nested too deep|does not fit")


LAYER = {"name": "w", "weight": "a.weight"}
FOUR = {"a.weight": torch.ones(4, 3, 1, 1)}


def layer(*args: Any, **kwargs: Any) -> Plain:
    return graph(LAYER, call("y", "aten.conv2d.default", IMAGE, {"node": "w"}, *args, **kwargs))


def product(*numbers: Any) -> list[Plain]:
    """Numbers multiplied by themselves until nobody could write them down."""
    first = call("p0", "python.mul", *numbers)
    return [first, *(call(f"p{i + 1}", "python.mul", {"node": f"p{i}"}, {"node": f"p{i}"}) for i in range(60))]


NORM = [{"name": "m", "weight": "n.running_mean"}, {"name": "v", "weight": "n.running_var"}]
STATISTICS = {"n.running_mean": torch.zeros(3), "n.running_var": torch.ones(3)}
MISFITS: dict[str, tuple[Plain, dict[str, Tensor]]] = {
    "channels": (layer(), {"a.weight": torch.ones(4, 5, 1, 1)}),
    "dimensions": (layer(), {"a.weight": torch.ones(4)}),
    "whole numbers": (layer(), {"a.weight": torch.ones(4, 3, 1, 1, dtype=torch.int64)}),
    "stride": (layer(None, [10**30, 1]), FOUR),
    "stride of text": (layer(None, "same"), FOUR),
    "groups": (layer(None, [1, 1], [0, 0], [1, 1], 7), FOUR),
    "groups of text": (layer(None, [1, 1], [0, 0], [1, 1], "many"), FOUR),
    "no arguments": (graph(call("y", "aten.conv2d.default")), {}),
    "an unknown argument": (graph(call("y", "aten.relu.default", IMAGE, other=1)), {}),
    "an unknown argument of a Python function": (graph(call("y", "python.add", 1, 2, out=3)), {}),
    "too many arguments": (graph(call("y", "aten.relu.default", IMAGE, 1, 2)), {}),
    "an argument twice": (graph(call("y", "aten.relu.default", IMAGE, self=IMAGE)), {}),
    "a norm cut short": (
        graph(*NORM, call("y", "aten.batch_norm.default", IMAGE, None, None, {"node": "m"}, {"node": "v"})),
        STATISTICS,
    ),
    "parts of another size": (graph(call("y", "aten.split_with_sizes.default", IMAGE, [1], 1)), {}),
    "a negative size": (graph(call("y", "aten.full.default", [-1], 1.0)), {}),
    "an enormous size": (graph(call("y", "aten.full.default", [10**30], 1.0)), {}),
    "an enormous number": (graph(call("y", "aten.mul.Scalar", IMAGE, 10**400)), {}),
    "an enormous product": (graph(*product(3, 3)), {}),
    "an enormous list": (graph(*product([0], 3)), {}),
    "division by zero": (graph(call("y", "python.floordiv", 1, 0)), {}),
    "an item by text": (graph(call("y", "python.getitem", IMAGE, "abc")), {}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_graphs_that_do_not_fit_are_refused(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """In one sentence: PyTorch would print a traceback beside it."""
    plain, weights = MISFITS[name]
    refused(plain, r"its graph does not fit: \w+ = .*\(…\) cannot be computed: .", weights)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_picture_that_nobody_could_hold_is_refused() -> None:
    with pytest.raises(gd.InputError, match="its graph does not fit: no picture can be of shape"):
        graph_from_json(graph(), {}, InputSpec(3, 10**30, 8))


@pytest.mark.parametrize(
    "name",
    [
        *("forward.w", "_modules.w", "__class__.w", "a.__dict__.w", "code", "graph.w", "meta.w", "train", "class.w"),
        *('a"b.w', "a\\.w", "a\n.w", "a..w", ".w", "", "\ud800", "ＡＢ.w", ".".join("a" * 100)),
    ],
)
def test_names_that_no_weight_may_have_are_refused(name: str) -> None:
    plain = graph({"name": "w", "weight": name}, call("y", "aten.mul.Tensor", IMAGE, {"node": "w"}))
    refused(plain, "no module can have an attribute of that name", {name: torch.ones(3, 1, 1)})


def test_a_weight_below_a_weight_is_refused() -> None:
    plain = graph(
        {"name": "w", "weight": "w"},
        {"name": "x", "weight": "w.x"},
        call("y", "aten.mul.Tensor", IMAGE, {"node": "w"}),
        call("z", "aten.mul.Tensor", {"node": "y"}, {"node": "x"}),
    )
    message = "reads a weight 'w' and others that lie in a module of that name"
    refused(plain, message, {"w": torch.ones(3, 1, 1), "w.x": torch.ones(3, 1, 1)})


def test_whole_numbers_are_not_trained() -> None:
    plain = {**graph({"name": "w", "weight": "w"}), "trainable": ["w"]}
    refused(plain, "its weight 'w' is to be trained, but holds whole numbers", {"w": torch.ones(3, dtype=torch.int64)})


def test_nothing_lies_in_the_place_of_an_attribute_of_a_layer() -> None:
    """A convolution has a stride of its own, so it cannot be the module that holds this weight as well."""
    plain = graph(
        LAYER,
        {"name": "s", "weight": "a.stride"},
        call("c", "aten.conv2d.default", IMAGE, {"node": "w"}),
        call("y", "aten.mul.Tensor", {"node": "c"}, {"node": "s"}),
    )
    read_program = graph_from_json(plain, {**FOUR, "a.stride": torch.full((1,), 2.0)}, SMALL)
    assert_equal(network(read_program)(UNSEEN.float())["y"], evaluate(read_program, UNSEEN)["y"], 1e-6)


@pytest.mark.parametrize("settings", [{"stride": [2, 2]}, {"padding": [1, 1], "weight": {"node": "w"}}])
def test_settings_by_name_count(settings: Plain) -> None:
    """A graph of somebody else may name what ours gives by position."""
    weights = () if "weight" in settings else ({"node": "w"},)
    plain = graph(LAYER, call("y", "aten.conv2d.default", IMAGE, *weights, **settings))
    read_program = graph_from_json(plain, FOUR, SMALL)
    made = network(read_program)
    assert isinstance(made.a, nn.Conv2d)
    assert_equal(made(UNSEEN.float())["y"], evaluate(read_program, UNSEEN)["y"], 1e-6)


def test_settings_that_are_computed_stay_with_the_call() -> None:
    size = call("size", "aten.sym_size.int", IMAGE, 1)
    groups = call("groups", "python.floordiv", {"node": "size"}, 3)
    plain = graph(
        LAYER,
        size,
        groups,
        call("y", "aten.conv2d.default", IMAGE, {"node": "w"}, None, [1, 1], [0, 0], [1, 1], {"node": "groups"}),
    )
    read_program = graph_from_json(plain, FOUR, SMALL)
    assert_equal(network(read_program)(UNSEEN.float())["y"], evaluate(read_program, UNSEEN)["y"], 1e-6)
