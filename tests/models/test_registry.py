import pytest
import torch

from gatedeploy.errors import InputError
from gatedeploy.models.dpt import DPTHead
from gatedeploy.models.heads import ASPPHead, DenseHead, HRNetHead, LinearHead
from gatedeploy.models.registry import backbone_names, build_backbone, build_head, head_names
from gatedeploy.specs import Task

CLOTHES = Task("clothes", "classification", ("none", "some", "many"))
PARTS = Task("parts", "segmentation", ("head", "arm"))
DEPTH = Task("depth", "depth")


def test_every_name_builds() -> None:
    assert backbone_names() == ("resnet20", "resnet18", "resnet50", "hrnet18", "vit_s16", "vit_b16")
    assert head_names() == ("linear", "dense", "aspp", "hrnet", "dpt")
    with torch.device("meta"):
        for name in backbone_names():
            assert build_backbone(name).out_channels
    assert isinstance(build_head("linear", 8, CLOTHES, (64, 64)), LinearHead)
    assert isinstance(build_head("dense", 8, DEPTH, (64, 64)), DenseHead)
    assert isinstance(build_head("aspp", 8, PARTS, (64, 64)), ASPPHead)
    assert isinstance(build_head("hrnet", (8, 16), PARTS, (64, 64)), HRNetHead)
    assert isinstance(build_head("dpt", (8, 8, 8, 8), PARTS, (64, 64)), DPTHead)


def test_options_and_the_tasks_channels_arrive() -> None:
    assert build_backbone("resnet20", width=0.5, in_channels=1).out_channels == 32
    assert build_backbone("resnet18", output_stride=8).stride == 8
    assert build_head("linear", 8, CLOTHES, (64, 64))(torch.zeros(2, 8, 4, 4)).shape == (2, 3)
    head = build_head("aspp", 8, Task("normals", "normals"), [32, 48], rates=[6, 12, 18], width=16)
    assert head(torch.zeros(2, 8, 4, 6)).shape == (2, 3, 32, 48)


def test_unknown_backbones_and_their_options() -> None:
    with pytest.raises(
        InputError,
        match=r"there is no backbone 'resnet2'; known are resnet20, .*vit_b16; did you mean 'resnet20'\?",
    ):
        build_backbone("resnet2")
    with pytest.raises(
        InputError,
        match=r"backbone resnet20: there is no option 'widht'; known are width, in_channels; did you mean 'width'\?",
    ):
        build_backbone("resnet20", widht=0.5)
    with pytest.raises(InputError, match=r"resnet20: width 0\.7 makes 11\.2 channels of 16"):
        build_backbone("resnet20", width=0.7)


def test_unknown_heads_and_their_options() -> None:
    with pytest.raises(
        InputError, match=r"there is no head 'asp'; known are linear, dense, aspp, hrnet, dpt; did you mean 'aspp'\?"
    ):
        build_head("asp", 8, DEPTH, (64, 64))
    with pytest.raises(
        InputError, match=r"head aspp: there is no option 'rate'; known are rates, width; did you mean 'r"
    ):
        build_head("aspp", 8, DEPTH, (64, 64), rate=(6, 12, 18))
    with pytest.raises(InputError, match=r"head linear: there is no option 'width'; it has none"):
        build_head("linear", 8, CLOTHES, (64, 64), width=3)
    with pytest.raises(InputError, match=r"head dense: there is no option 'out_channels'; known are width"):
        build_head("dense", 8, DEPTH, (64, 64), out_channels=3)


def test_heads_that_cannot_serve_the_task() -> None:
    with pytest.raises(
        InputError,
        match=r"task depth: head 'linear' gives one answer per picture and depth needs a map; take dense or aspp",
    ):
        build_head("linear", 8, DEPTH, (64, 64))
    with pytest.raises(
        InputError,
        match=r"task clothes: head 'dense' gives a map and classification needs one answer per picture; take linear",
    ):
        build_head("dense", 8, CLOTHES, (64, 64))
    with pytest.raises(InputError, match=r"task anything has no kind, so the width of its prediction is unknown"):
        build_head("dense", 8, Task("anything"), (64, 64))


def test_a_network_that_fits_into_no_memory_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"^backbone resnet20: cannot be built with {'width': 1099511627776}: .*alloc"):
        build_backbone("resnet20", width=2**40)
    with pytest.raises(InputError, match=r"^head linear: cannot be built with .*: .*alloc"):
        build_head("linear", 2**40, Task("kind", "classification", ("a", "b")), (8, 8))


@pytest.mark.parametrize(
    ("head", "channels", "message"),
    [
        ("dense", (8, 16), "head 'dense' reads 1 feature map and the backbone gives 2; take hrnet"),
        ("aspp", (8,) * 4, "head 'aspp' reads 1 feature map and the backbone gives 4; take hrnet or dpt"),
        ("hrnet", 8, "head 'hrnet' reads several feature maps and the backbone gives 1; take linear or dense or aspp"),
        ("dpt", (8, 8), "head 'dpt' reads 4 feature maps and the backbone gives 2; take hrnet"),
    ],
)
def test_a_head_for_another_number_of_maps(head: str, channels: int | tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_head(head, channels, PARTS, (64, 64))
