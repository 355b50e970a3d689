"""What could not be collapsed is refused when it is gated, in one sentence that names it."""

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd

PICTURE = torch.zeros(2, 3, 8, 8)


def layer() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 1)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class ToPython(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / float(x.max())


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class ForTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 4, 64)


class OverTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0)


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        return None


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, -x


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.nothing_of_the_kind()  # type: ignore[attr-defined]


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask


REFUSED = [
    (Branching, r"depends on what the picture shows \(.*test_trial.py:\d+, in forward\).*torch.where"),
    (ToPython, r"depends on what the picture shows \(.*test_trial.py:\d+, in forward\)"),
    (Masked, r"depends on what the picture shows \(.*test_trial.py:\d+, in forward\)"),
    (Noisy, r"draws random numbers when it predicts \(.*test_trial.py:\d+, in forward\)"),
    (Broken, r"does not take .*\(.*test_trial.py:\d+, in forward\): .*has no attribute 'nothing_of_the_kind'"),
]
OF_ITS_OUTPUT = [
    (ForTwo, r"does not take .*\(3, "),
    (OverTheBatch, r"returns a tensor of shape \(4, 8, 8\) for 2 pictures"),
    (Nothing, "returns None; a task's output must consist of tensors"),
    (Largest, "returns a tensor of int64, which has no gradient; return scores, and leave what follows them"),
]


@pytest.mark.parametrize(("last", "told"), [*REFUSED, *OF_ITS_OUTPUT])
def test_backbones(last: type[nn.Module], told: str) -> None:
    with pytest.raises(gd.InputError, match=r"the backbone Sequential .*" + told):
        gd.gate(nn.Sequential(layer(), last()), [gd.Task("depth")], example_input=PICTURE)


@pytest.mark.parametrize("leaves", [[], ["1"]])
def test_flow_that_depends_on_the_picture_is_refused_inside_a_leaf_too(leaves: list[str]) -> None:
    with pytest.raises(gd.InputError, match="depends on what the picture shows"):
        gd.gate(nn.Sequential(layer(), Branching()), [gd.Task("depth")], example_input=PICTURE, leaf_modules=leaves)


@pytest.mark.parametrize(("head", "told"), [*REFUSED, *OF_ITS_OUTPUT])
def test_heads(head: type[nn.Module], told: str) -> None:
    heads = {"depth": nn.Identity(), "normals": head()}
    with pytest.raises(gd.InputError, match=r"the head of 'normals' .*" + told):
        gd.gate(layer(), [gd.Task("depth"), gd.Task("normals")], example_input=PICTURE, heads=heads)


def test_two_predictions_of_one_name() -> None:
    tasks = [gd.Task("depth"), gd.Task("depth_0")]
    heads = {"depth": Two(), "depth_0": nn.Identity()}
    with pytest.raises(gd.InputError, match="two outputs would be called 'depth_0'; rename a task"):
        gd.gate(layer(), tasks, example_input=PICTURE, heads=heads)
    several = {"depth": Two(), "depth_0": Two()}
    assert set(gd.gate(layer(), tasks, example_input=PICTURE, heads=several)(PICTURE)) == {"depth", "depth_0"}


def test_a_prediction_that_is_called_as_the_picture() -> None:
    with pytest.raises(
        gd.InputError, match="the picture and a prediction would both be called 'image'; rename the task"
    ):
        gd.gate(layer(), [gd.Task("image")], example_input=PICTURE)


def test_heads_that_read_something_else() -> None:
    heads = {"depth": nn.Conv2d(5, 1, 1)}
    with pytest.raises(
        gd.InputError, match=r"the head of 'depth' does not take what the backbone returns, \(2, 4, 8, 8\)"
    ):
        gd.gate(layer(), [gd.Task("depth")], example_input=PICTURE, heads=heads)


@pytest.mark.parametrize(
    ("example", "told"),
    [
        (torch.ones(3, 8, 8), r"expected a tensor \(batch, channels, height, width\), got \(3, 8, 8\)"),
        ([[1.0]], r"expected a tensor \(batch, channels, height, width\), got a list"),
        (torch.ones(1, 4, 8, 8), r"does not take an input of shape \(1, 4, 8, 8\): .*to have 3 channels"),
        (PICTURE.long(), "does not take an input of shape .*: Input type"),
    ],
)  # fmt: skip
def test_examples(example: Tensor, told: str) -> None:
    with pytest.raises(gd.InputError, match=told):
        gd.gate(layer(), [gd.Task("depth")], example_input=example)


def test_nothing_is_said_beside_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    class Placed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.zeros(4, 9, 8)

    with pytest.raises(gd.InputError, match=r"does not take .*\(.*test_trial.py:\d+, in forward\)"):
        gd.gate(nn.Sequential(layer(), Placed()), [gd.Task("depth")], example_input=PICTURE)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_forms_that_have_no_copies() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = layer()
            self.last = self.conv(PICTURE)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    for backbone, told in (
        (nn.Sequential(nn.LazyConv2d(4, 1)), r"'0\.weight' has no size yet, since its layer is lazy"),
        (torch.jit.script(nn.Sequential(layer())), "is TorchScript, which cannot be gated"),
        (Keeping(), "the backbone Keeping or a head cannot be copied, and each branch is a copy: Only Tensors created"),
    ):
        with pytest.raises(gd.InputError, match=told):
            gd.gate(backbone, [gd.Task("depth")], example_input=PICTURE)


def test_a_compiled_module_is_the_module() -> None:
    network = gd.gate(torch.compile(layer()), [gd.Task("depth")], example_input=PICTURE)  # type: ignore[arg-type]
    assert [site.name for site in network.sites] == ["conv2d"]


def test_a_second_input() -> None:
    with pytest.raises(gd.InputError, match="the backbone TwoInputs needs a second input 'mask'; one is supported"):
        gd.gate(TwoInputs(), [gd.Task("depth")], example_input=PICTURE)


def test_statistics_of_the_batch() -> None:
    backbone = nn.Sequential(layer(), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(gd.InputError, match="batch norm '1' has no running statistics"):
        gd.gate(backbone, [gd.Task("depth")], example_input=PICTURE)


def test_no_module() -> None:
    with pytest.raises(gd.InputError, match=r"backbone: expected a torch\.nn\.Module, got a function"):
        gd.gate(lambda x: x, [gd.Task("depth")], example_input=PICTURE)  # type: ignore[arg-type]


def test_sizes_may_be_returned_to_a_head() -> None:
    class WithSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = layer()

        def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
            return self.conv(x).flatten(2), (x.shape[2], x.shape[3])

    class Head(nn.Module):
        def forward(self, given: tuple[Tensor, tuple[int, int]]) -> Tensor:
            return given[0].unflatten(2, given[1])

    network = gd.gate(WithSize(), [gd.Task("depth")], example_input=PICTURE, heads={"depth": Head()})
    assert network(PICTURE)["depth"].shape == (2, 4, 8, 8)


def test_nothing_is_computed_or_changed() -> None:
    backbone = nn.Sequential(layer(), nn.BatchNorm2d(4))
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    gd.gate(backbone, [gd.Task("depth")], example_input=torch.ones(2, 3, 8, 8))
    assert backbone.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
