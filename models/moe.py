"""The rival: a backbone as a task-conditioned mixture of experts, asked once per task.

Every basic block of a residual trunk becomes `ConvExperts`, every second block of a vision transformer `TokenExperts`,
as in M³ViT; stem, shortcuts and heads stay. A pass answers one task and costs what a pass of the plain single-task
network costs, plus the routers: one multiply-add per expert and channel seen, for each picture or token. T tasks cost T
passes; asked as one batch, what comes before the first experts is computed once. Experts own E / k times the parameters
of what they replace.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError, located
from gatedeploy.gating.placing import checked_parts
from gatedeploy.gating.task_network import TaskNetwork
from gatedeploy.gating.trial import try_out
from gatedeploy.models.conv_experts import ConvExperts
from gatedeploy.models.heads import check_counts
from gatedeploy.models.resnet import BasicBlock, ResNet
from gatedeploy.models.routing import Experts, balance_loss
from gatedeploy.models.token_experts import TokenExperts
from gatedeploy.models.vit import Block, ViT
from gatedeploy.specs import InputSpec, Task

MOE = "moe"
"""What recipes and checkpoints call it."""

UNDEPLOYABLE = (
    "answers one task a pass, through experts that depend on the picture, so it is no single pass for all tasks. "
    "gatedeploy bench exports its passes, as ONNX at batch 1, and measures them"
)


class MoENetwork(TaskNetwork):
    """A trunk in which tasks share a pool of experts; made by `moe`.

    Args:
        tasks: what it can be asked.
        input: the picture.
        heads: by task.
        trunk: the backbone, its blocks replaced.
        balance: weight of what keeps experts equally busy.
    """

    undeployable = UNDEPLOYABLE

    def __init__(
        self,
        tasks: tuple[Task, ...],
        input: InputSpec,
        heads: Mapping[str, nn.Module],
        trunk: nn.Module,
        balance: float,
    ) -> None:
        super().__init__(tasks, input, heads)
        self.trunk = trunk
        self.balance = balance
        self.experts()[0].first = True

    def experts(self) -> list[Experts]:
        """The blocks with experts, from the first."""
        return [part for part in self.trunk.modules() if isinstance(part, Experts)]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image`: (batch, channels, height, width). Returns one prediction per task.

        In training all tasks go through as one batch, so that the norms, which tasks share, see the mixture of tasks
        that their running statistics describe afterwards.
        """
        self.check(image)
        return self.together(image) if self.training else self.one_by_one(image)

    def one_by_one(self, image: Tensor) -> dict[str, Tensor]:
        """A pass for each task."""
        found = {}
        for number, task in enumerate(self.tasks):
            for block in self.experts():
                block.task = number
            found[task.name] = self.heads.get_submodule(task.name)(self.trunk(image))
        return found

    def together(self, image: Tensor) -> dict[str, Tensor]:
        """One pass for a batch of all tasks; what comes before the first experts is computed once."""
        for block in self.experts():
            block.task = None
        features = self.trunk(image)
        found = {}
        for number, task in enumerate(self.tasks):
            own = [
                feature if feature.shape[0] == image.shape[0] else feature.chunk(len(self.tasks))[number]
                for feature in (features if isinstance(features, tuple) else (features,))
            ]
            found[task.name] = self.heads.get_submodule(task.name)(tuple(own) if len(own) > 1 else own[0])
        return found

    def penalty(self) -> Tensor:
        """The load-balancing loss of the routing in training, the mean over the blocks, weighted.

        A block is balanced over all tasks together, so that tasks are free to prefer different experts.
        """
        routings = [block.routing for block in self.experts() if block.routing is not None]
        if not routings:
            return super().penalty()
        return self.balance * torch.stack([balance_loss(routing) for routing in routings]).mean()

    def request(self, together: bool) -> nn.Module:
        """A copy that answers all tasks for a picture, in evaluation, computing the chosen experts alone.

        ONNX takes it at batch 1, where a residual block's experts are two plain convolutions on gathered kernels.

        Args:
            together: one pass for a batch of all tasks, instead of a pass for each.
        """
        made = copy.deepcopy(self).eval()
        _replace(made.trunk, lambda block: block.deployed() if isinstance(block, Experts) else None)
        made.experts()[0].first = True
        return _Request(made, together).eval()


class _Request(nn.Module):
    def __init__(self, network: MoENetwork, together: bool) -> None:
        super().__init__()
        self.network = network
        self.together = together

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.network.together(image) if self.together else self.network.one_by_one(image)


def moe(
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    experts: int = 16,
    top_k: int = 4,
    balance: float = 0.01,
) -> MoENetwork:
    """A mixture of experts, of which each picture or token takes a few, chosen for the task that is asked.

    Args:
        backbone: resnet20, resnet18, vit_s16 or vit_b16; it is copied, and experts start with fresh random weights.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        experts: E, in each block. This and the next are M³ViT's numbers.
        top_k: k, how many of them are taken; must divide the hidden channels of every block.
        balance: weight of the loss that keeps experts equally busy, Switch Transformers' 0.01.

    Raises:
        InputError: the backbone has no blocks for experts, k does not fit, or tasks, heads and example do not.
    """
    checked, given = checked_parts(backbone, tasks, heads, example_input)
    try_out(backbone, [task.name for task in checked], given, example_input)
    if not isinstance(backbone, (ResNet, ViT)):
        raise InputError(
            f"experts take the place of basic blocks or of a vision transformer's, and a {type(backbone).__name__} has "
            "none that are known; take resnet20, resnet18, vit_s16 or vit_b16"
        )
    check_counts("mixture of experts", experts=experts, top_k=top_k)
    trunk = copy.deepcopy(backbone)
    count = 0

    def mixture(block: nn.Module) -> nn.Module | None:
        nonlocal count
        if isinstance(block, BasicBlock):
            return ConvExperts(block, experts, top_k, len(checked))
        if isinstance(block, Block):
            count += 1
            return TokenExperts(block, experts, top_k, len(checked)) if count % 2 == 0 else None
        return None

    with located("mixture of experts"):
        _replace(trunk, mixture)
    network_input = InputSpec(*example_input.shape[1:])
    if not any(isinstance(part, Experts) for part in trunk.modules()):
        raise InputError("the backbone has no basic blocks and fewer than two of a vision transformer's; take resnet18")
    return MoENetwork(checked, network_input, given, trunk, balance)


def _replace(module: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what `other` returns in the place of the modules inside for which it returns something, in their order."""
    for name, child in list(module.named_children()):
        made = other(child)
        if made is None:
            _replace(child, other)
        else:
            setattr(module, name, made)
