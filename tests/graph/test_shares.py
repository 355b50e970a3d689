from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.graph.capture import capture
from gatedeploy.graph.shares import SiteShare, site_shares
from tests.graph.small import Net, conv, gate, mix, program_of

EXAMPLE = torch.zeros(2, 3, 8, 8)


def backbone() -> nn.Module:
    return nn.Sequential(conv(), nn.ReLU(), conv(4, 4), nn.ReLU())


def shares_of(network: nn.Module) -> list[SiteShare]:
    return site_shares(capture(network, EXAMPLE))


def test_a_gated_backbone_tells_sites_tasks_and_shares() -> None:
    network = gd.gate(backbone(), [gd.Task("depth"), gd.Task("normals")], example_input=EXAMPLE)
    first, last = network.sites
    network.gate(first, "depth").choose([True, False, False, True])
    network.gate(first, "normals").choose([False] * 4)
    network.gate(last, "normals").choose([False, True, False, False])
    mixed = network.mix(first)
    assert mixed is not None
    mixed.mix_logits.data[0] = torch.log(torch.tensor([1.0, 1.0, 3.0, 3.0]))
    one, two = shares_of(network)
    assert (one.site, one.channels, one.specific) == (first.name, 4, {"depth": 2, "normals": 0})
    assert one.mix == pytest.approx({"depth": 0.625, "normals": 0.375})
    assert (two.site, two.channels, two.specific, two.mix) == (last.name, 4, {"depth": 4, "normals": 1}, {})


def test_groups_count_their_channels() -> None:
    network = gd.gate(backbone(), [gd.Task("depth")], example_input=EXAMPLE, group=3)
    network.gate(network.sites[0], "depth").choose([True, False])
    network.gate(network.sites[1], "depth").choose([False, True])
    assert [share.specific["depth"] for share in shares_of(network)] == [3, 1]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv(), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        stem = torch.relu(self.stem(x))
        one = torch.relu(self.one(stem) + stem)
        return [torch.relu(self.two(one) + one), one]


def test_tied_sites_are_told_one_by_one() -> None:
    network = gd.gate(Residual(), [gd.Task("a"), gd.Task("b")], example_input=EXAMPLE, tie="residual")
    network.gate(network.sites[0], "a").choose([True, False, False, False])
    shares = shares_of(network)
    first, second, _ = network.sites
    assert [share.site for share in shares] == [first.name, second.name, f"{first.name}#3"]
    assert {share.specific["a"] for share in shares} == {1}
    assert {share.specific["b"] for share in shares} == {4}


def test_tied_sites_without_a_mix_are_told_one_by_one() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one = conv(), conv(4, 4)

        def forward(self, x: Tensor) -> list[Tensor]:
            stem = self.stem(x)
            return [torch.relu(stem + 1), torch.relu(self.one(x.repeat(1, 2, 1, 1)[:, :4]) + stem)]

    network = gd.gate(Two(), [gd.Task("a")], example_input=EXAMPLE, tie="residual")
    assert [share.site for share in shares_of(network)] == ["stem", "relu", "stem#2"]


def test_gates_set_by_hand_are_told_by_the_names_of_their_modules() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        shared = n.shared(x)
        depth, normals = n.depth(n.a(x), shared), n.normals(n.b(x), shared)
        return n.next(n.meeting(depth, normals))

    parts: dict[str, nn.Module] = {"shared": conv(), "a": conv(), "b": conv(), "next": conv(4, 2)}
    parts |= {"depth": gate(1, 0, 0, 0), "normals": gate(0, 1, group=2), "meeting": mix([0.0] * 4, [0.0] * 4)}
    assert site_shares(program_of(Net(run, **parts))) == [
        SiteShare("meeting", 4, {"depth": 1, "normals": 2}, {"depth": 0.5, "normals": 0.5})
    ]


def test_gates_of_whole_tensors_and_without_a_mix() -> None:
    network = Net(lambda n, x: n.choice(n.a(x), n.b(x)), a=conv(), b=conv(), choice=gd.TensorGate())
    (share,) = site_shares(program_of(network))
    assert (share.channels, share.specific, share.mix) == (4, {"choice": 4}, {})


def test_a_whole_tensor_of_tokens_has_its_channels_last() -> None:
    network = Net(lambda n, x: n.choice(n.a(x.flatten(2).mT), n.b(x.flatten(2).mT)), choice=gd.TensorGate())
    (share,) = site_shares(program_of(network.having(a=nn.Linear(3, 5), b=nn.Linear(3, 5))))
    assert (share.channels, share.specific) == (5, {"choice": 5})


def test_gates_that_are_computed_are_left_out() -> None:
    select = torch.ops.gatedeploy.select
    network = Net(lambda n, x: select(x, x * 2, x.mean((0, 2, 3)), 1, 1) + n.gate(x, x * 2), gate=gate(1, 0, 0))
    assert [share.specific for share in site_shares(program_of(network))] == [{"gate": 1}]


def test_a_plain_network_has_no_sites() -> None:
    assert site_shares(program_of(Net(lambda n, x: n.a(x), a=conv()))) == []


@pytest.mark.parametrize(("kind", "own"), [("soft", 0.25), ("drawn", 1.0)])
@pytest.mark.parametrize("sites", ["encoder", "decoder"])
def test_gates_behind_whole_branches_tell_the_papers_alpha(sites: str, kind: str, own: float) -> None:
    network = gd.gate(
        nn.Conv2d(3, 4, 1),
        [gd.Task("a"), gd.Task("b")],
        example_input=torch.zeros(2, 3, 8, 8),
        heads={"a": nn.Conv2d(4, 3, 1), "b": nn.Conv2d(4, 1, 1)},
        sites=sites,
        gates=kind,
    )
    nn.init.constant_(next(network.whole_gates()["a"].parameters()), own)
    (site,) = site_shares(program_of(network))
    assert (site.site, site.channels, site.mix) == (sites, 1, {})
    alpha = 0.75 if kind == "soft" else 1 - torch.tensor(1.0).sigmoid().item()
    assert site.public == pytest.approx({"a": alpha, "b": 0.5}, abs=1e-6)
    assert site.specific == {"a": own, "b": 0.5 if kind == "soft" else 1}
