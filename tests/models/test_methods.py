"""Other ways of sharing than gates: each is what its paper writes, and travels the same road as a gated network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gatedeploy as gd
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.gating.trace import trace
from gatedeploy.graph.capture import capture
from gatedeploy.graph.shares import site_shares
from gatedeploy.models.adashare import AdaShare, residual_blocks
from gatedeploy.models.cross_stitch import CrossStitch
from gatedeploy.models.moe import MOE
from gatedeploy.models.registry import METHODS, build_backbone, build_head, build_method
from gatedeploy.models.side_by_side import SideBySide

TASKS = (gd.Task("parts", "segmentation", ("a", "b")), gd.Task("depth", "depth"), gd.Task("normals", "normals"))
T = len(TASKS)
COLLAPSIBLE = [name for name in METHODS if name != MOE]  # a mixture of experts has tests of its own
OTHERS = [name for name in COLLAPSIBLE if name != "mtl"]


class Block(nn.Module):
    """A residual block as ResNet's, of one layer."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.norm(self.first(x)))) + self.shortcut(x))


class Small(nn.Module):
    """Two stages of two blocks: of 4 channels, and of 6 at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.a, self.b = Block(4, 4, 1), Block(4, 4, 1)
        self.c, self.d = Block(4, 6, 2), Block(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.d(self.c(self.b(self.a(self.stem(x)))))
        return out


class Exchanging(nn.Module):
    """Two resolutions that exchange what they make, and are both returned, as HRNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(3, 4, 2)
        self.down = nn.Conv2d(4, 6, 3, 2, 1)
        self.fine, self.coarse = Block(4, 4, 1), Block(6, 6, 1)
        self.to_coarse, self.to_fine = nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.block(x)
        fine, coarse = self.fine(first), self.coarse(F.relu(self.down(first)))
        up = F.interpolate(self.to_fine(coarse), size=fine.shape[2:])
        return F.relu(fine + up), F.relu(coarse + self.to_coarse(fine))


class Both(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, channels, 1), nn.Conv2d(6, channels, 1)

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        out: Tensor = self.fine(maps[0]).mean((2, 3)) + self.coarse(maps[1]).mean((2, 3))
        return out


def exchanging() -> tuple[nn.Module, dict[str, nn.Module]]:
    return Exchanging().double(), {task.name: Both(task.channels).double() for task in TASKS}


def small() -> nn.Module:
    torch.manual_seed(3)
    return Small().double()


def heads() -> dict[str, nn.Module]:
    torch.manual_seed(4)
    return {task.name: build_head("dense", 6, task, (8, 8), width=5).double() for task in TASKS}


EXAMPLE = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def built(name: str, /, **options: Any) -> Any:
    return build_method(name, small(), TASKS, heads(), EXAMPLE, **options)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


ONE, HEADS = count(small()), sum(count(head) for head in heads().values())


# Parameters by the formulas of the papers: C = 4 and 6 at the two stages, the last of 4·4 pixels.
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("mtl", {}, ONE),
        ("cross_stitch", {}, T * ONE + T * T * (4 + 6)),
        ("nddr", {}, T * ONE + sum(T * (T * C * C + 2 * C) for C in (4, 6))),
        # Attention of each task behind both stages, of one and of two inputs; one refinement between them.
        (
            *("mtan", {"reduction": 2}),
            ONE + T * (4 * 2 + 2 * 2 + 2 * 4 + 2 * 4) + T * (2 * 6 * 3 + 2 * 3 + 3 * 6 + 2 * 6) + 9 * 4 * 6 + 2 * 6,
        ),
        ("adashare", {}, ONE + 4 * T),
        # max(T·C ÷ 16, 32) = 32 channels between the layers that weigh 6 channels; 16 pixels.
        ("afa", {}, T * ONE + T * 6 * 32 + 2 * 32 * 6 + 49 * T + 2 * 16 * 16),
    ],
)
def test_it_has_as_many_parameters_as_the_paper_gives_it(name: str, options: dict[str, Any], expected: int) -> None:
    assert count(built(name, **options)) == expected + HEADS


