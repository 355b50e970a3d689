from collections.abc import Callable

import pytest
import torch
from torch import nn

from gatedeploy.errors import InputError
from gatedeploy.models.resnet import ResNet, resnet18, resnet20, resnet50
from tests.models.oracles import largest_difference, parameter_count, with_lively_norms

TRUNKS: dict[str, Callable[[], ResNet]] = {
    "resnet20": lambda: resnet20(0.25),
    "resnet18": lambda: resnet18(),
    "resnet18 at stride 8": lambda: resnet18(8),
    "resnet50 at stride 16": lambda: resnet50(16),
}
trunks = pytest.mark.parametrize("name", TRUNKS)


def basic(in_channels: int, channels: int) -> int:
    """Parameters of a basic block, by hand: two convolutions, two norms, and a projection with norm where it widens."""
    projection = in_channels * channels + 2 * channels if in_channels != channels else 0
    return 9 * in_channels * channels + 9 * channels * channels + 4 * channels + projection


@pytest.mark.parametrize(("width", "base"), [(1.0, 16), (0.5, 8), (0.25, 4), (0.0625, 1), (1.5, 24)])
def test_resnet20_has_the_parameters_of_the_paper(width: float, base: int) -> None:
    stem = 3 * base * 9 + 2 * base
    stages = [3 * basic(base, base)]
    for channels in (2 * base, 4 * base):
        stages.append(basic(channels // 2, channels) + 2 * basic(channels, channels))
    assert parameter_count(resnet20(width)) == stem + sum(stages)


def test_parameters_of_whole_networks() -> None:
    assert parameter_count(resnet20()) == 271_824  # 272,474 with the 10-class classifier, of which 650 are its own
    assert parameter_count(resnet18()) == 11_176_512  # torchvision's 11,689,512 less the 513,000 of fc
    assert parameter_count(resnet50()) == 23_508_032  # torchvision's 25,557,032 less the 2,049,000 of fc
    assert parameter_count(resnet50(8)) == parameter_count(resnet50())


def test_names_are_torchvisions() -> None:
    names = set(resnet50().state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv3.weight", "layer1.0.downsample.1.bias"} <= names
    assert {"layer3.5.bn3.num_batches_tracked", "layer4.0.downsample.0.weight"} <= names
    assert not [name for name in names if name.startswith("fc")]
    assert "layer1.0.downsample.0.weight" not in resnet18().state_dict()
    assert "layer2.0.downsample.0.weight" in resnet20().state_dict()


@pytest.mark.parametrize(
    ("trunk", "stride", "channels"), [(resnet20, 4, 64), (resnet18, 32, 512), (resnet50, 32, 2048)]
)
def test_the_map_is_as_large_as_the_stride_says(trunk: Callable[..., ResNet], stride: int, channels: int) -> None:
    net = trunk().eval()
    assert (net.stride, net.out_channels) == (stride, channels)
    assert net(torch.zeros(2, 3, 64, 96)).shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(output_stride: int) -> None:
    for trunk in (resnet18, resnet50):
        net = trunk(output_stride=output_stride).to("meta")
        assert net.stride == output_stride
        assert net(torch.zeros(2, 3, 480, 640, device="meta")).shape[2:] == (480 // output_stride, 640 // output_stride)


@pytest.mark.parametrize("trunk", [resnet18, resnet50])
@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_the_dilated_trunk_sampled_sparsely_is_the_undilated_one(
    trunk: Callable[..., ResNet], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    plain = trunk(32).double().eval()
    with_lively_norms(plain)
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(x)
        for output_stride in (8, 16):
            dilated = trunk(output_stride).double().eval()
            dilated.load_state_dict(plain.state_dict())
            step = 32 // output_stride
            assert largest_difference(dilated(x)[..., ::step, ::step], expected) < 1e-12


def test_other_pictures_than_rgb() -> None:
    assert resnet20(in_channels=1)(torch.zeros(2, 1, 32, 32)).shape == (2, 64, 8, 8)


@trunks
@pytest.mark.parametrize("training", [True, False])
def test_traces_with_fx_and_every_activation_has_a_name(name: str, training: bool) -> None:
    torch.manual_seed(0)
    net = TRUNKS[name]().train(training)
    traced = torch.fx.symbolic_trace(net)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(traced(x), net(x))
    calls = [node.target for node in traced.graph.nodes if isinstance(net_part(net, node), nn.ReLU)]
    assert len(calls) == len(set(calls)) == sum(isinstance(part, nn.ReLU) for part in net.modules())


def net_part(net: nn.Module, node: torch.fx.Node) -> nn.Module | None:
    return net.get_submodule(str(node.target)) if node.op == "call_module" else None


@trunks
@pytest.mark.parametrize("training", [True, False])
def test_exports_with_a_dynamic_batch(name: str, training: bool) -> None:
    torch.manual_seed(0)
    net = TRUNKS[name]().train(training)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(net, (torch.randn(2, 3, 64, 64),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-4)


def test_impossible_options_are_explained() -> None:
    with pytest.raises(InputError, match=r"resnet20: width 0\.3 makes 4\.8 channels of 16.*closest is 0\.3125 \(5\)"):
        resnet20(0.3)
    with pytest.raises(InputError, match=r"resnet20: width 0 makes 0 channels of 16.*closest is 0\.0625 \(1\)"):
        resnet20(0)
    with pytest.raises(InputError, match=r"resnet20: width must be a number such as 0\.5, got 'half'"):
        resnet20("half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"resnet20: width must be a number such as 0\.5, got nan"):
        resnet20(float("nan"))
    with pytest.raises(InputError, match=r"resnet18: output_stride 4 is not among 8, 16, 32"):
        resnet18(4)
    with pytest.raises(InputError, match=r"resnet50: in_channels must be an integer of at least 1, got 0"):
        resnet50(in_channels=0)
