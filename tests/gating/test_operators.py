import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.gating.operators import blend, mix, select


def test_select_follows_equation_2() -> None:
    specific, shared = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    logits = torch.tensor([0.5, -0.5, 0.0])
    # 1 = task-specific where σ(α) > ½; the threshold is strict, so α = 0 is shared.
    assert select(specific, shared, logits, 1, 1).tolist() == [[1.0, 20.0, 30.0]]


def test_the_threshold_does_not_depend_on_precision() -> None:
    # In float32 σ(1e-9) rounds to exactly ½, in float64 it does not.
    logits = torch.tensor([1e-9])
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert select(one, zero, logits, 1, 1).item() == 1
    assert select(one.double(), zero.double(), logits.double(), 1, 1).item() == 1


def test_what_is_not_chosen_cannot_spoil_what_is() -> None:
    broken = torch.tensor([[float("nan"), float("inf")]])
    chosen = select(torch.ones(1, 2), broken, torch.ones(2), 1, 1)
    assert chosen.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("axis", [1, -1])
def test_groups_share_a_gate_and_the_last_may_be_smaller(axis: int) -> None:
    gate = gd.ChannelGate(5, group=2, axis=axis)
    gate.choose([True, False, True])
    chosen = gate(torch.ones(2, 5), torch.zeros(2, 5))
    assert chosen.tolist() == [[1, 1, 0, 0, 1]] * 2
    assert gate.chosen().tolist() == [True, True, False, False, True]


def test_straight_through_gradient() -> None:
    """dL/dα is σ'(α) times what it would be if G were a number: the sum of dL/dφ' · (φ − ψ) over the group."""
    generator = torch.Generator().manual_seed(0)
    specific, shared, grad = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    specific.requires_grad_()
    shared.requires_grad_()
    logits = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
    select(specific, shared, logits, 2, 1).backward(grad)
    by_channel = (grad * (specific - shared)).sum((0, 2, 3)).detach()
    slope = (logits.sigmoid() * (1 - logits.sigmoid())).detach()
    assert logits.grad is not None
    assert torch.allclose(logits.grad, slope * torch.stack([by_channel[:2].sum(), by_channel[2]]))
    assert specific.grad is not None
    assert shared.grad is not None
    assert torch.equal(specific.grad[:, :2], grad[:, :2])
    assert torch.equal(shared.grad[:, 2], grad[:, 2])
    assert not specific.grad[:, 2].any()
    assert not shared.grad[:, :2].any()


def test_mix_follows_equation_3() -> None:
    logits = torch.log(torch.tensor([[1.0, 3.0], [1.0, 1.0]]))
    mixed = mix([torch.tensor([[4.0, 4.0]]), torch.tensor([[8.0, 8.0]])], logits, 1)
    assert torch.allclose(mixed, torch.tensor([[6.0, 5.0]]))  # shares ½ ½ and ¾ ¼


@pytest.mark.parametrize("axis", [1, -1])
def test_gradients_of_the_mix(axis: int) -> None:
    shape = (2, 3, 4, 4) if axis == 1 else (2, 4, 4, 3)
    features = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def plain() -> Tensor:
        shares = logits.softmax(0).view(2, -1, 1, 1) if axis == 1 else logits.softmax(0)
        return features[0] * shares[0] + features[1] * shares[1]

    for ours, theirs in zip(
        torch.autograd.grad(mix(features, logits, axis).square().sum(), [*features, logits]),
        torch.autograd.grad(plain().square().sum(), [*features, logits]),
        strict=True,
    ):
        assert torch.allclose(ours, theirs)


def test_blend_follows_equation_1_of_safe_mtl() -> None:
    specific, shared = torch.tensor([[4.0, 4.0]]), torch.tensor([[8.0, -8.0]])
    assert blend(specific, shared, torch.tensor([0.25]), 1).tolist() == [[7.0, -5.0]]
    assert blend(specific, shared, torch.tensor([1.0, 0.0]), 1).tolist() == [[4.0, -8.0]]
    assert blend(specific.T, shared.T, torch.tensor([0.5, 0.5]), 0).tolist() == [[6.0], [-2.0]]


@pytest.mark.parametrize("weights", [1, 3])
@pytest.mark.parametrize("axis", [1, -1])
def test_gradients_of_the_blend(axis: int, weights: int) -> None:
    shape = (2, 3, 4, 4) if axis == 1 else (2, 4, 4, 3)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    weight = torch.rand(weights, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda own, shared, w: blend(own, shared, w, axis), (*inputs, weight))


def test_operators_keep_pytorchs_rules_for_custom_operators() -> None:
    specific, shared = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    torch.library.opcheck(torch.ops.gatedeploy.select.default, (specific, shared, torch.randn(2), 2, 1))
    torch.library.opcheck(torch.ops.gatedeploy.blend.default, (specific, shared, torch.rand(1), 1))
    torch.library.opcheck(torch.ops.gatedeploy.mix.default, ([specific, shared], torch.randn(2, 3), 1))


def test_gates_start_a_little_above_the_threshold() -> None:
    """All channels begin task-specific, and so near the threshold that a few steps of the penalty can close them."""
    assert gd.ChannelGate(5, group=2).gate_logits.tolist() == pytest.approx([0.1] * 3)
    assert gd.TensorGate().gate_logits.tolist() == pytest.approx([0.1])


def test_gates_that_are_set_by_hand_stand_as_near_on_either_side() -> None:
    gate = gd.ChannelGate(3)
    gate.choose([True, False, True])
    assert gate.gate_logits.tolist() == pytest.approx([0.1, -0.1, 0.1])


