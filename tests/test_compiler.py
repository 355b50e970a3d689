from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.channels import ChannelGraph
from gatedeploy.passes.prune_channels import PruneChannels
from gatedeploy.program import Program
from tests.graph.small import PICTURE, UNSEEN, Net, assert_equal, conv, gate, mix, norm, prepared


def two_tasks() -> Net:
    """Depth has channels 0 and 1 of its own, normals channel 1; both read the shared layer."""

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        shared = n.shared(x)
        depth, normals = n.gates[0](n.own[0](x), shared), n.gates[1](n.own[1](x), shared)
        after = torch.relu(n.after(n.mix(depth, normals)))
        return {"depth": n.head(depth + after), "normals": torch.sigmoid(normals)}

    own, gates = nn.ModuleList([conv(), conv()]), nn.ModuleList([gate(1, 1, 0, 0), gate(0, 1, 0, 0)])
    network = Net(run, shared=conv(), own=own, gates=gates, mix=mix([0.0] * 4, [1.0] * 4), head=conv(4, 2))
    network.after = conv(4, 4)
    return network


@cache
def gated() -> tuple[nn.Module, Program]:
    torch.manual_seed(0)
    network = prepared(two_tasks())
    return network, capture(network, PICTURE)


@pytest.mark.parametrize("tasks", [["depth"], ["normals"], ["normals", "depth"], ("depth", "normals")])
def test_tasks_are_chosen_and_come_in_the_order_asked_for(tasks: Sequence[str]) -> None:
    network, program = gated()
    thin = gd.collapse(program, tasks=tasks)
    with torch.no_grad():
        got, expected = thin(UNSEEN), network(UNSEEN)
    assert list(got) == list(tasks)
    assert_equal(got, {task: expected[task] for task in tasks})


def test_a_task_that_is_not_chosen_costs_nothing() -> None:
    _, program = gated()
    thin = gd.collapse(program, tasks=["normals"], target=None)
    # One row of its own, three of the shared layer.
    assert {name: tuple(weight.shape) for name, weight in thin.program.weights.items() if "weight" in name} == {
        "own.1.weight": (1, 3, 1, 1),
        "shared.weight": (3, 3, 1, 1),
    }


def test_an_unknown_task_is_named_with_those_that_exist() -> None:
    _, program = gated()
    with pytest.raises(
        gd.InputError, match=r"no task 'dept' in this network; it has depth, normals; did you mean 'depth'"
    ):
        gd.collapse(program, tasks=["depth", "dept"])


def test_no_task_is_none_to_keep() -> None:
    _, program = gated()
    with pytest.raises(gd.InputError, match="no task was chosen; name at least one"):
        gd.collapse(program, tasks=[])


def test_a_task_that_is_no_list_is_explained() -> None:
    _, program = gated()
    with pytest.raises(gd.InputError, match="tasks: expected a list of names, got the text 'depth'"):
        gd.collapse(program, tasks="depth")
    with pytest.raises(gd.InputError, match=r"tasks: expected names, as `task\.name` has them, got "):
        gd.collapse(program, tasks=[gd.Task("depth")])  # type: ignore[list-item]


def test_a_network_needs_an_example() -> None:
    with pytest.raises(gd.InputError, match="collapse needs an example_input to see how the network runs"):
        gd.collapse(two_tasks())


@pytest.mark.parametrize("example", [PICTURE[0], PICTURE[:, :2], PICTURE[:, :, :4]], ids=["one", "channels", "height"])
def test_the_example_of_a_program_must_fit_it(example: Tensor) -> None:
    _, program = gated()
    with pytest.raises(gd.InputError, match=r"example_input: expected \(batch, 3, 8, 8\), the picture that .*; got \("):
        gd.collapse(program, example_input=example)


def test_what_random_networks_say() -> None:
    network = prepared(Net(lambda n, x: n.a(x) + torch.rand_like(x[:, :1]), a=conv()))
    with pytest.raises(gd.InputError, match="the network draws random numbers when it is evaluated"):
        gd.collapse(network, example_input=PICTURE)


def test_what_computed_gates_say() -> None:
    select = torch.ops.gatedeploy.select
    network = prepared(Net(lambda n, x: select(n.a(x), n.b(x), n.a(x).mean((0, 2, 3)), 1, 1), a=conv(), b=conv()))
    with pytest.raises(gd.InputError, match="this gate is computed from the picture"):
        gd.collapse(network, example_input=PICTURE)


