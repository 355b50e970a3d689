from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gatedeploy.benchmarks.runners import export_at_batch_one
from gatedeploy.compiler import collapse
from gatedeploy.errors import InputError
from gatedeploy.graph.capture import capture
from gatedeploy.models import vit
from gatedeploy.models.conv_experts import ConvExperts
from gatedeploy.models.heads import DenseHead
from gatedeploy.models.moe import MoENetwork, moe
from gatedeploy.models.registry import build_backbone, build_head
from gatedeploy.models.resnet import BasicBlock, resnet20
from gatedeploy.models.token_experts import TokenExperts
from gatedeploy.program import evaluate, flat_predictions
from gatedeploy.specs import InputSpec, Task
from tests.models.oracles import gradient_is_felt, largest_difference, macs, parameter_count, with_lively_norms

TASKS = (Task("age", "classification", ("young", "old")), Task("depth", "depth"))
SIZE = (32, 48)
RESNET: dict[str, Any] = {"name": "resnet20", "width": 0.25}
VIT: dict[str, Any] = {"name": "vit_s16", "size": SIZE}
TAPPED: dict[str, Any] = {**VIT, "taps": (1, 2, 3, 4)}
TRUNKS = pytest.mark.parametrize("trunk", [RESNET, VIT, TAPPED], ids=["resnet20", "vit_s16", "vit_s16, tapped"])


@pytest.fixture(autouse=True)
def _shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers of four blocks, of which two have experts."""
    monkeypatch.setattr(vit, "DEPTH", 4)


def mixture_of(trunk: dict[str, Any], experts: int = 5, top_k: int = 2, **more: Any) -> MoENetwork:
    torch.manual_seed(0)
    backbone = build_backbone(**trunk)
    tasks = TASKS if "taps" not in trunk else (Task("parts", "segmentation", ("a", "b")), TASKS[1])
    kinds = {"classification": "linear"} if "taps" not in trunk else {}
    heads = {
        task.name: build_head(
            kinds.get(str(task.kind), "dpt" if "taps" in trunk else "dense"), backbone.out_channels, task, SIZE
        )
        for task in tasks
    }
    made = moe(backbone, tasks, heads, torch.zeros(2, 3, *SIZE), experts, top_k, **more)
    with_lively_norms(made)
    return made


def picture(batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *SIZE, dtype=dtype)


class Anything(nn.Module):
    """A head for whatever a backbone returns."""

    def forward(self, features: Tensor | tuple[Tensor, ...]) -> Tensor:
        feature = features[0] if isinstance(features, tuple) else features
        return feature.mean((2, 3))


def same(predictions: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(predictions) == list(expected)
    for task, prediction in predictions.items():
        assert largest_difference(prediction, expected[task]) < 1e-12


@pytest.mark.parametrize("training", [True, False])
def test_one_expert_is_the_plain_network(training: bool) -> None:
    """With one task, of which the norms' statistics are."""
    torch.manual_seed(0)
    plain, head = resnet20(width=0.25), DenseHead(16, 1, SIZE)
    with_lively_norms(plain)
    mixture = moe(plain, TASKS[1:], {"depth": head}, torch.zeros(2, 3, *SIZE), experts=1, top_k=1).double()
    there, ours = plain.state_dict(), mixture.trunk.state_dict()
    for name, value in ours.items():
        if name.endswith("kernel1"):
            value.copy_(there[name.replace("kernel1", "conv1.weight")][None])
        elif name.endswith("kernel2"):
            value.copy_(there[name.replace("kernel2", "conv2.weight")][:, None])
        elif ".router." not in name:
            value.copy_(there[name].reshape(value.shape))
    plain.double().train(training)
    mixture.train(training)
    x = picture(3, torch.float64)
    assert largest_difference(mixture(x)["depth"], mixture.heads.get_submodule("depth")(plain(x))) < 1e-12
    theirs = [part for part in plain.modules() if isinstance(part, BasicBlock)]
    for block, other in zip(mixture.experts(), theirs, strict=True):
        assert isinstance(block, ConvExperts)
        torch.testing.assert_close(block.bn1.running_mean[0], other.bn1.running_mean)
        torch.testing.assert_close(block.bn1.running_var[0], other.bn1.running_var)


@TRUNKS
def test_every_way_to_ask_gives_the_same(trunk: dict[str, Any]) -> None:
    mixture, x = mixture_of(trunk).double().eval(), picture(3, torch.float64)
    expected = mixture(x)
    same(mixture.together(x), expected)
    for together in (False, True):
        request = mixture.request(together)
        same(request(x), expected)
        alone = [request(one[None]) for one in x]
        same({task: torch.cat([each[task] for each in alone]) for task in expected}, expected)


@TRUNKS
def test_it_is_a_program_for_checkpoints(trunk: dict[str, Any]) -> None:
    mixture, x = mixture_of(trunk).double().eval(), picture(3, torch.float64)
    same(flat_predictions(evaluate(capture(mixture, x[:2]), x)), flat_predictions(mixture(x)))


def test_a_pass_costs_a_plain_pass_and_the_routers() -> None:
    trunk: dict[str, Any] = {"name": "resnet20", "width": 1.0}
    mixture = mixture_of(trunk, 16, 4).eval()
    plain = build_backbone(**trunk).eval()
    convolutions, other = macs(mixture.request(together=False), picture())
    features = plain(picture())
    heads = [macs(mixture.heads.get_submodule(task.name), features) for task in TASKS]
    plain_convolutions, plain_other = macs(plain, picture())
    assert convolutions == 2 * plain_convolutions + sum(head[0] for head in heads)
    routers = sum(16 * block.router.score.in_features for block in mixture.experts())
    assert other == 2 * (plain_other + routers) + sum(head[1] for head in heads)