@pytest.mark.parametrize("name", COLLAPSIBLE)
def test_collapsed_it_computes_the_same(name: str) -> None:
    network = built(name)
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for _ in range(2):
        network.train()(torch.randn_like(EXAMPLE))  # norms with statistics
    thin = gd.collapse(network.eval(), example_input=EXAMPLE)
    image = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for task, prediction in network(image).items():
        torch.testing.assert_close(thin(image)[task], prediction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", COLLAPSIBLE)
def test_every_parameter_learns(name: str) -> None:
    network = built(name).train()
    if isinstance(network, TaskNetwork):
        network.at(0.59)  # where AdaShare learns all its choices
    losses = [prediction.square().mean() for prediction in network(EXAMPLE).values()]
    (sum(losses) + (network.penalty() if isinstance(network, TaskNetwork) else 0)).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", COLLAPSIBLE)
def test_the_backbone_that_was_given_is_not_touched(name: str) -> None:
    backbone, before = small(), small().state_dict()
    network = build_method(name, backbone, TASKS, heads(), EXAMPLE).train()
    network(EXAMPLE)
    for key, value in backbone.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def by_stage(trunk: Any, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What a `Small` makes by the end of its first stage, and what goes on from there."""
    return trunk.b(trunk.a(trunk.stem(x))), lambda feature: trunk.d(trunk.c(feature))


def meet(network: SideBySide, met: Callable[[int, list[Tensor]], list[Tensor]]) -> dict[str, Tensor]:
    """What T copies predict that meet behind each of their stages, written out."""
    trunks = [network.branches.get_submodule(task.name) for task in TASKS]
    firsts, rests = zip(*[by_stage(trunk, EXAMPLE) for trunk in trunks], strict=True)
    seconds = [rest(feature) for rest, feature in zip(rests, met(0, list(firsts)), strict=True)]
    return {
        task.name: network.heads.get_submodule(task.name)(feature)
        for task, feature in zip(TASKS, met(1, seconds), strict=True)
    }


def same(predictions: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert predictions.keys() == expected.keys()
    for task, prediction in predictions.items():
        torch.testing.assert_close(prediction, expected[task], rtol=1e-12, atol=1e-12)


def test_cross_stitch_units_combine_channel_by_channel() -> None:
    network = built("cross_stitch", same=0.7).eval()
    units = [unit for unit in network.units.children() if isinstance(unit, CrossStitch)]
    assert [tuple(unit.weight.shape) for unit in units] == [(T, T, 4), (T, T, 6)]
    for unit in units:
        torch.testing.assert_close(unit.weight[0, 0], torch.full_like(unit.weight[0, 0], 0.7), rtol=0, atol=1e-7)
        torch.testing.assert_close(unit.weight.sum(1), torch.ones_like(unit.weight[0]))  # features keep their size
        nn.init.normal_(unit.weight)

    def met(stage: int, features: list[Tensor]) -> list[Tensor]:
        return [
            sum(
                (units[stage].weight[own, other][:, None, None] * feature for other, feature in enumerate(features)),
                torch.zeros(()),
            )
            for own in range(T)
        ]

    same(network(EXAMPLE), meet(network, met))


def test_cross_stitch_with_nothing_of_others_is_single_task_networks() -> None:
    network = built("cross_stitch", same=1.0).eval()
    for task in TASKS:
        torch.testing.assert_close(network(EXAMPLE)[task.name], heads()[task.name].eval()(small().eval()(EXAMPLE)))


def test_nddr_reduces_what_is_joined() -> None:
    network = built("nddr").eval()
    units = [list(unit.layers) for unit in network.units.children()]
    first = units[0][1][0].weight[:, :, 0, 0]  # of the second task: rows are its channels, columns all tasks'
    expected = torch.cat([share * torch.eye(4) for share in (0.05, 0.9, 0.05)], 1).double()
    torch.testing.assert_close(first, expected)

    def met(stage: int, features: list[Tensor]) -> list[Tensor]:
        joined = torch.cat(features, 1)
        return [F.relu(norm(F.conv2d(joined, layer.weight))) for layer, norm, _ in units[stage]]

    same(network(EXAMPLE), meet(network, met))


def test_afa_weighs_own_and_other_by_what_the_picture_shows() -> None:
    network = built("afa").eval()
    (unit,) = network.units.children()
    features = [torch.rand(2, 6, 4, 4, dtype=torch.float64) for _ in TASKS]

    def weighed(own: Tensor, other: Tensor, features: list[Tensor]) -> list[Tensor]:
        both = torch.stack([own, other]).softmax(0)
        means = [sum(features[:n] + features[n + 1 :], torch.zeros(())) / (T - 1) for n in range(T)]
        return [F.relu(both[0] * mine + both[1] * mean) for mine, mean in zip(features, means, strict=True)]

    channel, pixel = unit.by_channel, unit.by_pixel
    inner = F.relu(channel.reduce(torch.cat([feature.mean((2, 3)) for feature in features], 1)))
    shaped = [layer(inner)[..., None, None] for layer in (channel.of_own, channel.of_other)]
    expected = weighed(shaped[0], shaped[1], features)
    seen = F.relu(pixel.look(torch.stack([feature.mean(1) for feature in expected], 1))).flatten(1)
    shaped = [layer(seen).reshape(2, 1, 4, 4) for layer in (pixel.of_own, pixel.of_other)]
    for got, wanted in zip(unit(*features), weighed(shaped[0], shaped[1], expected), strict=True):
        torch.testing.assert_close(got, wanted)


def test_mtan_attends_to_the_end_of_each_stage() -> None:
    network = built("mtan").eval()
    trunk, task = network.backbone, "depth"
    stem = trunk.stem(EXAMPLE)
    u1 = trunk.a(stem)
    p1 = trunk.b(u1)
    u2 = trunk.c(p1)
    p2 = trunk.d(u2)
    first, second = [attention.get_submodule(task).mask for attention in network.attention.children()]
    (refine,) = network.refine.children()
    before = F.max_pool2d(refine.layers(first(u1) * p1), 2)
    attended = second(torch.cat([u2, before], 1)) * p2
    same({task: network(EXAMPLE)[task]}, {task: network.heads.get_submodule(task)(attended)})
    assert 0 < float(first(u1).min()) < float(first(u1).max()) < 1


def skip(network: AdaShare, runs: dict[str, str]) -> None:
    """Choose: by task a row of 1 and 0, one for each block."""
    for number, block in enumerate(network.units.children()):
        for task, choice in block.named_children():
            nn.init.constant_(choice.gate_logits, 1.0 if runs[task][number] == "1" else -1.0)  # type: ignore[arg-type]


def test_adashare_runs_the_blocks_that_a_task_chose() -> None:
    network = built("adashare").eval()
    runs = {"parts": "1111", "depth": "0101", "normals": "0000"}
    skip(network, runs)
    trunk = network.backbone
    expected = {}
    for task, row in runs.items():
        x = trunk.stem(EXAMPLE)
        for block, run in zip((trunk.a, trunk.b, trunk.c, trunk.d), row, strict=True):
            x = block(x) if run == "1" else block.shortcut(x)
        expected[task] = network.heads.get_submodule(task)(x)
    same(network(EXAMPLE), expected)


@pytest.mark.parametrize(
    ("runs", "blocks"),
    [
        (("1111", "1111", "1111"), {"a": 1, "b": 1, "c": 1, "d": 1, "shortcut": 1}),  # uniform MTL
        (("1100", "1111", "1111"), {"a": 1, "b": 1, "c": 1, "d": 1, "shortcut": 1}),
        (("0111", "1111", "1111"), {"a": 1, "b": 2, "c": 2, "d": 2, "shortcut": 2}),  # two ways from the first block
        (("0000", "0000", "0000"), {"a": 0, "b": 0, "c": 0, "d": 0, "shortcut": 1}),
        (("1000", "0100", "0010"), {"a": 1, "b": 1, "c": 1, "d": 0, "shortcut": 3}),
    ],
)
def test_collapsed_adashare_has_no_block_that_nobody_runs(runs: tuple[str, ...], blocks: dict[str, int]) -> None:
    network = built("adashare").eval()
    skip(network, {task.name: row for task, row in zip(TASKS, runs, strict=True)})
    thin = gd.collapse(network, example_input=EXAMPLE, target=None)
    at_8 = 9 * 4 * 4 * 64  # multiply-adds of one layer of a first-stage block, at 8·8 pixels
    macs = {"a": 2 * at_8, "b": 2 * at_8, "c": 9 * (4 * 6 + 6 * 6) * 16, "d": 2 * 9 * 6 * 6 * 16, "shortcut": 24 * 16}
    others = 9 * 3 * 4 * 64 + sum(9 * 6 * 5 * 16 + 5 * task.channels * 16 for task in TASKS)
    assert thin.report is not None
    assert thin.report.collapsed.macs == others + sum(count * macs[block] for block, count in blocks.items())


def test_adashares_choices_are_learnt_in_the_middle_of_a_training_and_from_the_last_block() -> None:
    network = built("adashare", warm_up=0.2, settle=0.6)

    def learnt(share: float) -> str:
        network.at(share)
        rows = [[choice.drawn and choice.gate_logits.requires_grad for choice in block] for block in network.choices()]
        assert all(len(set(row)) == 1 for row in rows)
        return "".join("1" if row[0] else "0" for row in rows)

    assert [learnt(share) for share in (0, 0.19, 0.2, 0.26, 0.31, 0.36, 0.4, 0.59, 0.6, 0.99)] == [
        *("0000", "0000", "0001", "0011", "0111", "1111", "1111", "1111", "0000", "0000")
    ]
    network.at(0.2)
    hot = network.choices()[0][0].temperature
    network.at(0.59)
    assert hot == 5.0
    assert 0.5 < network.choices()[0][0].temperature < 0.6
    network.train().at(0.9)
    torch.testing.assert_close(network(EXAMPLE)["depth"], network(EXAMPLE)["depth"], rtol=0, atol=0)  # no chance left


def test_once_choices_stand_nobody_runs_what_he_skips() -> None:
    """So that the statistics of a block's norm are of those tasks alone that run it, as they are when deployed."""
    network = built("adashare", warm_up=0.0, settle=0.5).train()
    skip(network, {"parts": "1111", "depth": "0000", "normals": "0000"})
    for share, runs in ((0.4, 3), (0.5, 1)):
        network.at(share)
        norm = network.backbone.d.norm
        before = int(norm.num_batches_tracked)
        network(EXAMPLE)
        assert int(norm.num_batches_tracked) - before == runs
    alike = built("adashare", warm_up=0.0, settle=0.5).train()
    skip(alike, {"parts": "1111", "depth": "0111", "normals": "0111"})
    alike.at(0.5)
    alike(EXAMPLE)
    assert int(alike.backbone.d.norm.num_batches_tracked) == 2  # two tasks come the same way
    expected = {task: prediction.detach() for task, prediction in network(EXAMPLE).items()}
    for _ in range(300):
        network(EXAMPLE)  # until the statistics are those of this batch
    for task, prediction in network.eval()(EXAMPLE).items():
        torch.testing.assert_close(prediction, expected[task], rtol=0.02, atol=0.02)  # variances: n − 1 and n
    network.train().at(0.4)
    network(EXAMPLE)
    assert int(network.backbone.d.norm.num_batches_tracked) - before > 300


def test_adashares_penalty_is_that_of_the_paper() -> None:
    network = built("adashare", sparsity=0.5, sharing=2.0)
    network.at(0.1)
    assert float(network.penalty()) == 0
    network.at(0.59)
    chances = torch.tensor([[0.5, 0.25, 0.5]] * 3 + [[0.75, 0.5, 0.5]], dtype=torch.float64)
    for block, row in zip(network.choices(), chances, strict=True):
        for choice, chance in zip(block, row, strict=True):
            nn.init.constant_(choice.gate_logits, float(chance.logit()))
    sparse = chances.log().sum() / 4
    # In each of the first three blocks two pairs differ by ¼, and two in the last; early blocks count more.
    alike = 0.5 * (1 + 0.75 + 0.5 + 0.25)
    torch.testing.assert_close(network.penalty(), 0.5 * sparse + 2 * alike)


def test_blocks_are_those_through_which_everything_goes() -> None:
    found = residual_blocks(trace(small(), EXAMPLE))
    assert len(found) == 4
    assert len(residual_blocks(trace(exchanging()[0], EXAMPLE))) == 1
    vit = build_backbone("vit_s16", size=(32, 32))
    assert len(residual_blocks(trace(vit, torch.zeros(2, 3, 32, 32)))) == 24  # attention and MLP, twelve times


def test_several_features_are_exchanged_one_by_one() -> None:
    trunk, made = exchanging()
    network = build_method("nddr", trunk, TASKS, made, EXAMPLE)
    assert isinstance(network, SideBySide)
    assert [name for name, _ in network.units.named_children()] == ["relu_1", "relu_7", "relu_8"]
    assert network(EXAMPLE)["normals"].shape == (2, 3)


@pytest.mark.parametrize(
    ("backbone", "name", "places"),
    [
        ("resnet18", "nddr", 4),
        ("resnet18", "mtan", 4),
        ("vit_s16", "cross_stitch", 4),
    ],
)
def test_papers_backbones_meet_at_the_ends_of_their_stages(backbone: str, name: str, places: int) -> None:
    sized = {"size": (32, 32)} if backbone.startswith("vit") else {}
    trunk, example = build_backbone(backbone, **sized), torch.zeros(2, 3, 32, 32)
    made = {task.name: build_head("dense", trunk.out_channels, task, (32, 32)) for task in TASKS}
    network = build_method(name, trunk, TASKS, made, example)
    units = network.attention if name == "mtan" else network.units
    assert isinstance(units, nn.Module)
    assert len(list(units.children())) == places
    assert {task: tuple(out.shape) for task, out in network.eval()(example).items()} == {
        task.name: (2, task.channels, 32, 32) for task in TASKS
    }


def test_branches_start_from_single_task_networks() -> None:
    network, trained = built("nddr"), copy.deepcopy(small())
    nn.init.constant_(trained.stem.bias, 7.0)  # type: ignore[union-attr,arg-type]
    network.load_branch("depth", trained.state_dict())
    assert float(network.branches.depth.stem.bias[0]) == 7
    assert float(network.branches.normals.stem.bias[0]) != 7
    with pytest.raises(gd.InputError, match="no branch 'shared'; there are parts, depth, normals"):
        network.load_branch("shared", trained.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("stitch", {}, r"there is no method 'stitch'; known are mtl, cross_stitch.*"),
        ("nddr", {"share": 1}, "method nddr: there is no option 'share'; known are sites, same, rate"),
        ("nddr", {"same": "much"}, "method nddr: same must be a number, got 'much'"),
        ("mtl", {"tasks": ["a"]}, "method mtl: there is no option 'tasks'; it has none"),
        ("mtan", {"sites": []}, "sites: no names were given; leave it out, or name where tasks meet"),
        ("cross_stitch", {"same": 1.5}, "same must lie between 0 and 1, got 1.5"),
        ("cross_stitch", {"rate": 0}, "rate must be above 0, got 0"),
        ("cross_stitch", {"sites": "everywhere"}, "sites must be 'stages', 'end' or a list of names, got 'everywhere'"),
        ("nddr", {"sites": ["relu9"]}, "no feature map 'relu9' in the backbone; the ends of its stages are"),
        ("mtan", {"reduction": 0}, "mtan: reduction must be an integer of at least 1"),
        ("adashare", {"warm_up": 0.7}, "expected 0 ≤ warm_up < settle ≤ 1, got 0.7 and 0.6"),
        ("adashare", {"sparsity": -1.0}, "sparsity must be a number of at least 0"),
    ],
)
def test_what_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(gd.InputError, match=message):
        built(name, **options)


def test_a_backbone_that_a_method_is_not_defined_for_is_refused_with_the_nearest() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()).double()
    with pytest.raises(gd.InputError, match=r"adashare skips residual blocks, and the backbone has none.*cross_stitch"):
        build_method("adashare", plain, TASKS, heads(), EXAMPLE)
    with pytest.raises(gd.InputError, match="mtan attends to one feature after the other, and the backbone returns"):
        build_method("mtan", exchanging()[0], TASKS, exchanging()[1], EXAMPLE)
    vit = build_backbone("vit_s16", size=(32, 32))
    made = {task.name: build_head("dense", vit.out_channels, task, (32, 32)) for task in TASKS}
    with pytest.raises(gd.InputError, match=r"NDDR is defined for feature maps .*cross_stitch, which takes any"):
        build_method("nddr", vit, TASKS, made, torch.zeros(2, 3, 32, 32))
    with pytest.raises(gd.InputError, match="afa takes features of other tasks, and there is one task alone"):
        build_method("afa", small(), TASKS[:1], {"parts": heads()["parts"]}, EXAMPLE)


