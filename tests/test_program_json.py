from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.modules import network
from gatedeploy.program import Program, evaluate
from gatedeploy.program_json import graph_from_json, graph_to_json
from gatedeploy.specs import InputSpec
from tests.graph.small import UNSEEN, Net, assert_equal, conv, gate, norm, program_of, weight

Plain = dict[str, Any]


def everything(n: Net, x: Tensor) -> dict[str, Any]:
    """A network whose graph has arguments of every kind."""
    feature = torch.relu(n.norm(n.a(x)))
    mixed = n.mix(n.gate(feature, n.b(x)), feature)
    return {
        "map": F.interpolate(mixed, scale_factor=2.0, mode="bilinear").clamp(max=math.inf),
        "parts": [mixed.split([1, 3], 1)[1], (mixed.softmax(1, dtype=torch.float64), {"flat": mixed.flatten(1)})],
        "sizes": mixed.view(x.shape[0], 2, 2, -1).new_full((x.shape[0] * 2, 3), -math.inf),
        "pad": F.pad(mixed, (1, 1), value=0.5),
    }


@cache
def program() -> Program:
    torch.manual_seed(0)
    parts: dict[str, nn.Module] = {"a": conv(), "b": conv(), "norm": norm(), "gate": gate(1, 0, 0, 1)}
    return program_of(Net(everything, mix=gd.Mix(2, 4), **parts))


def document() -> Plain:
    """The graph as it would be read from a file."""
    plain: Plain = json.loads(json.dumps(graph_to_json(program())))
    return plain


def read(plain: Any, weights: dict[str, Tensor] | None = None, input: InputSpec | None = None) -> Program:
    return graph_from_json(plain, program().weights if weights is None else weights, input or program().input)


# ---------------------------------------------------------------- what was written is read


def test_a_graph_survives() -> None:
    again = read(document())
    assert graph_to_json(again) == document()
    assert again.trainable == program().trainable
    assert again.input == program().input
    for name, tensor in evaluate(program(), UNSEEN).items():
        ours, theirs = torch.utils._pytree.tree_leaves(evaluate(again, UNSEEN)[name]), tensor
        for one, other in zip(ours, torch.utils._pytree.tree_leaves(theirs), strict=True):
            assert torch.equal(one, other)


def test_it_is_plain_json() -> None:
    text = json.dumps(graph_to_json(program()), allow_nan=False)
    assert "Infinity" not in text


def test_structures_keep_their_kinds() -> None:
    predictions = evaluate(read(document()), UNSEEN)
    assert isinstance(predictions["parts"], list)
    assert isinstance(predictions["parts"][1], tuple)
    assert set(predictions["parts"][1][1]) == {"flat"}


def test_weights_that_the_graph_does_not_read_are_left_out() -> None:
    again = read(document(), {**program().weights, "other": torch.ones(2)})
    assert set(again.weights) == set(program().weights)


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda n, x: torch.fft.fft2(x).abs(), "aten.fft_fft2.default"),
        (lambda n, x: torch.bernoulli(x), "aten.bernoulli.default"),
    ],
    ids=["fft", "random"],
)
def test_what_a_saved_graph_may_not_call_is_not_written(run: Callable[[Any, Tensor], Any], what: str) -> None:
    with pytest.raises(gd.InputError, match=f"its graph calls '{what}', which is not among the operators"):
        graph_to_json(program_of(Net(run)))


def same(run: Callable[[Any, Tensor], Any], **parts: Any) -> None:
    """What `run` says is what its graph says after a journey through a file."""
    captured = program_of(Net(run, **parts))
    plain = json.loads(json.dumps(graph_to_json(captured)))
    again = network(graph_from_json(plain, captured.weights, captured.input))
    with torch.no_grad():
        assert_equal(again(UNSEEN), evaluate(captured, UNSEEN))


def into_a_slice(n: Net, x: Tensor) -> Tensor:
    feature = x * 2
    feature[:, :1] = 0
    return feature


SURVIVORS: dict[str, Callable[[Any, Tensor], Any]] = {
    "an equation": lambda n, x: torch.einsum("nchw,ck->nkhw", x, n.p),
    "a device, which is for whoever loads it to decide": lambda n, x: n.p.view(1, 3, 1, 2).to(x) * x[..., :2],
    "a memory format": lambda n, x: x.mul(2).contiguous(memory_format=torch.channels_last),
    "a copy that must be contiguous": lambda n, x: x.mT.clone(memory_format=torch.contiguous_format).view(-1, 192),
    "writing into a slice": into_a_slice,
    "volumes": lambda n, x: F.max_pool3d(F.interpolate(x.unsqueeze(2), scale_factor=2, mode="trilinear"), 2),
    "arithmetic": lambda n, x: torch.log1p(x.abs() % 2).logsumexp(1),
    "second names": lambda n, x: x.multiply(2).clip(0, 1).swapdims(2, 3),
    "shuffled channels": lambda n, x: F.channel_shuffle(x.tile(1, 2, 1, 1), 2),
}


@pytest.mark.parametrize("what", SURVIVORS)
def test_networks_survive(what: str) -> None:
    same(SURVIVORS[what], p=weight(3, 2))


@pytest.mark.parametrize("key", ["fc-1", "größe", "a b", "x" * 300, "class", "graph"], ids=lambda key: key[:5])
def test_weights_may_be_called_as_modules_may(key: str) -> None:
    same(lambda n, x: n.parts[key](x), parts=nn.ModuleDict({key: conv()}))


def test_keys_that_are_no_text_are_not_written() -> None:
    """JSON would make them text without a word."""
    with pytest.raises(gd.InputError, match="cannot be saved; a saved graph holds"):
        graph_to_json(program_of(Net(lambda n, x: {"y": {0: x * 2}})))


# ---------------------------------------------------------------- any change of a valid document


LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.just(10**30), st.floats(), st.text(max_size=5)),
    *(st.just([]), st.just({}), st.just([1, [2]]), st.just({"node": "relu"}), st.just({"node": []}), st.just("image")),
    *(st.just({"tuple": [1]}), st.just({"dtype": "float32"}), st.just({"dict": {"a": 1}}), st.just({"float": "nan"})),
)


def places(item: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every part of a JSON value."""
    parts = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else []
    return [path, *(place for key, part in parts for place in places(part, (*path, key)))]


@pytest.mark.parametrize("number", [-1, -3, 99, 6, True, {"node": "mix"}], ids=str)
def test_a_kind_of_numbers_is_no_number(number: Any) -> None:
    """PyTorch looks a number up where its kinds of numbers stand, and crashes where nothing stands there."""
    plain = document()
    softmax = next(node for node in plain["nodes"] if node["name"] == "softmax")
    assert softmax["args"][2] == {"dtype": "float64"}
    softmax["args"][2] = number
    with pytest.raises(gd.InputError, match=r"its graph calls aten\.softmax\.int with dtype .*; expected a ScalarType"):
        read(plain)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_refused_or_read(data: st.DataObject) -> None:
    plain = document()
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from([place for place in places(plain) if place]))
        owner: Any = plain
        for key in way:
            owner = owner[key]
        if data.draw(st.booleans()):
            owner[last] = copy.deepcopy(data.draw(LEAVES))  # or a further change would change the strategy
        else:
            del owner[last]
    try:
        made = read(plain)
    except gd.InputError:
        return
    written = graph_to_json(made)
    assert [node["name"] for node in written["nodes"]] == [
        node.name for node in made.graph.nodes if node.op != "output"
    ]
    assert len(written["nodes"]) == len(plain["nodes"])
    made.graph.lint()
