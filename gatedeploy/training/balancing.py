"""Which `Balance` a recipe's `train.balance` is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from gatedeploy.errors import InputError, MissingExtraError
from gatedeploy.gating.multi_head import MultiHead
from gatedeploy.specs import Task
from gatedeploy.training import balance_sections as sections
from gatedeploy.training.auto_lambda import AutoLambda
from gatedeploy.training.balance import Backward, Balance
from gatedeploy.training.gradient_surgery import GradientSurgery
from gatedeploy.training.gradnorm import GradNorm
from gatedeploy.training.mgda_upper_bound import UpperBoundMGDA
from gatedeploy.training.weighted_losses import DWA, Scalarised, Sum
from gatedeploy.training.workers import workers


def make_balance(
    section: sections.AnyBalance, network: nn.Module, tasks: Sequence[Task], backward: Backward
) -> Balance:
    """How the losses of `tasks` become one step. One task alone has nothing to balance: its loss is taken as it is.

    Args:
        section: of the recipe.
        network: to be trained; on its final device, and not wrapped.
        tasks: in the order of their losses.
        backward: Fabric's.

    Raises:
        InputError: the network is not one for this, or torchjd is not installed.
    """
    if len(tasks) == 1:
        return Sum(backward)
    count, device = len(tasks), next(network.parameters()).device
    match section:
        case sections.Sum():
            return Sum(backward)
        case sections.DWA():
            return DWA(count, section.temperature, device, backward)
        case sections.Random() | sections.Uncertainty():
            return Scalarised(_scalariser(section, count).to(device), backward)
        case sections.GradNorm():
            return GradNorm(network, count, section.alpha, section.learning_rate, device, backward)
        case sections.AutoLambda():
            return AutoLambda(network, count, section.start, section.learning_rate, device, backward)
        case sections.MGDA(upper_bound=True):
            if workers().count > 1:
                raise InputError(
                    "train.balance.upper_bound: compares gradients at what the encoder returns for the whole batch, of "
                    "which each of several processes has a part; take upper_bound: false, or train in one process"
                )
            if not isinstance(network, MultiHead):
                raise InputError(
                    f"train.balance.upper_bound: compares gradients at what one encoder returns to all heads, and a "
                    f"{type(network).__name__} has no such place; take upper_bound: false"
                )
            return UpperBoundMGDA(network, _weighting(section), backward)
        case _:
            return GradientSurgery(network, _weighting(section), backward)


def _scalariser(section: sections.Random | sections.Uncertainty, tasks: int) -> nn.Module:
    try:
        from torchjd.scalarization import UW, Random
    except ImportError:
        raise _missing(section) from None
    return Random() if isinstance(section, sections.Random) else UW(tasks)


def _weighting(section: sections.PCGrad | sections.CAGrad | sections.MGDA) -> Callable[[Tensor], Tensor]:
    try:
        from torchjd.aggregation import CAGradWeighting, MGDAWeighting, PCGradWeighting

        match section:
            case sections.PCGrad():
                return PCGradWeighting()
            case sections.CAGrad():
                return CAGradWeighting(section.c)  # raises where its solver is not installed
            case sections.MGDA():
                return MGDAWeighting()
    except ImportError:
        raise _missing(section) from None


def _missing(section: sections.AnyBalance) -> MissingExtraError:
    return MissingExtraError(f"train.balance {section.name}", "torchjd[cagrad]", "train")
