import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.gating.sites import Site
from tests.backbones import BasicBlock, ConvNormAct, Plain, Residual
from tests.odd_backbones import CalledTwice, InPlace, Pyramid
from tests.structures import EXAMPLE

TASKS = [gd.Task("depth"), gd.Task("normals")]


def gate(backbone: nn.Module, **options: Any) -> gd.GatedNetwork:
    return gd.gate(backbone, TASKS, example_input=EXAMPLE, **options)


def plain_copies(network: gd.GatedNetwork, backbone: nn.Module) -> dict[str, nn.Module]:
    """The backbone as it was, with each branch's weights."""
    copies = {}
    for name, branch in network.branches.named_children():
        copies[name] = copy.deepcopy(backbone)
        copies[name].load_state_dict(branch.state_dict())
    return copies


@pytest.mark.parametrize("make", [Plain, Residual, CalledTwice, InPlace])
@pytest.mark.parametrize("training", [True, False])
def test_a_gated_network_of_specific_channels_is_its_backbones(make: type[nn.Module], training: bool) -> None:
    backbone = make().train(training)
    network = gate(backbone)
    for parameter in network.weight_parameters():
        nn.init.normal_(parameter, std=0.3)
    copies = plain_copies(network, backbone)
    predictions = network(EXAMPLE)
    for task in ("depth", "normals"):
        assert torch.allclose(predictions[task], copies[task](EXAMPLE), atol=1e-6)


