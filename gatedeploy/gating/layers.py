"""The layers of a gated network, for `gd.gate` and for networks gated by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.operators import channel_axis, mix, per_channel, select

START = 0.1
"""Where every α starts: a little above the threshold, so that every channel begins task-specific.

At 0 or below all tasks would take the shared feature and no task branch would get a gradient."""


class ChannelGate(nn.Module):
    """Chooses per channel between a task's own feature and the shared one (InterroGate eq. 2).

    One α per `group` neighbouring channels, the last group may be smaller; α > 0 takes the task's own.

    Args:
        channels: channels of the features along `axis`.
        group: how many neighbouring channels share one α.
        axis: the features' channel axis.
    """

    def __init__(self, channels: int, group: int = 1, axis: int = 1) -> None:
        super().__init__()
        if channels < 1 or group < 1:
            raise InputError(f"a gate needs at least 1 channel and groups of at least 1, got {channels} and {group}")
        self.channels = channels
        self.group = group
        self.axis = axis
        self.gate_logits = nn.Parameter(torch.full((math.ceil(channels / group),), START))

    def forward(self, specific: Tensor, shared: Tensor) -> Tensor:
        """Both inputs and the result: equal shapes with `channels` along `axis`."""
        chosen: Tensor = select(specific, shared, self.gate_logits, self.group, self.axis)
        return chosen

    def openness(self) -> Tensor:
        """σ(α) per channel, `(channels,)`, differentiable."""
        return per_channel(self.gate_logits.sigmoid(), self.group, self.channels)

    def chosen(self) -> Tensor:
        """Which channels are the task's own: `(channels,)` bool."""
        return per_channel(self.gate_logits.detach() > 0, self.group, self.channels)

    def share(self) -> Tensor:
        """(channels,) 1 where a channel is the task's own, else 0."""
        return self.chosen().to(self.gate_logits.dtype)

    def choose(self, specific: Sequence[bool] | Tensor) -> None:
        """Set the gates by hand: one truth value per group, True takes the task's own feature."""
        try:
            given = torch.as_tensor(specific)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"expected a truth value for each group, got {specific!r}") from error
        wanted = given.bool()
        if not torch.equal(given, wanted.to(given.dtype)):
            raise InputError(f"expected choices that are true or false, 1 or 0; got {given.tolist()}")
        if wanted.shape != self.gate_logits.shape:
            raise InputError(
                f"expected {len(self.gate_logits)} choices, one per group, got shape {tuple(wanted.shape)}"
            )
        with torch.no_grad():
            self.gate_logits.copy_(torch.where(wanted, START, -START))

    def extra_repr(self) -> str:
        """What `print(gate)` shows."""
        return f"channels={self.channels}, group={self.group}, axis={self.axis}"


class TensorGate(nn.Module):
    """Chooses a whole tensor: one α decides between a task's own feature and the shared one."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_logits = nn.Parameter(torch.full((1,), START))

    def forward(self, specific: Tensor, shared: Tensor) -> Tensor:
        """Both inputs and the result: equal shapes, (batch, tokens, channels) or (batch, channels, …)."""
        axis = channel_axis(specific.ndim)
        chosen: Tensor = select(specific, shared, self.gate_logits, specific.shape[axis], axis)
        return chosen


class Mix(nn.Module):
    """Feeds the shared branch from the tasks' gated features (InterroGate eq. 3).

    All β start equal, so every task gives the same share.

    Args:
        tasks: how many features are mixed.
        channels: their channels along `axis`.
        axis: their channel axis.
    """

    def __init__(self, tasks: int, channels: int, axis: int = 1) -> None:
        super().__init__()
        if tasks < 1 or channels < 1:
            raise InputError(f"a mix needs at least 1 task and 1 channel, got {tasks} and {channels}")
        self.axis = axis
        self.mix_logits = nn.Parameter(torch.zeros(tasks, channels))

    def forward(self, *features: Tensor) -> Tensor:
        """One feature per task, equal shapes; the result has the same."""
        if len(features) != len(self.mix_logits):
            raise InputError(f"this mix is over {len(self.mix_logits)} tasks, got {len(features)} features")
        mixed: Tensor = mix(list(features), self.mix_logits, self.axis)
        return mixed

    def share(self) -> Tensor:
        """softmax(β): how much each task gives, `(tasks, channels)`."""
        return self.mix_logits.detach().softmax(0)