def _one_channel_too_few(graph: ChannelGraph) -> None:
    for operation in graph.operations:
        if operation.divisible and len(operation.output.ids) > 1:
            ids = operation.output.ids.copy()
            operation.keep(np.array([1, 0, *range(2, len(ids))]))
            operation.output = dataclasses.replace(operation.output, ids=ids)
            return


@pytest.fixture
def corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass exchanges two channels and says nothing."""
    run = PruneChannels.run

    def corrupted(self: PruneChannels, graph: ChannelGraph) -> None:
        run(self, graph)
        _one_channel_too_few(graph)

    monkeypatch.setattr(PruneChannels, "run", corrupted)


@pytest.mark.usefixtures("corrupted")
def test_a_wrong_result_is_not_returned() -> None:
    _, program = gated()
    with pytest.raises(gd.CheckError, match=r"the collapsed network differs in task '\w+' by .* of the output's scale"):
        gd.collapse(program)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_is_collapsed_on_the_cpu() -> None:
    network = two_tasks().eval()
    expected = gd.collapse(network, example_input=PICTURE)(PICTURE.float())
    thin = gd.collapse(network.cuda(), example_input=PICTURE.cuda())
    assert_equal(thin(PICTURE.float()), expected, 1e-4)


@pytest.mark.usefixtures("corrupted")
def test_a_wrong_result_on_unseen_pictures_is_not_returned() -> None:
    """Wrong for every picture that is not all zeros, which the example is."""
    _, program = gated()
    without_bias = dataclasses.replace(
        program, weights={name: weight * (weight.ndim > 1) for name, weight in program.weights.items()}
    )
    with pytest.raises(gd.CheckError, match="the collapsed network differs in task"):
        gd.collapse(without_bias, example_input=torch.zeros_like(PICTURE))


def test_weights_of_half_and_full_precision_are_refused() -> None:
    network = Net(lambda n, x: n.b(n.a(x).float()), a=conv().half(), b=conv(4, 2))
    message = r"weights of several precisions \(float16, float32\); give it in one, e\.g\. net\.float\(\)"
    with pytest.raises(gd.InputError, match=message):
        gd.collapse(network, example_input=PICTURE.half())


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: torch.log(torch.relu(n.a(x))),
        lambda n, x: n.a(x).masked_fill(x[:, :1] > 0, -torch.inf),
        lambda n, x: n.a(x) + n.mask,
    ],
    ids=["log of zero", "masked", "masked by a buffer"],
)
def test_predictions_may_be_infinite(run: Callable[[Any, Tensor], Tensor]) -> None:
    mask = torch.zeros(8)
    mask[3] = -torch.inf
    network = prepared(Net(run, a=conv(), mask=mask))
    thin = gd.collapse(network, example_input=PICTURE)
    with torch.no_grad():
        assert torch.allclose(thin(UNSEEN)["y"], network(UNSEEN)["y"], rtol=1e-9)


@pytest.mark.parametrize(
    ("run", "example"),
    [(lambda n, x: n.a(x.pow(0.45)), PICTURE), (lambda n, x: n.a(x / x.norm(dim=1, keepdim=True)), PICTURE * 0)],
    ids=["gamma of a picture", "a picture of zeros, divided by its norm"],
)
def test_a_network_is_judged_where_it_is_defined(run: Callable[[Any, Tensor], Tensor], example: Tensor) -> None:
    network = prepared(Net(run, a=conv()))
    thin = gd.collapse(network, example_input=example)
    assert thin.report is not None
    assert thin.report.parity.holds
    with torch.no_grad():
        assert torch.allclose(thin(UNSEEN.abs())["y"], network(UNSEEN.abs())["y"], rtol=1e-9)


def test_a_network_that_is_defined_nowhere_is_refused() -> None:
    network = prepared(Net(lambda n, x: {"fine": n.a(x), "bad": torch.sqrt(n.a(x) - 1e3)}, a=conv()))
    with pytest.raises(gd.CheckError, match=r"prediction 'bad' is not a number .NaN. for any picture of noise"):
        gd.collapse(network, example_input=PICTURE)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "name", ["own.0.weight", "own.1.bias", "gates.0.gate_logits", "mix.mix_logits", "norm.running_var"]
)
def test_a_weight_that_is_no_number_is_refused(name: str, number: float) -> None:
    network = two_tasks()
    inside = network.run
    network.norm, network.run = norm(3), lambda n, x: inside(n, n.norm(x))
    network.eval()
    with torch.no_grad():
        network.state_dict()[name].view(-1)[0] = number
    size = network.state_dict()[name].numel()
    message = rf"weight '{name}': 1 of {size} numbers are NaN or infinite, .*; look at its training"
    with pytest.raises(gd.CheckError, match=message):
        gd.collapse(network, example_input=PICTURE.float())


def test_the_gated_network_stays_as_it_is() -> None:
    network = Net(lambda n, x: n.a(x), a=nn.Sequential(conv(), norm(), nn.ReLU(inplace=True)))
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gd.collapse(network, example_input=PICTURE.float())
    assert all(part.training for part in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_collapsing_twice_gives_the_same() -> None:
    _, program = gated()
    one, two = gd.collapse(program), gd.collapse(program)
    assert list(one.program.weights) == list(two.program.weights)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(one(UNSEEN).values(), two(UNSEEN).values(), strict=True))


def test_a_plain_network_collapses_to_itself_with_its_norms_folded() -> None:
    layers = nn.Sequential(conv(), norm(), nn.ReLU(), conv(4, 2))
    thin = gd.collapse(prepared(Net(lambda n, x: n.layers(x), layers=layers)), example_input=PICTURE)
    assert [type(module).__name__ for module in thin.network.modules()][1:] == ["Module", "Conv2d", "Conv2d"]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_may_run_where_gradients_are_off(context: Callable[[], Any]) -> None:
    network, _ = gated()
    with context():
        thin = gd.collapse(network, example_input=PICTURE)
    loss = sum(prediction.sum() for prediction in thin(UNSEEN).values())
    assert isinstance(loss, Tensor)
    loss.backward()


def test_trained_further_it_is_saved_loaded_and_exported(tmp_path: Path) -> None:
    _, program = gated()
    thin = gd.collapse(program).float().train()
    optimiser = torch.optim.SGD(thin.parameters(), lr=0.1)
    before = float(F.mse_loss(thin(PICTURE.float())["depth"], torch.ones(2, 2, 8, 8)).detach())
    for _ in range(5):
        optimiser.zero_grad()
        loss = F.mse_loss(thin(PICTURE.float())["depth"], torch.ones(2, 2, 8, 8))
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < before
    gd.save(thin.eval(), tmp_path / "trained.safetensors")
    loaded = gd.load(tmp_path / "trained.safetensors")
    with torch.no_grad():
        expected = thin(UNSEEN.float())
        got = loaded(UNSEEN.float())
        assert all(torch.equal(got[task], expected[task]) for task in expected)
        exported = torch.export.export(loaded, (PICTURE.float(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert_equal(exported.module()(UNSEEN.float()), expected, 1e-6)


def test_frozen_weights_and_buffers_are_kept_apart() -> None:
    network = prepared(Net(lambda n, x: n.a(x - n.mean), a=conv(), mean=torch.rand(3, 1, 1)))
    thin = gd.collapse(network, example_input=PICTURE)
    assert {name for name, _ in thin.network.named_parameters()} == {"a.weight", "a.bias"}
    assert {name for name, _ in thin.network.named_buffers()} == {"mean"}


@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_of_two_layers_stays_one(bias: bool) -> None:
    network = Net(lambda n, x: {"a": n.a(x), "b": n.b(x.flip(1))}, a=conv(bias=bias), b=conv())
    network.b.weight = network.a.weight
    assert _params_after(network) == 3 * 4 + (8 if bias else 4)


def test_a_layer_that_is_called_twice_stays_one() -> None:
    network = Net(lambda n, x: n.a(n.a(x)), a=conv(3, 3))
    thin = gd.collapse(prepared(network), example_input=PICTURE).network
    assert [str(node.target) for node in thin.graph.nodes if node.op == "call_module"] == ["a", "a"]


def _params_after(network: nn.Module) -> int:
    report = gd.collapse(prepared(network), example_input=PICTURE).report
    assert report is not None
    return report.collapsed.params
