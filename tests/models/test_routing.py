import pytest
import torch
from torch import Tensor

from gatedeploy.models.routing import Router, Routing, balance_loss

EXPERTS, TOP_K, TASKS = 5, 2, 3


def made() -> tuple[Router, Tensor]:
    torch.manual_seed(0)
    return Router(6, EXPERTS, TOP_K, TASKS).double(), torch.randn(9, 6, dtype=torch.float64)


def test_the_router_keeps_the_k_likeliest_and_their_weights_sum_to_one() -> None:
    router, seen = made()
    routing = router(seen, 1)
    asked = seen + router.embedding.weight[1]
    probabilities = (asked @ router.score.weight.T + router.score.bias).softmax(1)
    torch.testing.assert_close(routing.probabilities, probabilities)
    expected = probabilities.argsort(dim=1, descending=True)[:, :TOP_K]
    assert torch.equal(routing.chosen, expected)
    kept = probabilities.gather(1, expected)
    torch.testing.assert_close(routing.weights, kept / kept.sum(1, keepdim=True))
    of_all = routing.of_all()
    torch.testing.assert_close(of_all.gather(1, expected), routing.weights)
    torch.testing.assert_close(of_all.sum(1), torch.ones(9, dtype=torch.float64))
    assert ((of_all > 0).sum(1) == TOP_K).all()


def test_where_all_ask_each_has_an_equal_part() -> None:
    router, seen = made()
    together = router(seen, None)
    for task, part in enumerate(seen.chunk(TASKS)):
        torch.testing.assert_close(together.weights.chunk(TASKS)[task], router(part, task).weights)


def test_tasks_take_different_ways() -> None:
    router, seen = made()
    assert not torch.equal(router(seen, 0).chosen, router(seen, 1).chosen)


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