def test_afa_takes_the_size_it_was_made_for() -> None:
    with pytest.raises(gd.InputError, match=r"it takes pictures \(3, 8, 8\) alone, got \(3, 16, 16\)"):
        built("afa")(torch.zeros(2, 3, 16, 16, dtype=torch.float64))


def test_adashares_choices_are_told_by_block_and_task() -> None:
    network = built("adashare").eval()
    runs = {"parts": "1111", "depth": "0101", "normals": "0000"}
    skip(network, runs)
    told = site_shares(capture(network, EXAMPLE))
    assert [site.site for site in told] == [name for name, _ in network.units.named_children()]
    assert [site.channels for site in told] == [4, 4, 6, 6]
    for number, site in enumerate(told):
        assert site.specific == {task: site.channels * int(row[number]) for task, row in runs.items()}
    assert network.decided() == ("blocks run", {"parts": 1.0, "depth": 0.5, "normals": 0.0})


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_exported_it_computes_the_same(name: str, tmp_path: Path) -> None:
    network, image = built(name).float().eval(), torch.randn(1, 3, 8, 8)
    bundle = gd.export(gd.collapse(network, example_input=EXAMPLE.float()), tmp_path / "bundle")
    with gd.open(bundle.path) as runner:
        answers = runner.infer({"image": image.numpy()})
    for task, prediction in network(image).items():
        torch.testing.assert_close(torch.from_numpy(answers[task]), prediction, rtol=1e-4, atol=1e-4)
