"""The rival: a backbone as a task-conditioned mixture of experts, asked once per task.

Every residual block of a plain trunk becomes an `ExpertBlock` (see `experts`); stem, shortcuts and heads stay. A pass
answers one task, so T tasks cost T passes, each of which costs what a pass of the plain single-task network costs plus
the routers: one multiply-add per expert and input channel of every block. With 16 experts that is 0.011 % of ResNet-20
at 32×32 and 0.0013 % of ResNet-18 at 224×224. It owns experts / top_k times the blocks' 3×3 convolution parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError, closest
from gatedeploy.models.experts import AskedBlock, ExpertBlock, Routing
from gatedeploy.models.heads import check_counts
from gatedeploy.models.registry import build_backbone
from gatedeploy.models.resnet import BasicBlock, ResNet
from gatedeploy.specs import Task, check_tasks


class MoENetwork(nn.Module):
    """A trunk of basic blocks as a mixture of experts, with a head per task.

    The defaults, 16 experts of which 4 are taken, are M³ViT's.

    Args:
        name: a backbone of basic blocks: resnet20 or resnet18.
        tasks: what it can be asked.
        heads: the head of every task, by the task's name.
        experts: E, per block.
        top_k: k, how many experts a picture passes through; must divide the channels of every block.
        options: the backbone's own, as for `build_backbone`.

    Raises:
        InputError: the backbone has no basic blocks, tasks and heads differ, or the experts cannot be made.
    """

    undeployable = (
        "answers one task a pass, through experts that depend on the picture, so it is no network with an output per "
        "task. What can be exported is a pass: network.ask(task) of each task, as ONNX at batch 1; gatedeploy bench "
        "measures them so"
    )

    def __init__(
        self,
        name: str,
        tasks: tuple[Task, ...],
        heads: Mapping[str, nn.Module],
        experts: int = 16,
        top_k: int = 4,
        **options: Any,
    ) -> None:
        super().__init__()
        self.tasks = tuple(task.name for task in check_tasks(tasks))
        if set(heads) != set(self.tasks):
            raise InputError(f"the heads are {', '.join(heads) or 'none'}; expected one for each of {self._known}")
        check_counts("mixture of experts", experts=experts, top_k=top_k)
        if top_k > experts:
            raise InputError(f"mixture of experts: top_k {top_k} is more than the {experts} experts there are")
        self.trunk = _trunk(name, **options)
        _replace_blocks(name, self.trunk, experts, top_k, len(self.tasks))
        self.heads = nn.ModuleList(heads[task] for task in self.tasks)

    def forward(self, x: Tensor, task: str) -> Tensor:
        """The prediction for one task of `x: (batch, channels, height, width)`; `InputError` for an unknown task."""
        index = self._index(task)
        features, _ = self._routed(x, torch.tensor(index, device=x.device))
        return self.heads[index](features)  # type: ignore[no-any-return]

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        """The predictions for all tasks: a pass for each, made as one batch of tasks × pictures."""
        return self.forward_balanced(x)[0]

    def forward_balanced(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The predictions for all tasks and the load-balancing loss of the routing that made them.

        This is what one trains with. All tasks go through as one batch, so that the norms, which tasks share, see in
        training the mixture of tasks that their running statistics describe afterwards; trained task by task they would
        see one task's at a time, and the network would fail in eval mode.

        Returns:
            the predictions, and `balance_loss` averaged over the blocks. A block is balanced over all tasks together,
            so that tasks are free to prefer different experts.
        """
        count = len(self.tasks)
        asked = torch.arange(count, device=x.device).repeat_interleave(len(x))
        features, routings = self._routed(x.repeat(count, 1, 1, 1), asked)
        answers = zip(self.tasks, self.heads, features.chunk(count), strict=True)
        balance = torch.stack([balance_loss(routing) for routing in routings]).mean()
        return {task: head(seen) for task, head, seen in answers}, balance

    def ask(self, task: str) -> nn.Module:
        """A copy that answers one task in eval mode: picture in, prediction out, norms folded; what one exports.

        ONNX takes it at batch 1, where every block is two plain convolutions on gathered kernels.

        Raises:
            InputError: there is no such task.
        """
        index = self._index(task)
        source = copy.deepcopy(self).eval()
        layers = [
            AskedBlock(layer, index) if isinstance(layer, ExpertBlock) else layer for layer in _layers(source.trunk)
        ]
        return nn.Sequential(*layers, source.heads[index]).eval()

    @property
    def _known(self) -> str:
        return ", ".join(self.tasks)

    def _index(self, task: str) -> int:
        if task not in self.tasks:
            raise InputError(f"there is no task {task!r}; known are {self._known}{closest(str(task), self.tasks)}")
        return self.tasks.index(task)

    def _routed(self, x: Tensor, task: Tensor) -> tuple[Tensor, list[Routing]]:
        """The last feature map, and where each block sent the pictures."""
        routings: list[Routing] = []
        for layer in _layers(self.trunk):
            if isinstance(layer, ExpertBlock):
                x, routing = layer(x, task)
                routings.append(routing)
            else:
                x = layer(x)
        return x, routings


def balance_loss(routing: Routing) -> Tensor:
    """E · Σ_e f_e · P_e: 1 when all experts are used alike, E when one does all.

    f_e is the share of choices that fell on expert e and P_e its mean probability, through which the gradient flows
    (Switch Transformers, Fedus et al. 2022, eq. 4 to 6; the idea is the importance loss of Shazeer et al. 2017, eq. 6).
    """
    experts = routing.probabilities.shape[1]
    shares = torch.bincount(routing.chosen.flatten(), minlength=experts) / routing.chosen.numel()
    return experts * (shares * routing.probabilities.mean(0)).sum()


def _layers(trunk: ResNet) -> Iterator[nn.Module]:
    """The stem's layers and the stages' blocks, in the order they run."""
    for layer in trunk:
        if isinstance(layer, nn.Sequential):
            yield from layer
        else:
            yield layer


def _trunk(name: str, **options: Any) -> ResNet:
    trunk = build_backbone(name, **options)
    if not isinstance(trunk, ResNet):
        raise InputError(
            f"{name} is no residual network; experts take the place of basic blocks: take resnet20 or resnet18"
        )
    return trunk


def _replace_blocks(name: str, trunk: ResNet, experts: int, top_k: int, tasks: int) -> None:
    for stage in trunk:
        if not isinstance(stage, nn.Sequential):
            continue
        for position, block in enumerate(stage):
            if not isinstance(block, BasicBlock):
                raise InputError(f"mixture of experts: {name} has no basic blocks; take resnet20 or resnet18")
            channels = block.conv1.out_channels
            if channels % top_k:
                raise InputError(
                    f"mixture of experts: top_k {top_k} does not divide the {channels} channels of a block"
                )
            stage[position] = ExpertBlock(block, experts, top_k, tasks)
