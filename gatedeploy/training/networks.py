"""The plain rivals of a gated network, with its manners, and what of any network its tasks share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.network import GatedNetwork


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


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the tasks' heads; [] where a network has none."""
    homes = [network.get_submodule(name) for name in ("heads", "public_heads") if hasattr(network, name)]
    return [parameter for home in homes for parameter in home.parameters()]


def shared_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Everything but heads and gates, in the order of `named_parameters`."""
    others = [*head_parameters(network), *(network.gate_parameters() if isinstance(network, GatedNetwork) else ())]
    theirs = set(map(id, others))
    return [parameter for parameter in network.parameters() if id(parameter) not in theirs]
