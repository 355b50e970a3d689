import torch
import torch.nn.functional as F
from torch import Tensor

from gatedeploy.models.routing import Experts
from gatedeploy.models.token_experts import TokenExperts
from gatedeploy.models.vit import Block
from tests.models.oracles import gradient_is_felt, largest_difference, macs, parameter_count

EXPERTS, TOP_K, TASKS, WIDTH = 5, 2, 3, 8


def block() -> TokenExperts:
    torch.manual_seed(0)
    made = TokenExperts(Block(WIDTH, 2), EXPERTS, TOP_K, TASKS).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def tokens(batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 7, WIDTH, dtype=torch.float64)


def asked(block: Experts, task: int | None, x: Tensor) -> Tensor:
    block.task = task
    out: Tensor = block(x)
    return out


def defined(block: TokenExperts, x: Tensor, task: int) -> Tensor:
    """Written from its definition: token after token, expert after expert."""
    x = x + block.attn(block.norm1(x))
    out = x.clone()
    for place in [(picture, token) for picture in range(x.shape[0]) for token in range(x.shape[1])]:
        seen = block.norm2(x[place])
        routing = block.router(seen[None], task)
        for expert, weight in zip(routing.chosen[0].tolist(), routing.weights[0], strict=True):
            hidden = F.gelu(block.weight1[expert] @ seen + block.bias1[expert])
            out[place] = out[place] + weight * (block.weight2[:, expert] @ hidden + block.bias2[expert])
    return out


def test_every_way_to_compute_it_is_the_definition() -> None:
    mixture, x = block(), tokens()
    for task in range(TASKS):
        expected = defined(mixture, x, task)
        for way in (mixture.train(), mixture.eval(), mixture.deployed()):
            assert largest_difference(asked(way, task, x), expected) < 1e-12


def test_all_tasks_may_ask_at_once() -> None:
    """The first block computes its attention once, those behind it once for each task."""
    mixture, x = block(), tokens()
    expected = torch.cat([asked(mixture, task, x) for task in range(TASKS)])
    assert largest_difference(asked(mixture, None, x.repeat(TASKS, 1, 1)), expected) < 1e-12
    mixture.first = True
    assert largest_difference(asked(mixture, None, x), expected) < 1e-12


def test_an_expert_that_nobody_chose_is_left_out() -> None:
    mixture, x = block(), tokens()
    with torch.no_grad():
        mixture.router.score.bias[3] = -1e3
        expected = asked(mixture, 0, x)
        mixture.weight1[3] = torch.nan
    assert largest_difference(asked(mixture.deployed(), 0, x), expected) < 1e-12


def test_it_costs_the_plain_block_and_the_router_and_owns_experts_over_top_k_times_the_mlp() -> None:
    plain, x = Block(WIDTH, 2).eval(), tokens().float()
    mixture = TokenExperts(plain, EXPERTS, TOP_K, TASKS).deployed()
    mixture.task = 0
    count = x.shape[0] * x.shape[1]
    assert macs(mixture, x)[1] == macs(plain, x)[1] + count * EXPERTS * WIDTH
    weights = sum(layer.weight.numel() for layer in (plain.mlp.fc1, plain.mlp.fc2))
    router = parameter_count(mixture.router)
    biases = EXPERTS * (4 * WIDTH // TOP_K + WIDTH)
    rest = parameter_count(plain) - parameter_count(plain.mlp)
    assert parameter_count(mixture) == rest + router + weights * EXPERTS // TOP_K + biases


def test_gradients_reach_the_router_and_the_chosen_experts_alone() -> None:
    mixture = block().train()
    asked(mixture, 1, tokens(1)[:, :1]).square().sum().backward()
    assert gradient_is_felt([mixture.router.score.weight, mixture.router.embedding.weight, mixture.attn.qkv.weight])
    assert mixture.routing is not None
    chosen = set(mixture.routing.chosen.flatten().tolist())
    first, second = mixture.weight1.grad, mixture.weight2.grad
    assert first is not None
    assert second is not None
    for expert in range(EXPERTS):
        assert bool(first[expert].any()) == (expert in chosen)
        assert bool(second[:, expert].any()) == (expert in chosen)
