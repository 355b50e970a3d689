import torch
import torch.nn.functional as F
from torch import Tensor

from gatedeploy.models.conv_experts import ConvExperts, ExpertNorm
from gatedeploy.models.resnet import BasicBlock
from gatedeploy.models.routing import Experts, Routing
from tests.models.oracles import gradient_is_felt, largest_difference, with_lively_norms

EXPERTS, TOP_K, TASKS = 5, 2, 3


def block(stride: int = 2, dilation: int = 1) -> ConvExperts:
    torch.manual_seed(0)
    made = ConvExperts(BasicBlock(6, 8, stride, dilation, dilation), EXPERTS, TOP_K, TASKS).double()
    with_lively_norms(made)
    return made.eval()


def pictures(batch: int = 7) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 6, 9, 10, dtype=torch.float64) + torch.randn(batch, 6, 1, 1, dtype=torch.float64)


def asked(block: Experts, task: int | None, x: Tensor) -> Tensor:
    block.task = task
    out: Tensor = block(x)
    return out


def routed(block: Experts, task: int, x: Tensor) -> Routing:
    found: Routing = block.router(x.mean((2, 3)), task)
    return found


def defined(block: ConvExperts, x: Tensor, task: int) -> Tensor:
    """The mixture of one picture, written from its definition: expert after expert, by the router's weight."""
    routing = routed(block, task, x)
    total = torch.zeros((), dtype=x.dtype)
    for expert, weight in zip(routing.chosen[0].tolist(), routing.weights[0], strict=True):
        norm = block.bn1
        hidden = F.conv2d(x, block.kernel1[expert], None, block.stride, block.dilations[0], block.dilations[0])
        statistics = (norm.running_mean[expert], norm.running_var[expert])
        hidden = F.batch_norm(hidden, *statistics, norm.weight[expert], norm.bias[expert]).relu()
        kernel2 = block.kernel2[:, expert]
        total = total + weight * F.conv2d(hidden, kernel2, None, 1, block.dilations[1], block.dilations[1])
    assert block.downsample is not None
    return torch.relu(block.bn2(total) + block.downsample(x))


def test_a_batch_is_its_pictures_one_by_one_and_each_is_the_definition() -> None:
    for stride, dilation in ((2, 1), (1, 2)):
        mixture, x = block(stride, dilation), pictures()
        assert len(routed(mixture, 1, x).chosen.unique()) > TOP_K, "the pictures should differ in experts"
        expected = torch.cat([defined(mixture, picture[None], 1) for picture in x])
        for way in (mixture, mixture.deployed()):
            assert largest_difference(asked(way, 1, x), expected) < 1e-12
            alone = torch.cat([asked(way, 1, picture[None]) for picture in x])
            assert largest_difference(alone, expected) < 1e-12


def test_all_tasks_may_ask_at_once() -> None:
    """The first block takes each picture once, those behind it once for each task."""
    mixture, x = block(), pictures(2)
    expected = torch.cat([asked(mixture, task, x) for task in range(TASKS)])
    for way in (mixture, mixture.deployed()):
        assert largest_difference(asked(way, None, x.repeat(TASKS, 1, 1, 1)), expected) < 1e-12
        way.first = True
        assert largest_difference(asked(way, None, x), expected) < 1e-12


def test_expert_norm_in_training_is_a_batch_norm_per_expert() -> None:
    torch.manual_seed(0)
    norm = ExpertNorm(EXPERTS, 4).double()
    with_lively_norms(norm)
    x = torch.randn(6, 2 * 4, 5, 7, dtype=torch.float64)
    chosen = torch.tensor([[0, 1], [1, 0], [3, 0], [1, 3], [0, 1], [3, 1]])  # nobody came to 2 and 4
    expected, slots = torch.empty(6, 2, 4, 5, 7, dtype=torch.float64), x.reshape(6, 2, 4, 5, 7)
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    for expert in range(EXPERTS):
        came = slots[chosen == expert]
        if len(came):
            parameters = (norm.weight[expert], norm.bias[expert])
            expected[chosen == expert] = F.batch_norm(came, mean[expert], var[expert], *parameters, training=True)
    assert largest_difference(norm(x, chosen), expected.flatten(1, 2)) < 1e-12
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def test_gradients_reach_the_router_and_the_chosen_experts_alone() -> None:
    mixture, x = block().train(), pictures(1)
    asked(mixture, 1, x).square().sum().backward()
    router = mixture.router
    assert gradient_is_felt([router.score.weight, router.embedding.weight, mixture.bn1.weight, mixture.kernel2])
    assert mixture.routing is not None
    chosen = set(mixture.routing.chosen[0].tolist())
    gradient1, gradient2 = mixture.kernel1.grad, mixture.kernel2.grad
    assert gradient1 is not None
    assert gradient2 is not None
    for expert in range(EXPERTS):
        assert bool(gradient1[expert].any()) == (expert in chosen)
        assert bool(gradient2[:, expert].any()) == (expert in chosen)


def test_a_single_choice_still_teaches_the_router() -> None:
    torch.manual_seed(0)
    mixture = ConvExperts(BasicBlock(6, 8, 1, 1, 1), EXPERTS, 1, TASKS).double()
    asked(mixture, 0, pictures()).square().sum().backward()
    routing = mixture.routing
    assert routing is not None
    torch.testing.assert_close(routing.weights, routing.probabilities.max(1, keepdim=True).values)
    assert gradient_is_felt([mixture.router.score.weight])
