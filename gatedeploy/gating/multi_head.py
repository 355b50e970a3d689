"""One plain encoder and heads, with the manners of a gated network: a picture in, one prediction per task out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gatedeploy.errors import InputError


class MultiHead(nn.Module):
    """One backbone, shared by all tasks, and a head for each: uniform MTL, or a single-task net with one head.

    Args:
        backbone: maps a picture to a feature.
        heads: by task; each reads the feature.

    Raises:
        InputError: there are no heads.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise InputError("a network needs a head for at least one task")
        self.backbone = backbone
        try:
            self.heads = nn.ModuleDict(heads)
        except KeyError as error:
            raise InputError(f"a task is called what torch.nn.ModuleDict calls something of its own: {error}") from None

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image`: (batch, channels, height, width). Returns one prediction per task."""
        feature = self.backbone(image)
        return {task: head(feature) for task, head in self.heads.items()}
