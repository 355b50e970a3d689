import pytest
import torch
from torch import nn

import gatedeploy as gd
from gatedeploy.gating.sparsity import sparsity_penalty
from tests.backbones import Residual
from tests.structures import EXAMPLE


def network(targets: tuple[float, float] = (0.0, 0.0), **options: object) -> gd.GatedNetwork:
    backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 1))
    tasks = [gd.Task("a", sparsity_target=targets[0]), gd.Task("b", sparsity_target=targets[1])]
    made = gd.gate(backbone, tasks, example_input=EXAMPLE, **options)  # type: ignore[arg-type]
    for site in made.sites:
        nn.init.constant_(made.gate(site, "a").gate_logits, 0.0)  # σ = ½
        nn.init.constant_(made.gate(site, "b").gate_logits, 100.0)  # σ = 1
    return made


def test_hinge_by_hand() -> None:
    assert sparsity_penalty(network()).item() == pytest.approx((0.5 + 1) / 2)
    assert sparsity_penalty(network((0.2, 0.25))).item() == pytest.approx((0.3 + 0.75) / 2)
    assert sparsity_penalty(network((0.6, 0.25))).item() == pytest.approx((0 + 0.75) / 2)


def test_l1_knows_no_target() -> None:
    assert sparsity_penalty(network((0.6, 0.25)), "l1").item() == pytest.approx((0.5 + 1) / 2)


def test_scale_multiplies_the_gradient_and_not_the_value() -> None:
    literal, scaled, by_channels = network(), network(), network()
    value = sparsity_penalty(literal, scale=1)
    value.backward()
    sparsity_penalty(scaled, scale=7).backward()
    sparsity_penalty(by_channels).backward()
    for site in literal.sites:
        gradient, times_7, times_c = (net.gate(site, "a").gate_logits.grad for net in (literal, scaled, by_channels))
        assert gradient is not None
        assert times_7 is not None
        assert times_c is not None
        # Eq. 4 taken literally: σ'(0) = ¼ over T·L·C.
        assert torch.allclose(gradient, torch.full_like(gradient, 0.25 / (2 * 2 * site.channels)))
        assert torch.allclose(times_7, 7 * gradient)
        assert torch.allclose(times_c, site.channels * gradient)
    assert sparsity_penalty(scaled, scale=7).item() == pytest.approx(value.item())


def test_groups_count_by_their_channels() -> None:
    made = network(group=3)  # the second site: one group of 3, one of 1
    nn.init.constant_(made.gate(made.sites[1], "a").gate_logits[:1].detach(), -100)
    made.gate(made.sites[1], "a").gate_logits.data = torch.tensor([-100.0, 100.0])
    assert made.gate(made.sites[1], "a").openness().mean().item() == pytest.approx(0.25)


def test_a_tied_gate_counts_once_per_output() -> None:
    made = gd.gate(Residual(), [gd.Task("a")], example_input=EXAMPLE, tie="residual")
    for site in made.sites:
        nn.init.constant_(made.gate(site, "a").gate_logits, -100.0)
    nn.init.constant_(made.gate(made.sites[0], "a").gate_logits, 100.0)  # used at 2 of 7 sites
    assert sparsity_penalty(made).item() == pytest.approx(2 / 7)
    assert made.specific_share()["a"] == pytest.approx(2 / 7)


def test_unknown_form() -> None:
    with pytest.raises(gd.InputError, match="no such sparsity form 'l2'; there are hinge and l1"):
        sparsity_penalty(network(), "l2")  # type: ignore[arg-type]
