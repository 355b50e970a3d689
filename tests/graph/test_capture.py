from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.program import evaluate
from tests.graph.small import (
    PICTURE,
    UNSEEN,
    Net,
    assert_captured,
    assert_equal,
    collapsed,
    conv,
    norm,
    prepared,
    program_of,
    weight,
)

# ---------------------------------------------------------------- what a network may return


Both = collections.namedtuple("Both", "one two")


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: {"a": n.a(x), "b": [n.a(x), (x, {"deep": n.a.weight})]},
        lambda n, x: collections.OrderedDict(a=n.a(x), b=x),
        lambda n, x: (lambda y: {"a": y, "b": y, "part": y[:, 1:3]})(n.a(x)),
        lambda n, x: {"picture": x},
        lambda n, x: {"weight": n.a.weight, "made": torch.ones(3, dtype=x.dtype)},
        lambda n, x: {"a": n.a(x), "empty": []},
        lambda n, x: {"batch": x.shape[0] * torch.ones((), dtype=x.dtype), "a": n.a(x)},
        lambda n, x: {"my task": n.a(x), "1": x},
    ],
    ids=["nested", "ordered", "twice", "picture", "constants", "empty", "batch", "odd names"],
)
def test_predictions_may_be_many_things(run: Callable[[Any, Tensor], Any]) -> None:
    assert_captured(Net(run, a=conv()))


@pytest.mark.parametrize("constant", [None, 3, "text"])
def test_predictions_that_are_no_tensors_are_refused(constant: object) -> None:
    with pytest.raises(gd.InputError, match=rf"its prediction 'b' holds {constant!r}; expected tensors"):
        program_of(Net(lambda n, x: {"a": n.a(x), "b": [x, constant]}, a=conv()))


def test_named_tuples_become_tuples() -> None:
    """A collapsed network knows no classes but PyTorch's, a file knows none at all."""
    predictions = collapsed(Net(lambda n, x: {"a": Both(n.a(x), x)}, a=conv()))(UNSEEN)
    assert type(predictions["a"]) is tuple


@pytest.mark.parametrize(
    ("run", "kind"), [(lambda n, x: (x, x), "tuple"), (lambda n, x: [x], "list"), (lambda n, x: x, "Tensor")]
)
def test_other_predictions_than_a_dict_are_refused(run: Callable[[Any, Tensor], Any], kind: str) -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return run(self, x)

    with pytest.raises(gd.InputError, match=f"Plain: it returns a {kind}; expected a dict of predictions by task"):
        capture(Plain(), PICTURE)


# ---------------------------------------------------------------- what is asked of the network and the example


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda n, x: n.a(x).view(2, 4, 64), "batch"),
        (lambda n, x: n.a(x) * torch.ones(2, 1, 1, 1, dtype=x.dtype), "batch"),
        (lambda n, x: n.a(x) if x.sum() > 0 else x, "data-dependent"),
        (lambda n, x: n.a(x[:, :2]), "expected input"),
        (lambda n, x: n.no_such_thing, "no_such_thing"),
        (lambda n, x: 1 / 0, "division by zero"),
    ],
    ids=["view", "constant", "condition", "channels", "attribute", "exception"],
)
def test_what_cannot_be_captured_is_explained(run: Callable[[Any, Tensor], Any], reason: str) -> None:
    with pytest.raises(gd.InputError, match=f"Net cannot be exported with a free batch size: .*{reason}"):
        program_of(Net(run, a=conv()))


def test_modes_are_as_they_were() -> None:
    network = Net(lambda n, x: n.b(n.a(x)), a=nn.Sequential(conv(), norm()), b=conv(4, 4))
    network.train()
    network.a[1].eval()
    modes = [part.training for part in network.modules()]
    capture(network, PICTURE.float())
    assert [part.training for part in network.modules()] == modes
    with pytest.raises(gd.InputError):
        capture(network, torch.zeros(2, 5, 8, 8))
    assert [part.training for part in network.modules()] == modes