def test_a_tensor_gate_takes_or_leaves_the_whole() -> None:
    gate = gd.TensorGate()
    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    assert gate(ones, zeros).all()
    nn.init.constant_(gate.gate_logits, -1)
    assert not gate(ones, zeros).any()


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 3, 4, 4)], ids=["features", "tokens", "maps"])
def test_a_tensor_gate_learns_from_all_entries(shape: tuple[int, ...]) -> None:
    gate = gd.TensorGate().double()
    specific, shared = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    gate(specific, shared).square().sum().backward()
    openness = gate.gate_logits.detach().sigmoid()
    expected = openness * (1 - openness) * (2 * specific * (specific - shared)).sum()
    assert gate.gate_logits.grad is not None
    assert torch.allclose(gate.gate_logits.grad, expected)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(gd.InputError, match="at least 1 channel and groups of at least 1, got 0 and 1"):
        gd.ChannelGate(0)
    with pytest.raises(gd.InputError, match="expected 3 choices, one per group, got shape"):
        gd.ChannelGate(5, group=2).choose([True])
    with pytest.raises(gd.InputError, match="expected a truth value for each group, got 'abc'"):
        gd.ChannelGate(5, group=2).choose("abc")  # type: ignore[arg-type]
    with pytest.raises(gd.InputError, match=r"choices that are true or false, 1 or 0; got \[0\.0, 1\.0, 0\.5"):
        gd.ChannelGate(5, group=2).choose(torch.tensor([0.0, 1.0, 0.5]))
    with pytest.raises(gd.InputError, match="over 2 tasks, got 1 features"):
        gd.Mix(2, 3)(torch.ones(1, 3))
    with pytest.raises(gd.InputError, match="at least 1 task and 1 channel"):
        gd.Mix(0, 3)
    with pytest.raises(gd.InputError, match="temperature must be a number above 0, got 0"):
        gd.GumbelGate(0)


ONES, ZEROS = torch.ones(2, 3), torch.zeros(2, 3)


def test_a_soft_gate_starts_with_half_of_each_and_is_kept_between_them() -> None:
    gate = gd.SoftGate()
    assert gate(ONES, ZEROS).tolist() == (0.5 * ONES).tolist()
    for moved, kept in ((1.7, 1.0), (-0.2, 0.0), (0.3, 0.3)):
        nn.init.constant_(gate.weight, moved)
        gate.project()
        assert gate.weight.item() == pytest.approx(kept)
        assert gate.public == pytest.approx(1 - kept), "the paper counts the other way"
    nn.init.ones_(gate.weight)
    assert torch.equal(gate(torch.full((1, 2), 0.1), torch.full((1, 2), 0.7)), torch.full((1, 2), 0.1)), "exactly"


def test_a_gumbel_gate_takes_the_likelier_one_in_evaluation_and_its_own_at_one_half() -> None:
    gate = gd.GumbelGate().eval()
    assert gate.public == 0.5
    assert gate(ONES, ZEROS).all()
    for logit, own in ((1e-3, True), (-1e-3, False), (-1e-30, False)):
        nn.init.constant_(gate.gate_logits, logit)
        assert bool(gate(ONES, ZEROS).all()) == own
        assert bool(gate(ONES, ZEROS).any()) == own
    nn.init.zeros_(gate.gate_logits)
    gate.project()
    assert gate.public == 0.5
    assert gate(ONES, ZEROS).all()


@pytest.mark.parametrize("probability", [0.5, 0.8, 0.05])
def test_a_gumbel_gate_draws_as_often_as_its_probability_says(probability: float) -> None:
    torch.manual_seed(0)
    gate = gd.GumbelGate(temperature=0.3)
    nn.init.constant_(gate.gate_logits, torch.logit(torch.tensor(probability)).item())
    assert gate.public == pytest.approx(1 - probability, abs=1e-6)
    draws = [gate(torch.ones(1, 1), torch.zeros(1, 1)).item() for _ in range(2000)]
    assert set(draws) == {0.0, 1.0}, "whole features, never a blend"
    assert sum(draws) / len(draws) == pytest.approx(probability, abs=4 * (0.25 / 2000) ** 0.5)


def test_a_gumbel_gate_learns_by_the_softmax() -> None:
    """dL/dα is (φ − ψ) · σ'((α + b₁ − b₀) / τ) / τ, of the same draw (Safe MTL eq. 4)."""
    gate = gd.GumbelGate(temperature=0.5)
    nn.init.constant_(gate.gate_logits, 0.4)
    torch.manual_seed(3)
    uniform = torch.rand(1)
    torch.manual_seed(3)
    gate(5 * torch.ones(1, 1), 2 * torch.ones(1, 1)).sum().backward()
    soft = ((0.4 + (uniform / (1 - uniform)).log()) / 0.5).sigmoid()
    assert gate.gate_logits.grad is not None
    assert gate.gate_logits.grad.item() == pytest.approx((3 * soft * (1 - soft) / 0.5).item(), rel=1e-4)


def test_a_draw_that_is_nearly_certain_is_a_number() -> None:
    gate = gd.GumbelGate(temperature=1e-3)
    for logit in (-80.0, 80.0):
        nn.init.constant_(gate.gate_logits, logit)
        gate(ONES, ZEROS).sum().backward()
        assert gate.gate_logits.grad is not None
        assert gate.gate_logits.grad.isfinite().all()
