"""What holds for every way of balancing, on real networks."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError, MissingExtraError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.gating.network import GatedNetwork
from gatedeploy.gating.sparsity import sparsity_penalty
from gatedeploy.training.balance import Balance
from gatedeploy.training.balancing import make_balance
from gatedeploy.training.batches import Batch
from gatedeploy.training.device import make_fabric
from gatedeploy.training.losses import task_loss
from gatedeploy.training.parameters import head_parameters, shared_parameters
from gatedeploy.training.recipe import Train
from gatedeploy.training.stages import gated_network
from tests.training.balances import EVERY, assert_same, backward, found, section
from tests.training.made_up import TASKS, Head, Noise, make_backbone, parts, recipe

SURGERIES = ("pcgrad", "cagrad", "mgda")
OF_GATED = [name for name in EVERY if name != "mgda_ub"]
BATCHES = [Noise(8, seed).batch(range(8)) for seed in range(8)]


def gated(**gates: object) -> GatedNetwork:
    torch.manual_seed(0)
    network = gated_network(recipe(gates=gates), parts(), TASKS, {}).train()
    if not gates:
        for site in network.sites:  # so that tasks read the shared branch too
            for task in TASKS:
                network.gate(site, task.name).choose([True, False] * 4)
    return network


def shared() -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(make_backbone(), {task.name: Head(task) for task in TASKS})


def losses(network: nn.Module, batch: Batch) -> list[Tensor]:
    predictions = network(batch[0])
    return [task_loss(task, predictions[task.name], batch[1][task.name]) for task in TASKS]


def train(balance: Balance, network: nn.Module, optimiser: torch.optim.Optimizer, batches: list[Batch]) -> None:
    """One epoch."""
    for batch, other in zip(batches, [*batches[1:], *batches[:1]], strict=True):
        optimiser.zero_grad(set_to_none=True)
        if balance.needs_other_batch:
            balance.look_ahead(lambda asked: torch.stack(losses(network, asked)), batch, other, 0.01)
        balance.backward(losses(network, batch), torch.zeros(()))
        optimiser.step()
    balance.end_epoch()


@pytest.mark.parametrize("name", OF_GATED)
@pytest.mark.parametrize("gates", [{}, {"sites": "decoder", "kind": "drawn"}], ids=["channels", "decoders"])
def test_a_gated_network_takes_a_step(name: str, gates: dict[str, str]) -> None:
    network = gated(**gates)
    balance = make_balance(section(**EVERY[name]), network, TASKS, backward)
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.Adam([*network.parameters(), *balance.parameters()], 0.01)
    train(balance, network, optimiser, BATCHES[:1])
    moved = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved >= {key for key, gradient in found(network).items() if gradient is not None and gradient.any()}
    assert any("heads" in key for key in moved)
    assert any("branches.shared" in key for key in moved)


@pytest.mark.parametrize("name", SURGERIES)
def test_heads_and_gates_get_the_plain_gradient_and_what_is_shared_another(name: str) -> None:
    network = gated()

    def gradients(way: str) -> dict[str, Tensor | None]:
        network.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        balance = make_balance(section(way), network, TASKS, backward)
        balance.backward(losses(network, BATCHES[0]), 3 * sparsity_penalty(network))
        return found(network)

    plain, by = gradients("sum"), gradients(name)
    theirs = {id(parameter) for parameter in shared_parameters(network)}
    others = {key for key, parameter in network.named_parameters() if id(parameter) not in theirs}
    assert {key.split(".")[0] for key in others} == {"heads", "gates", "mixes"}
    assert_same({key: by[key] for key in others}, {key: plain[key] for key in others})
    different = [
        key
        for key, value in by.items()
        if value is not None and not torch.allclose(value, plain[key], rtol=0.01)  # type: ignore[arg-type]
    ]
    assert different
    assert all(key.startswith("branches.") for key in different)


def test_what_is_shared_is_all_but_heads_and_gates() -> None:
    network = gated(sites="decoder", kind="soft")
    names = {id(parameter): key.split(".")[0] for key, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in shared_parameters(network)} == {"branches"}
    assert {names[id(parameter)] for parameter in head_parameters(network)} == {"heads", "public_heads"}
    assert len(shared_parameters(nn.Linear(1, 1))) == 2


@pytest.mark.parametrize("name", EVERY)
def test_gates_that_stand_still_stay_without_a_gradient(name: str) -> None:
    if name == "mgda_ub":
        network: nn.Module = shared()
        network.get_submodule("backbone.0").requires_grad_(False)
    else:
        network = gated()
        for parameter in network.gate_parameters():
            parameter.requires_grad_(False)
    balance = make_balance(section(**EVERY[name]), network, TASKS, backward)
    balance.backward(losses(network, BATCHES[0]), torch.zeros(()))
    for key, parameter in network.named_parameters():
        assert parameter.requires_grad or parameter.grad is None, key


@pytest.mark.parametrize("name", EVERY)
def test_one_task_has_nothing_to_balance(name: str) -> None:
    def gradients(way: str) -> dict[str, Tensor | None]:
        network = MultiHead(make_backbone().eval(), {"depth": Head(TASKS[2])})
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.1)
        loss = task_loss(TASKS[2], network(BATCHES[0][0])["depth"], BATCHES[0][1]["depth"])
        made = make_balance(section(**EVERY[way]), network, TASKS[2:3], backward)
        assert not made.needs_other_batch
        made.backward([loss], torch.zeros(()))
        return found(network)

    assert_same(gradients(name), gradients("sum"), near=False)


def on_disk(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def epochs_of(name: str, count: int, resume_after: int | None) -> dict[str, Any]:
    """The network and the balance's state after epochs of two batches, gone on with from a file at one of them."""
    network = shared()

    def fresh() -> tuple[Balance, torch.optim.Optimizer]:
        balance = make_balance(section(**EVERY[name]), network, TASKS, backward)
        return balance, torch.optim.Adam([*network.parameters(), *balance.parameters()], 0.01)

    balance, optimiser = fresh()
    for epoch in range(count):
        if epoch == resume_after:
            saved = on_disk({"balance": balance.state(), "optimiser": optimiser.state_dict()})
            balance, optimiser = fresh()
            balance.restore(saved["balance"])
            optimiser.load_state_dict(saved["optimiser"])
        torch.manual_seed(epoch)
        train(balance, network, optimiser, BATCHES[2 * epoch : 2 * epoch + 2])
    return {"network": network.state_dict(), "balance": on_disk(balance.state())}


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield from flat(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value.tolist() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_training_goes_on_with_the_same_bits(name: str, after: int) -> None:
    whole, resumed = epochs_of(name, 4, None), epochs_of(name, 4, after)
    assert list(flat(whole)) == list(flat(resumed))


@pytest.mark.parametrize("name", ["dwa", "uncertainty", "gradnorm", "auto_lambda"])
def test_what_is_learned_of_tasks_is_in_the_state(name: str) -> None:
    assert list(flat(epochs_of(name, 2, None)["balance"])) != list(flat(epochs_of(name, 3, None)["balance"]))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric_lets_it_differentiate(name: str, precision: str) -> None:
    settings = Train.from_plain({"epochs": 1, "precision": precision, "accelerator": "cpu", "balance": EVERY[name]})
    fabric = make_fabric(settings)
    plain = shared()
    network = fabric.setup_module(plain)
    balance = make_balance(settings.balance, plain, TASKS, fabric.backward)
    optimiser = torch.optim.Adam([*plain.parameters(), *balance.parameters()], 0.01)
    train(balance, network, optimiser, BATCHES[:2])
    assert all(tensor.isfinite().all() for tensor in plain.state_dict().values())
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in found(plain).values())


def test_the_upper_bound_refuses_a_gated_network() -> None:
    with pytest.raises(
        InputError, match=r"returns to all heads, and a GatedNetwork has no such place; take upper_bound:"
    ):
        make_balance(section("mgda", upper_bound=True), gated(), TASKS, backward)


@pytest.mark.parametrize("name", ["random", "uncertainty", *SURGERIES])
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)
    sentence = rf"train\.balance {name} needs torchjd\[cagrad\], .*: pip install 'gatedeploy\[train\]'"
    with pytest.raises(MissingExtraError, match=sentence):
        make_balance(section(name), shared(), TASKS, backward)
    make_balance(section("sum"), shared(), TASKS, backward)


@pytest.mark.parametrize("name", [*SURGERIES, "gradnorm", "auto_lambda"])
def test_scaled_gradients_are_refused(name: str) -> None:
    plain = {"epochs": 1, "precision": "16-mixed", "balance": {"name": name}}
    sentence = rf"^precision: 16-mixed scales gradients, which balance {name} looks at; take bf16-mixed or 32-true$"
    with pytest.raises(InputError, match=sentence):
        Train.from_plain(plain)
    Train.from_plain({**plain, "balance": {"name": "uncertainty"}})