def test_the_network_is_not_changed() -> None:
    network = Net(lambda n, x: n.b(n.a(x).relu_()), a=conv(), b=nn.Sequential(norm(), nn.ReLU(inplace=True)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    capture(network, PICTURE.float())
    assert network.b[1].inplace
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_example_may_have_any_batch_size(batch: int) -> None:
    network = prepared(Net(lambda n, x: n.a(x).flatten(1).view(x.shape[0], 4, -1), a=conv()))
    program = capture(network, PICTURE[:1].repeat(batch, 1, 1, 1))
    with torch.no_grad():
        assert_equal(evaluate(program, UNSEEN), network(UNSEEN))


@pytest.mark.parametrize("shape", [(3, 8, 8), (8,), (2, 3, 8, 8, 8)])
def test_the_example_must_be_a_batch_of_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(gd.InputError, match=r"expected a tensor \(batch, channels, height, width\), got \("):
        capture(Net(lambda n, x: x), torch.zeros(shape))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(gd.InputError, match="batch"):
        capture(Net(lambda n, x: n.a(x), a=conv()), torch.zeros(0, 3, 8, 8))


def test_what_is_no_network_or_no_picture_is_refused() -> None:
    name: Any = "a name"
    with pytest.raises(gd.InputError, match=r"expected a network, a torch\.nn\.Module; got a str"):
        capture(name, PICTURE)
    example: Any = [[0.0]]
    with pytest.raises(gd.InputError, match=r"example input: expected a tensor .*, got a list"):
        capture(Net(lambda n, x: x), example)


# ---------------------------------------------------------------- modes and kinds of numbers inside the network


def without_gradients(n: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        feature = n.a(x)
    return n.b(feature)


def in_another_precision(n: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return n.b(n.a(x))


@pytest.mark.parametrize("run", [without_gradients, in_another_precision])
def test_blocks_of_another_mode_are_read(run: Callable[[Any, Tensor], Any]) -> None:
    assert_captured(Net(run, a=conv(), b=conv(4, 2)))


def test_branches_at_run_time_are_refused() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (n.a(x),))

    with pytest.raises(gd.InputError, match=r"it has graphs within its graph \(cond\), such as branches"):
        program_of(Net(run, a=conv()))


def test_numbers_read_from_tensors_are_refused() -> None:
    network = Net(lambda n, x: n.a(x) * n.p.sum().item(), a=conv(), p=weight(3))
    with pytest.raises(gd.InputError, match=r"item = aten\.item.*: it reads a number or a size out of a tensor"):
        program_of(network)


CASTS: dict[str, Callable[[Any, Tensor], Any]] = {
    "the picture": lambda n, x: n.a(x.float() / 255),
    "a mask that a layer reads": lambda n, x: n.a((x > 0).float()),
    "a softmax": lambda n, x: n.a(x).softmax(1, dtype=torch.float32),
    "positions": lambda n, x: n.a(x) * torch.arange(8).float().exp(),
    "positions that a layer reads": lambda n, x: n.a(x) * n.fc(torch.linspace(-1, 1, 8)).view(4, 1, 1),
    "a matrix": lambda n, x: n.a(x) @ torch.eye(8),
}


@pytest.mark.parametrize("name", CASTS)
def test_a_network_may_say_that_it_computes_in_float32(name: str) -> None:
    network = Net(CASTS[name], a=conv(), fc=nn.Linear(8, 4)).eval()
    thin = gd.collapse(network, example_input=PICTURE.float())
    with torch.no_grad():
        assert_equal(thin(UNSEEN.float()), network(UNSEEN.float()), 1e-5)


def test_a_picture_of_bytes_may_be_the_example() -> None:
    network = Net(lambda n, x: n.a(x.float() / 255), a=conv()).eval()
    thin = gd.collapse(network, example_input=(PICTURE * 50 + 100).clamp(0, 255).byte())
    with torch.no_grad():
        assert_equal(thin(UNSEEN.float()), network(UNSEEN.float()), 1e-5)


def test_weights_that_two_modules_own_are_captured() -> None:
    network = Net(lambda n, x: n.b(n.a(x)), a=conv(3, 3), b=conv(3, 3))
    network.b.weight = network.a.weight
    assert_captured(network)


def test_constants_made_in_the_forward_are_captured() -> None:
    mean = [0.1, 0.2, 0.3]
    network = Net(lambda n, x: n.a(x - torch.tensor(mean, dtype=x.dtype).view(3, 1, 1)), a=conv())
    network.register_buffer("unsaved", torch.ones(3, 1, 1), persistent=False)
    network.run = lambda n, x: n.a((x - torch.tensor(mean, dtype=x.dtype).view(3, 1, 1)) * n.unsaved)
    assert_captured(network)