def test_the_formulas_by_hand() -> None:
    """One convolution, two sites: eq. 2, eq. 3 and the gated final feature, written out."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    network = gate(Two()).double()
    for parameter in network.weight_parameters():
        nn.init.normal_(parameter)
    nn.init.normal_(next(network.mixes.parameters()))
    assert [site.name for site in network.sites] == ["first", "second"]
    for site, task, choice in [
        (0, "depth", [1, 0]),
        (0, "normals", [0, 0]),
        (1, "depth", [0, 1]),
        (1, "normals", [1, 1]),
    ]:
        network.gate(network.sites[site], task).choose([bool(c) for c in choice])
    x = EXAMPLE.double()
    branches = {name: dict(branch.named_children()) for name, branch in network.branches.named_children()}
    phi = {name: branch["first"](x) for name, branch in branches.items()}
    depth = torch.stack([phi["depth"][:, 0], phi["shared"][:, 1]], 1)
    normals = phi["shared"]
    mix = network.mix(network.sites[0])
    assert mix is not None
    share = mix.share().double().view(2, 1, 2, 1, 1)
    psi = branches["shared"]["second"](share[0] * depth + share[1] * normals)
    last = {"depth": branches["depth"]["second"](depth), "normals": branches["normals"]["second"](normals)}
    predictions = network(x)
    assert torch.allclose(predictions["depth"], torch.stack([psi[:, 0], last["depth"][:, 1]], 1))
    assert torch.allclose(predictions["normals"], last["normals"])


def test_the_users_backbone_is_left_alone() -> None:
    backbone = Residual().train()
    before = copy.deepcopy(backbone.state_dict())
    network = gate(backbone)
    network(EXAMPLE)
    assert backbone.blocks.get_submodule("0.relu").inplace
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_each_branch_has_its_own_statistics_and_dropout() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.norm(self.conv(x)), 0.5, training=self.training)

    network = gate(Dropping().train())
    predictions = network(EXAMPLE)
    assert not torch.equal(predictions["depth"] == 0, predictions["normals"] == 0)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 3
    network.eval()
    assert torch.equal(network(EXAMPLE)["depth"], network(EXAMPLE)["depth"])


def test_a_shared_submodule_stays_shared_inside_a_branch() -> None:
    network = gate(CalledTwice())
    assert [site.name for site in network.sites] == ["stem_2", "relu", "relu_1"]
    assert sum(1 for name, _ in network.named_parameters() if name.endswith(".shared.weight")) == 3


def test_networks_can_be_copied() -> None:
    network = gate(Residual()).eval()
    twin = copy.deepcopy(network)
    nn.init.zeros_(twin.branches.get_submodule("depth").stem[0].weight)  # type: ignore[union-attr, index]
    assert not torch.equal(network(EXAMPLE)["depth"], twin(EXAMPLE)["depth"])


class TestSites:
    def test_resnet_sites_stand_behind_activations(self) -> None:
        sites = gate(Residual()).sites
        names = ["stem_2"] + [f"blocks_{block}_relu{call}" for block in range(3) for call in ("", "_1")]
        assert [site.name for site in sites] == names
        assert [site.channels for site in sites] == [4, 4, 4, 6, 6, 6, 6]
        assert not sites[-1].mixes

    def test_tied_sites_share_a_gate_along_the_residual_stream(self) -> None:
        network = gate(Residual(), tie="residual")
        assert [site.gate for site in network.sites] == [
            *("stem_2", "blocks_0_relu", "stem_2"),  # stem and first block: one stream of 4 channels
            *("blocks_1_relu", "blocks_1_relu_1", "blocks_2_relu", "blocks_1_relu_1"),
        ]
        assert network.gate(network.sites[0], "depth") is network.gate(network.sites[2], "depth")
        assert network.mix(network.sites[0]) is not network.mix(network.sites[2])  # β stays per site

    def test_a_stream_goes_on_behind_pooling(self) -> None:
        backbone = nn.Sequential(ConvNormAct(3, 4), nn.MaxPool2d(2), BasicBlock(4, 4))
        assert [site.gate for site in gate(backbone, tie="residual").sites] == ["_0_2", "_2_relu", "_0_2"]

    def test_a_norm_behind_the_activation_belongs_to_the_chain(self) -> None:
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
        assert [site.name for site in gate(backbone).sites] == ["_2", "_3"]

    def test_a_layer_norm_needs_every_channel(self) -> None:
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.norm, self.b = nn.Conv2d(3, 4, 3), nn.LayerNorm(6), nn.Conv2d(4, 2, 3)

            def forward(self, x: Tensor) -> Tensor:
                return self.b(torch.relu(self.norm(self.a(x))))

        assert [site.name for site in gate(Normed()).sites] == ["a", "b"]

    def test_without_an_activation_behind_it_the_sum_is_no_site(self) -> None:
        class Inverted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

            def forward(self, x: Tensor) -> Tensor:
                x = self.a(x)
                x = x + self.b(x)
                return self.c(x)

        assert [site.name for site in gate(Inverted()).sites] == ["a", "b", "c"]

    def test_every_returned_leaf_is_a_site(self) -> None:
        network = gate(Pyramid())
        assert [site.name for site in network.sites] == ["one_2", "two_2", "three_2"]
        predictions = network(EXAMPLE)["depth"]
        assert predictions["fine"].shape == (2, 4, 8, 8)
        assert predictions["coarse"][1].shape == (2, 3, 2, 2)

    def test_what_reads_no_picture_is_none(self) -> None:
        class Biased(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.conv = nn.Linear(2, 4), nn.Conv2d(3, 4, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.conv(x) + self.table(torch.ones(1, 2))[0].view(4, 1, 1)

        assert [site.name for site in gate(Biased()).sites] == ["conv", "add"]

    def test_the_user_may_name_them(self) -> None:
        network = gate(Plain(), sites=["layers_1", "layers_4"])
        assert network.sites == (
            Site("layers_1", "layers_1", 5, 1, 1, True),
            Site("layers_4", "layers_4", 4, 1, 1, True),
        )

    def test_linear_layers_have_their_channels_last(self) -> None:
        backbone = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(2), nn.Linear(1, 6), nn.GELU())
        assert [(site.channels, site.axis) for site in gate(backbone).sites] == [(4, 1), (6, 2)]


class TestStartingWeights:
    def test_branches_start_from_given_weights(self) -> None:
        network, trained = gate(Plain()), Plain()
        network.load_branch("depth", trained.state_dict())
        branch = network.branches.get_submodule("depth").state_dict()
        assert all(torch.equal(branch[name], tensor) for name, tensor in trained.state_dict().items())

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8)])
    def test_a_batch_of_the_wrong_form(self, shape: tuple[int, ...]) -> None:
        told = rf"expected a batch of pictures \(batch, 3, height, width\), got {re.escape(str(shape))}"
        with pytest.raises(gd.InputError, match=told):
            gate(Plain())(torch.ones(shape))

    def test_a_gate_by_name(self) -> None:
        network = gate(Plain())
        assert network.gate(network.sites[0].name, "depth") is network.gate(network.sites[0], "depth")
        with pytest.raises(gd.InputError, match=f"no site 'stem'; there are {network.sites[0].name}"):
            network.gate("stem", "depth")
        with pytest.raises(gd.InputError, match="expected a site or its name, got 0; `sites` has them"):
            network.gate(0, "depth")  # type: ignore[arg-type]
        with pytest.raises(gd.InputError, match="no task 'colour'; there are depth, normals"):
            network.gate(network.sites[0], "colour")

    def test_wrong_branch_or_weights(self) -> None:
        network = gate(Plain())
        with pytest.raises(gd.InputError, match="no branch 'colour'; there are depth, normals, shared"):
            network.load_branch("colour", {})
        with pytest.raises(gd.InputError, match="branch shared: these are not the weights of its backbone"):
            network.load_branch("shared", {})
        with pytest.raises(gd.InputError, match="not the weights of its backbone: Expected state_dict to be dict-like"):
            network.load_branch("shared", [])  # type: ignore[arg-type]

    def test_weights_that_are_refused_change_nothing(self) -> None:
        network = gate(Plain())
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        wrong = {name: torch.full_like(tensor, 7) for name, tensor in Plain().state_dict().items()}
        last = list(wrong)[-1]
        with pytest.raises(gd.InputError, match=f"size mismatch for {last}"):
            network.load_branch("depth", {**wrong, last: torch.zeros(1, 99)})
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"group": 0}, "group must be a whole number, at least 1, got 0"),
            ({"group": "3"}, "group must be a whole number, at least 1, got '3'"),
            ({"tie": "all"}, "tie must be None or 'residual', got 'all'"),
            ({"sites": "all"}, "sites must be 'auto', 'encoder', 'decoder' or a list of names, got 'all'"),
            ({"sites": ["layer_1"]}, "no site 'layer_1' in the backbone; did you mean 'layers_1'"),
            ({"sites": ["nowhere"]}, "no site 'nowhere' in the backbone; what 'auto' gates is "),
            ({"sites": []}, "sites: no names were given"),
            ({"sites": [3]}, r"sites must be names, as `site.name` has them, got \[3\]"),
            ({"heads": [nn.Identity()]}, "heads: expected a dict of modules by task, got a list"),
            ({"leaf_modules": "layers"}, "leaf_modules must be a list of names or classes of modules, got 'layers'"),
            ({"leaf_modules": nn.ReLU}, "leaf_modules must be a list of names or classes of modules, got <class"),
            ({"leaf_modules": [nn.ReLU()]}, r"leaf_modules must be a list of names or classes of modules, got \[ReLU"),
            ({"heads": {"colour": nn.Identity()}}, "a head was given for 'colour', which is no task"),
            ({"heads": {"depth": nn.Identity()}}, "task 'normals' has no head, so it has no output"),
            ({"heads": {"depth": nn.Identity(), "normals": None}}, "the head of 'normals' is a NoneType"),
        ],
    )
    def test_of_arguments(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(gd.InputError, match=message):
            gate(Plain(), **options)

    def test_of_tasks(self) -> None:
        with pytest.raises(gd.InputError, match="no tasks were given"):
            gd.gate(Plain(), [], example_input=EXAMPLE)
        with pytest.raises(gd.InputError, match="tasks: expected a list of tasks, got a Task"):
            gd.gate(Plain(), TASKS[0], example_input=EXAMPLE)  # type: ignore[arg-type]
        with pytest.raises(gd.InputError, match=r"tasks: expected a Task for each, got 'depth'; write Task\('depth'\)"):
            gd.gate(Plain(), ["depth"], example_input=EXAMPLE)  # type: ignore[list-item]
        with pytest.raises(gd.InputError, match="two tasks are called 'depth'"):
            gd.gate(Plain(), [TASKS[0], TASKS[0]], example_input=EXAMPLE)
        with pytest.raises(gd.InputError, match=r"task name 'train' is an attribute of torch.nn.Module"):
            gd.gate(Plain(), [gd.Task("train")], example_input=EXAMPLE)

    def test_of_ties_between_unequal_streams(self) -> None:
        class Broadcast(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 4, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.a(x) + self.b(x)

        with pytest.raises(gd.InputError, match=r"'a' \(1 channels\) and 'b' \(4\) lie on one"):
            gate(Broadcast(), tie="residual")


def test_training_moves_every_part() -> None:
    network = gate(
        nn.Sequential(ConvNormAct(3, 4), BasicBlock(4, 4)),
        heads={"depth": nn.Conv2d(4, 1, 1), "normals": nn.Identity()},
    )
    for site in network.sites:
        network.gate(site, "normals").choose([False, True, True, False])
    predictions = network(EXAMPLE)
    loss = sum(prediction.square().sum() for prediction in predictions.values())
    assert isinstance(loss, Tensor)
    loss.backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []
