from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError
from gatedeploy.models.experts import ExpertBlock, Routing
from gatedeploy.models.moe import MoENetwork, balance_loss
from gatedeploy.models.registry import build_backbone, build_head
from gatedeploy.models.resnet import BasicBlock, ResNet, resnet20
from gatedeploy.specs import Task
from tests.models.oracles import gradient_is_felt, largest_difference, macs, parameter_count, with_lively_norms

TASKS = (Task("age", "classification", ("young", "old")), Task("depth", "depth"))
SIZE = (24, 32)


def moe(experts: int = 5, top_k: int = 2, name: str = "resnet20", **options: float) -> MoENetwork:
    torch.manual_seed(0)
    options = options or {"width": 0.25}
    channels = build_backbone(name, **options).out_channels
    heads = {
        "age": build_head("linear", channels, TASKS[0], SIZE),
        "depth": build_head("dense", channels, TASKS[1], SIZE),
    }
    return MoENetwork(name, TASKS, heads, experts, top_k, **options)


def picture(batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *SIZE, dtype=dtype)


def copy_plain(plain: ResNet, mixture: MoENetwork) -> None:
    """Make the only expert of every block the plain block."""
    there, ours = plain.state_dict(), mixture.trunk.state_dict()
    for name, value in ours.items():
        if name.endswith("kernel1"):
            value.copy_(there[name.replace("kernel1", "conv1.weight")][None])
        elif name.endswith("kernel2"):
            value.copy_(there[name.replace("kernel2", "conv2.weight")][:, None])
        elif ".router." not in name:
            value.copy_(there[name].reshape(value.shape))


@pytest.mark.parametrize("training", [True, False])
def test_one_expert_is_the_plain_network(training: bool) -> None:
    mixture = moe(experts=1, top_k=1).double()
    plain = resnet20(width=0.25).double()
    with_lively_norms(plain)
    copy_plain(plain, mixture)
    plain.train(training)
    mixture.train(training)
    x = picture(3, torch.float64)
    expected = mixture.heads[0](plain(x))
    assert largest_difference(mixture(x, "age"), expected) < 1e-12
    for ours, theirs in zip(blocks(mixture), (p for p in plain.modules() if isinstance(p, BasicBlock)), strict=True):
        torch.testing.assert_close(ours.bn1.running_mean[0], theirs.bn1.running_mean)
        torch.testing.assert_close(ours.bn1.running_var[0], theirs.bn1.running_var)


def blocks(mixture: MoENetwork) -> list[ExpertBlock]:
    return [part for part in mixture.modules() if isinstance(part, ExpertBlock)]


def test_a_batch_is_its_pictures_one_by_one() -> None:
    mixture = moe().double().eval()
    with_lively_norms(mixture)
    x = picture(6, torch.float64)
    for task, together in mixture.forward_all(x).items():
        alone = torch.cat([mixture(one[None], task) for one in x])
        assert largest_difference(together, alone) < 1e-12


def test_a_pass_costs_a_plain_pass_and_the_routers() -> None:
    for name, options in (("resnet20", {"width": 1.0}), ("resnet18", {"output_stride": 8})):
        mixture = moe(16, 4, name, **options).eval()
        plain = nn.Sequential(build_backbone(name, **options), mixture.heads[0]).eval()
        convolutions, other = macs(mixture, picture(), "age")
        plain_convolutions, plain_other = macs(plain, picture())
        assert convolutions == plain_convolutions
        assert other - plain_other == sum(16 * block.router.score.in_features for block in blocks(mixture))
        assert macs(mixture.ask("age"), picture()) == (convolutions, other)


def test_it_owns_more_parameters_by_experts_over_top_k() -> None:
    plain, mixture = build_backbone("resnet18"), moe(16, 4, "resnet18", output_stride=32)
    kernels = sum(block.kernel1.numel() + block.kernel2.numel() for block in blocks(mixture))
    plain_blocks = [part for part in plain.modules() if isinstance(part, BasicBlock)]
    assert kernels == 4 * sum(block.conv1.weight.numel() + block.conv2.weight.numel() for block in plain_blocks)
    assert parameter_count(mixture.trunk) < 4.01 * parameter_count(plain)


def test_training_reaches_router_and_experts_and_lowers_the_loss() -> None:
    mixture, x = moe(), picture(6)
    labels, depth = torch.arange(6) % 2, torch.rand(6, 1, *SIZE)
    optimiser, losses = torch.optim.Adam(mixture.parameters(), 1e-2), []
    for _ in range(6):
        predictions, balance = mixture.forward_balanced(x)
        fit = nn.functional.cross_entropy(predictions["age"], labels) + (predictions["depth"] - depth).abs().mean()
        optimiser.zero_grad()
        torch.autograd.backward(fit + 0.01 * balance)
        optimiser.step()
        losses.append(fit.item())
    for block in blocks(mixture):
        assert gradient_is_felt(
            [block.router.score.weight, block.router.embedding.weight, block.kernel1, block.kernel2]
        )
    assert losses[-1] < 0.8 * losses[0]


