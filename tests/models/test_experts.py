import torch
import torch.nn.functional as F
from torch import Tensor

from gatedeploy.models.experts import AskedBlock, ExpertBlock, ExpertNorm, Router
from gatedeploy.models.resnet import BasicBlock
from tests.models.oracles import gradient_is_felt, largest_difference, with_lively_norms

EXPERTS, TOP_K, TASKS = 5, 2, 3
FIRST, SECOND, THIRD = torch.arange(TASKS)


def block(stride: int = 2, dilation: int = 1) -> ExpertBlock:
    torch.manual_seed(0)
    made = ExpertBlock(BasicBlock(6, 8, stride, dilation, dilation), EXPERTS, TOP_K, TASKS).double()
    with_lively_norms(made)
    return made.eval()


def pictures(batch: int = 7) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 6, 9, 10, dtype=torch.float64) + torch.randn(batch, 6, 1, 1, dtype=torch.float64)


def defined(block: ExpertBlock, x: Tensor, task: Tensor) -> Tensor:
    """The mixture of one picture, written from its definition: expert after expert, by the router's weight."""
    routing = block.router(x, task)
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
        together, routing = mixture(x, SECOND)
        assert len(routing.chosen.unique()) > TOP_K, "the pictures should differ in experts"
        alone = torch.cat([mixture(picture[None], SECOND)[0] for picture in x])
        expected = torch.cat([defined(mixture, picture[None], SECOND) for picture in x])
        assert largest_difference(together, expected) < 1e-12
        assert largest_difference(alone, expected) < 1e-12


def test_the_deployed_block_is_the_block() -> None:
    mixture, x = block(), pictures()
    asked = AskedBlock(mixture, 2).eval()
    assert largest_difference(asked(x), mixture(x, THIRD)[0]) < 1e-12
    assert largest_difference(asked(x[:1]), mixture(x[:1], THIRD)[0]) < 1e-12


def test_the_router_keeps_the_k_likeliest_and_their_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    router, x = Router(6, EXPERTS, TOP_K, TASKS).double(), pictures()
    routing = router(x, FIRST)
    seen = x.mean((2, 3)) + router.embedding.weight[0]
    probabilities = (seen @ router.score.weight.T + router.score.bias).softmax(1)
    torch.testing.assert_close(routing.probabilities, probabilities)
    expected = probabilities.argsort(dim=1, descending=True)[:, :TOP_K]
    assert torch.equal(routing.chosen, expected)
    kept = probabilities.gather(1, expected)
    torch.testing.assert_close(routing.weights, kept / kept.sum(1, keepdim=True))


def test_each_picture_may_be_asked_another_task() -> None:
    mixture, x = block(), pictures(3)
    together, _ = mixture(x, torch.tensor([2, 0, 2]))
    assert largest_difference(together[1:2], mixture(x[1:2], FIRST)[0]) < 1e-12
    assert largest_difference(together[::2], mixture(x[::2], THIRD)[0]) < 1e-12


def test_tasks_take_different_ways() -> None:
    torch.manual_seed(0)
    router, x = Router(6, EXPERTS, TOP_K, TASKS).double(), pictures()
    assert not torch.equal(router(x, FIRST).chosen, router(x, SECOND).chosen)


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
    out, routing = mixture(x, SECOND)
    out.square().sum().backward()
    router = mixture.router
    assert gradient_is_felt([router.score.weight, router.embedding.weight, mixture.bn1.weight, mixture.kernel2])
    chosen = set(routing.chosen[0].tolist())
    gradient1, gradient2 = mixture.kernel1.grad, mixture.kernel2.grad
    assert gradient1 is not None
    assert gradient2 is not None
    for expert in range(EXPERTS):
        assert bool(gradient1[expert].any()) == (expert in chosen)
        assert bool(gradient2[:, expert].any()) == (expert in chosen)


def test_a_single_choice_still_teaches_the_router() -> None:
    torch.manual_seed(0)
    mixture = ExpertBlock(BasicBlock(6, 8, 1, 1, 1), EXPERTS, 1, TASKS).double()
    out, routing = mixture(pictures(), FIRST)
    torch.testing.assert_close(routing.weights, routing.probabilities.max(1, keepdim=True).values)
    out.square().sum().backward()
    assert gradient_is_felt([mixture.router.score.weight])
