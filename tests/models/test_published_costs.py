"""InterroGate's cost columns, which fix the heads' details; the FLOPs of its ResNets are 2 × MACs, HRNet's are MACs."""

from collections.abc import Callable

import pytest
import torch

from gatedeploy.models.heads import ASPPHead, HRNetHead
from gatedeploy.models.hrnet import hrnet18
from gatedeploy.models.resnet import ResNet, resnet18, resnet50
from tests.models.oracles import macs, parameter_count

Parts = tuple[list[int], list[int]]

# 40 classes, depth, normals
NYUD = (40, 1, 3)
# semantic segmentation, human parts, saliency, normals, edges, as the MTL survey's code has them
PASCAL = (21, 7, 1, 3, 1)


def measured(trunk: Callable[..., ResNet], outputs: tuple[int, ...], height: int, width: int) -> Parts:
    """Multiply-adds and parameters of the trunk and of every task's head."""
    with torch.device("meta"):
        net = trunk(output_stride=8)
        parts = [net, *[ASPPHead(net.out_channels, channels, (height, width)) for channels in outputs]]
        picture, features = torch.empty(1, 3, height, width), torch.empty(1, net.out_channels, height // 8, width // 8)
    counted = [macs(part.eval(), picture if part is net else features)[0] for part in parts]
    return counted, [parameter_count(part) for part in parts]


def multi_task(parts: list[int]) -> int:
    return sum(parts)


def single_task(parts: list[int]) -> int:
    """The papers count T times the network for semantic segmentation."""
    return (len(parts) - 1) * (parts[0] + parts[1])


def test_resnet50_on_nyud() -> None:
    counted, parameters = measured(resnet50, NYUD, 480, 640)
    assert 2 * multi_task(counted) / 1e9 == pytest.approx(683, rel=0.002)
    assert 2 * single_task(counted) / 1e9 == pytest.approx(1149, rel=0.002)
    assert multi_task(parameters) / 1e6 == pytest.approx(71.9, abs=0.05)
    assert single_task(parameters) / 1e6 == pytest.approx(118.9, abs=0.05)


def test_resnet18_on_pascal_context() -> None:
    counted, _ = measured(resnet18, PASCAL, 512, 512)
    assert 2 * multi_task(counted) / 1e9 == pytest.approx(284, rel=0.002)
    assert 2 * single_task(counted) / 1e9 == pytest.approx(670, rel=0.002)


def test_hrnet18_on_nyud() -> None:
    with torch.device("meta"):
        trunk = hrnet18().eval()
        parts = [trunk, *[HRNetHead(trunk.out_channels, channels, (480, 640)).eval() for channels in NYUD]]
        picture = torch.empty(1, 3, 480, 640)
        counted = [macs(part, picture if part is trunk else trunk(picture))[0] for part in parts]
    parameters = [parameter_count(part) for part in parts]
    assert multi_task(counted) / 1e9 == pytest.approx(24.5, rel=0.002)
    assert single_task(counted) / 1e9 == pytest.approx(65.1, rel=0.002)
    assert multi_task(parameters) / 1e6 == pytest.approx(9.8, abs=0.05)
    assert single_task(parameters) / 1e6 == pytest.approx(28.9, abs=0.05)