def test_as_one_batch_what_comes_before_the_experts_is_computed_once() -> None:
    mixture = mixture_of({"name": "resnet18"})
    passes, batch = (macs(mixture.request(together), picture()) for together in (False, True))
    assert passes[0] - batch[0] == 7 * 7 * 3 * 64 * SIZE[0] * SIZE[1] // 4


def test_blocks_have_experts_as_the_papers_have() -> None:
    assert [type(block) for block in mixture_of(RESNET).experts()] == [ConvExperts] * 9
    transformer = mixture_of(VIT).trunk
    assert isinstance(transformer, vit.ViT)
    assert [type(block) for block in transformer.blocks] == [vit.Block, TokenExperts] * 2


def test_it_owns_more_parameters_by_experts_over_top_k() -> None:
    plain, mixture = build_backbone("resnet18"), mixture_of({"name": "resnet18"}, 16, 4)
    blocks = [block for block in mixture.experts() if isinstance(block, ConvExperts)]
    kernels = sum(block.kernel1.numel() + block.kernel2.numel() for block in blocks)
    plain_blocks = [part for part in plain.modules() if isinstance(part, BasicBlock)]
    assert kernels == 4 * sum(block.conv1.weight.numel() + block.conv2.weight.numel() for block in plain_blocks)
    assert parameter_count(mixture.trunk) < 4.01 * parameter_count(plain)


@TRUNKS
def test_training_reaches_every_router_and_expert(trunk: dict[str, Any]) -> None:
    mixture = mixture_of(trunk).train()
    losses = [prediction.square().mean() for prediction in mixture(picture(6)).values()]
    torch.autograd.backward(sum(losses) + mixture.penalty())
    for block in mixture.experts():
        assert gradient_is_felt(block.router.parameters())
    assert [name for name, parameter in mixture.named_parameters() if parameter.grad is None] == []


def test_the_penalty_is_the_weighted_balance_of_the_last_routing() -> None:
    mixture = mixture_of(RESNET, balance=0.5)
    assert mixture.penalty() == 0  # before anything was routed
    mixture.train()(picture(4))
    assert 0.5 <= float(mixture.penalty().detach()) <= 0.5 * 5


def test_running_statistics_fit_every_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norms, which tasks share, must see all tasks at once: the statistics of one would fit no other."""
    mixture, x = mixture_of(RESNET, experts=2, top_k=2).train(), picture(8)
    monkeypatch.setattr("gatedeploy.models.conv_experts.MOMENTUM", 1.0)
    for part in mixture.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    trained = mixture(x)
    for task, prediction in mixture.eval()(x).items():
        assert largest_difference(prediction, trained[task]) < 0.1  # running variances are the unbiased ones


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["passes", "batch"])
@pytest.mark.parametrize("trunk", [RESNET, VIT], ids=["resnet20", "vit_s16"])
def test_onnx_runtime_gives_the_same_numbers(trunk: dict[str, Any], together: bool, tmp_path: Path) -> None:
    mixture = mixture_of(trunk).eval()
    request, file = mixture.request(together), tmp_path / "request.onnx"
    export_at_batch_one(request, InputSpec(3, *SIZE), file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert isinstance(request.network, MoENetwork)
    router, ways = request.network.experts()[0].router, set()
    router.register_forward_hook(lambda _, __, routing: ways.add(str(routing.chosen.tolist())))
    for seed in range(4):
        torch.manual_seed(seed)
        x = torch.randn(1, 3, *SIZE) + 3 * torch.randn(1, 3, 1, 1)
        answers = dict(zip(["age", "depth"], session.run(None, {"image": x.numpy()}), strict=True))
        for task, expected in request(x).items():
            assert np.abs(answers[task] - expected.detach().numpy()).max() < 1e-4 * float(expected.abs().max())
    assert len(ways) > len(TASKS), "pictures and tasks should take different ways"
    if not together and trunk is RESNET:  # the runtime finds what is common to all passes
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
        picture_readers = [node.op_type for node in nodes if "image" in node.input]
        assert len(picture_readers) == 1, picture_readers


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        ({"name": "resnet50"}, {}, "the backbone has no basic blocks and fewer than two of a vision transformer's"),
        (
            {"name": "vit_s16", "size": SIZE, "taps": (1,)},
            {},
            "fewer than two of a vision transformer's; take resnet18",
        ),
        (RESNET, {"experts": 2, "top_k": 3}, "mixture of experts: top_k 3 is more than the 2 experts there are"),
        (RESNET, {"top_k": 3}, "mixture of experts: top_k 3 does not divide the 4 hidden channels of a block"),
        (VIT, {"top_k": 5}, "mixture of experts: top_k 5 does not divide the 1536 hidden channels of a block"),
        (RESNET, {"experts": 0}, "mixture of experts: experts must be an integer of at least 1, got 0"),
    ],
)
def test_impossible_mixtures_are_explained(trunk: dict[str, Any], options: dict[str, int], message: str) -> None:
    backbone = build_backbone(**trunk)
    heads = {"depth": Anything()}
    with pytest.raises(InputError, match=message):
        moe(backbone, TASKS[1:], heads, torch.zeros(2, 3, *SIZE), **options)


def test_a_backbone_without_known_blocks_is_explained() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"basic blocks or of a vision transformer's, and a Sequential has none that"):
        moe(backbone, TASKS[1:], {"depth": nn.Conv2d(4, 1, 1)}, torch.zeros(2, 3, *SIZE))


def test_it_cannot_be_deployed_as_one_network_and_says_what_can() -> None:
    with pytest.raises(
        InputError, match=r"MoENetwork answers one task a pass, .* exports its passes, as ONNX at batch"
    ):
        collapse(mixture_of(RESNET), example_input=picture(2))