def test_all_tasks_at_once_are_the_tasks_one_by_one() -> None:
    mixture, x = moe().double().eval(), picture(4, torch.float64)
    with_lively_norms(mixture)
    predictions, balance = mixture.forward_balanced(x)
    assert list(predictions) == ["age", "depth"]
    for task, prediction in predictions.items():
        assert largest_difference(prediction, mixture(x, task)) < 1e-12
        assert torch.equal(prediction, mixture.forward_all(x)[task])
    assert 1 <= balance < 5


def test_running_statistics_fit_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norms, which tasks share, must see all tasks at once: the statistics of one would fit no other."""
    mixture, x = moe(experts=2, top_k=2), picture(8)
    monkeypatch.setattr("gatedeploy.models.experts.MOMENTUM", 1.0)
    for part in mixture.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    trained = mixture.forward_all(x)
    for task, prediction in mixture.eval().forward_all(x).items():
        assert largest_difference(prediction, trained[task]) < 0.1  # running variances are the unbiased ones


def routed(chosen: list[list[int]], probabilities: Tensor) -> Routing:
    return Routing(probabilities, torch.tensor(chosen), torch.ones(len(chosen), len(chosen[0])))


def test_balance_loss_is_one_when_even_and_the_number_of_experts_when_one_does_all() -> None:
    even = routed([[0, 1], [2, 3]], torch.full((2, 4), 0.25))
    assert balance_loss(even) == pytest.approx(1)
    greedy = routed([[1], [1]], torch.tensor([[0.0, 1.0, 0.0, 0.0]] * 2))
    assert balance_loss(greedy) == pytest.approx(4)
    own = routed([[0], [0], [1], [1]], torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    assert balance_loss(own) == pytest.approx(1), "two tasks may have experts of their own"


def test_balance_loss_pushes_away_from_the_crowd() -> None:
    scores = torch.zeros(2, 4, requires_grad=True)
    torch.autograd.backward(balance_loss(routed([[0], [0]], scores.softmax(1))))
    assert scores.grad is not None
    assert (scores.grad[:, 0] > 0).all()
    assert (scores.grad[:, 1:] < 0).all()


def test_asking_folds_the_norms_and_changes_nothing() -> None:
    mixture = moe().double()
    with_lively_norms(mixture)
    asked = mixture.ask("depth")
    assert mixture.training
    mixture.eval()
    for batch in (1, 3):
        x = picture(batch, torch.float64)
        assert largest_difference(asked(x), mixture(x, "depth")) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("resnet20", {"width": 0.5}), ("resnet18", {"output_stride": 8})])
def test_onnx_runtime_gives_the_same_numbers_at_batch_one(tmp_path: Path, name: str, options: dict[str, float]) -> None:
    mixture = moe(5, 2, name, **options)
    with_lively_norms(mixture)
    asked = mixture.ask("depth")
    torch.onnx.export(asked, (picture(),), tmp_path / "asked.onnx", dynamo=True, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "asked.onnx", providers=["CPUExecutionProvider"])
    ways = set()
    for seed in range(4):
        torch.manual_seed(seed)
        x = torch.randn(1, 3, *SIZE) + 3 * torch.randn(1, 3, 1, 1)
        (ours,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        expected = asked(x).detach().numpy()
        assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
        ways.add(str([routing.chosen.tolist() for routing in mixture.eval()._routed(x, torch.tensor(1))[1]]))
    assert len(ways) > 1, "the pictures should take different ways"


def test_impossible_mixtures_are_explained() -> None:
    heads = dict(zip(("age", "depth"), moe().heads, strict=True))
    with pytest.raises(
        InputError, match=r"mixture of experts: resnet50 has no basic blocks; take resnet20 or resnet18"
    ):
        MoENetwork("resnet50", TASKS, heads)
    with pytest.raises(InputError, match=r"there is no backbone 'resnet34'; known are"):
        MoENetwork("resnet34", TASKS, heads)
    with pytest.raises(InputError, match=r"the heads are age; expected one for each of age, depth"):
        MoENetwork("resnet20", TASKS, {"age": heads["age"]})
    with pytest.raises(InputError, match=r"mixture of experts: top_k 3 is more than the 2 experts there are"):
        MoENetwork("resnet20", TASKS, heads, experts=2, top_k=3)
    with pytest.raises(InputError, match=r"mixture of experts: top_k 3 does not divide the 16 channels of a block"):
        MoENetwork("resnet20", TASKS, heads, top_k=3)
    with pytest.raises(InputError, match=r"mixture of experts: experts must be an integer of at least 1, got 0"):
        MoENetwork("resnet20", TASKS, heads, experts=0)


def test_unknown_questions_are_explained() -> None:
    with pytest.raises(InputError, match=r"there is no task 'dept'; known are age, depth; did you mean 'depth'\?"):
        moe()(picture(), "dept")
    with pytest.raises(InputError, match=r"there is no task 'gender'; known are age, depth"):
        moe().ask("gender")


def test_it_cannot_be_deployed_as_one_network_and_says_what_can() -> None:
    with pytest.raises(InputError, match=r"MoENetwork answers one task a pass, .* What can be exported is a pass: "):
        collapse(moe(), example_input=picture(2))
