"""What the tests of the models measure with."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *args: object) -> tuple[int, int]:
    """Multiply-adds of the convolutions, and of all else, that `module(*args)` really runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*args)
    flops = counter.get_flop_counts()["Global"]
    convolutions = sum(count for operator, count in flops.items() if "convolution" in str(operator))
    return convolutions // 2, (sum(flops.values()) - convolutions) // 2


def with_lively_norms(module: nn.Module) -> None:
    """Give every norm statistics, scale and shift that are not the identity."""
    for part in module.modules():
        for name, tensor in [*part.named_buffers(recurse=False), *part.named_parameters(recurse=False)]:
            if name == "running_mean":
                tensor.normal_(std=0.3)
            elif name == "running_var":
                tensor.uniform_(0.5, 2)
            elif name in ("weight", "bias") and hasattr(part, "running_mean"):
                nn.init.uniform_(tensor, 0.5, 1.5) if name == "weight" else nn.init.normal_(tensor, std=0.3)


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def gradient_is_felt(tensors: Iterable[Tensor]) -> bool:
    return all(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0) for tensor in tensors)
