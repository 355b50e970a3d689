"""What `train.balance` may be: how the losses of several tasks become one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gatedeploy.training.sections import Section, Within


@dataclass(frozen=True)
class Sum(Section):
    """The losses are added up, each with its ω_t (InterroGate eq. 1)."""

    name: Literal["sum"] = "sum"


@dataclass(frozen=True)
class Random(Section):
    """Every step draws the losses' weights anew: the softmax of normal numbers (RLW, Lin et al. 2022)."""

    name: Literal["random"] = "random"


@dataclass(frozen=True)
class DWA(Section):
    """A loss weighs the more, the slower it fell from the last epoch but one to the last (Liu et al. 2019, eq. 7).

    Args:
        temperature: T; the greater, the more equal the weights.
    """

    name: Literal["dwa"] = "dwa"
    temperature: Annotated[float, Within(0, above=True)] = 2.0


@dataclass(frozen=True)
class Uncertainty(Section):
    """Each task's variance σ_t² is learned; its loss becomes L_t / 2σ_t² + log σ_t (Kendall et al. 2018)."""

    name: Literal["uncertainty"] = "uncertainty"


@dataclass(frozen=True)
class PCGrad(Section):
    """From each task's gradient is taken away what points against another's (Yu et al. 2020, algorithm 1)."""

    name: Literal["pcgrad"] = "pcgrad"


@dataclass(frozen=True)
class CAGrad(Section):
    """The gradient near the tasks' mean along which the worst-off task gains most (Liu et al. 2021, algorithm 1).

    Args:
        c: how far from the mean it may lie, as a share of the mean's length; 0 is the mean itself.
    """

    name: Literal["cagrad"] = "cagrad"
    c: Annotated[float, Within(0)] = 0.4


@dataclass(frozen=True)
class MGDA(Section):
    """The shortest of the weighted means of the tasks' gradients (Sener & Koltun 2018, algorithm 2).

    Args:
        upper_bound: compares gradients at what the one encoder returns instead of at its weights (MGDA-UB), so that it
            is gone through once a step; only for a network of one encoder and heads.
    """

    name: Literal["mgda"] = "mgda"
    upper_bound: bool = False


@dataclass(frozen=True)
class GradNorm(Section):
    """Weights are learned such that the tasks' gradients are of like length and losses fall alike (Chen et al. 2018).

    Args:
        alpha: α; the greater, the more a task that lags behind is pulled along.
        learning_rate: of the Adam that learns the weights; the paper's.
    """

    name: Literal["gradnorm"] = "gradnorm"
    alpha: Annotated[float, Within(0)] = 1.5
    learning_rate: Annotated[float, Within(0, above=True)] = 0.025


@dataclass(frozen=True)
class AutoLambda(Section):
    """Weights are learned such that a step taken with them lowers the losses on another batch (Liu et al. 2022).

    Args:
        start: every λ_t at first.
        learning_rate: of the Adam that learns them.
    """

    name: Literal["auto_lambda"] = "auto_lambda"
    start: Annotated[float, Within(0, above=True)] = 0.1
    learning_rate: Annotated[float, Within(0, above=True)] = 1e-4


AnyBalance = Sum | Random | DWA | Uncertainty | PCGrad | CAGrad | MGDA | GradNorm | AutoLambda

OF_GRADIENTS = (PCGrad, CAGrad, MGDA, GradNorm, AutoLambda)
"""Those that look at single tasks' gradients, not at their losses alone."""
