"""Collapse a gated network into one plain single-pass network with an output per task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from gatedeploy.artifact import ModelInfo, describe, info_of
from gatedeploy.errors import CheckError, InputError
from gatedeploy.graph.budget import Budget, within_budget
from gatedeploy.graph.capture import capture
from gatedeploy.graph.choices import SiteChoice
from gatedeploy.graph.cost import Cost, cost
from gatedeploy.graph.flips import Rounded, gates_of
from gatedeploy.graph.modules import network
from gatedeploy.graph.prices import Prices
from gatedeploy.graph.rounding import rounded_gates
from gatedeploy.graph.shares import SiteShare, site_shares
from gatedeploy.lowering import Lowered, lower
from gatedeploy.milliseconds import Milliseconds, within_milliseconds
from gatedeploy.parity import FLOAT32, FLOAT64, Parity
from gatedeploy.price_tables import prices_of_target
from gatedeploy.program import Program, evaluate, with_tasks
from gatedeploy.questions import Question, questions, worst_parity
from gatedeploy.shapes import check_pictures

UNDEPLOYABLE = "undeployable"
"""Attribute of a network that is no single pass: a sentence without its subject, why, and what to do instead."""


@dataclass(frozen=True)
class CollapseReport:
    """What a collapse did.

    Args:
        gated: cost of the network as trained: all its branches.
        collapsed: cost of what is left.
        parity: the collapsed network against the gated one, in float64.
        parity_float32: the same in the precision in which it is returned; in float32 where that is a half precision,
            whose rounding no bound holds.
        sites: how much each task keeps for itself, site by site.
        barriers: operators that no rule knows in the form in which they are called, such as a softmax over channels,
            with how often each occurs; what feeds them could not be pruned.
        fewest_macs: multiply-adds of the collapsed network if nothing were traded for speed; `collapsed` may do more.
        layout: how channels were spread over tensors and by which kernels they are computed, layer by layer; empty
            where that was not chosen by price.
        seconds: time taken by "capture", "passes" and "verification".
        rounded: gates that were flipped because that was asked for. Where there are some, parity and `sites` speak of
            the network with these gates, and no longer of the one that was trained.
    """

    gated: Cost
    collapsed: Cost
    parity: Parity
    parity_float32: Parity
    sites: tuple[SiteShare, ...]
    barriers: dict[str, int]
    fewest_macs: int
    layout: tuple[SiteChoice, ...]
    seconds: dict[str, float]
    rounded: tuple[Rounded, ...] = ()


class Collapsed(nn.Module):
    """A collapsed network: `network` is a plain `torch.fx.GraphModule` of `torch.nn` modules, free to train and export.

    Attributes:
        network: the network itself.
        report: what the collapse did; None for a network that was read from a file.
    """

    def __init__(self, program: Program, report: CollapseReport | None = None, info: ModelInfo | None = None) -> None:
        super().__init__()
        self.network: fx.GraphModule = network(program)
        describe(self.network, info)
        self.report = report
        self._skeleton = replace(program, weights={})
        self._names = tuple(program.weights)

    def forward(self, image: Tensor) -> dict[str, Any]:
        """`image`: (batch, channels, height, width). Returns one prediction per task; `InputError` of another rank."""
        check_pictures("the picture", image)
        predictions: dict[str, Any] = self.network(image)
        return predictions

    @property
    def info(self) -> ModelInfo | None:
        """What travels with it: tasks, preprocessing; None where nothing is known but the tasks' names."""
        return info_of(self.network)

    @property
    def program(self) -> Program:
        """The network as data, with its weights as they are now."""
        state = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        return replace(self._skeleton, weights={name: state[name].detach() for name in self._names})


@torch.inference_mode(False)  # or nobody could train what it returns
def collapse(
    gated: nn.Module | Program,
    *,
    example_input: Tensor | None = None,
    tasks: Sequence[str] | None = None,
    target: str | Prices | None = "cpu",
    round_gates: int | None = None,
    budget: Budget | Milliseconds | float | None = None,
) -> Collapsed:
    """Collapse a gated network: every gate becomes a constant, and all that no output needs is cut away.

    The result is verified against the gated network, in float64, before it is returned. It keeps what the gated network
    knows of its tasks and its picture; of a program only the tasks' names are known.

    Args:
        gated: a network made by `gate`, or any network that uses `ChannelGate`, `TensorGate` and `Mix`, or the program
            of one.
        example_input: (batch, channels, height, width); needed unless `gated` is a program. Its height and width are
            those of the collapsed network, its batch size is not.
        tasks: the outputs to keep, all when None.
        target: where it is to run: one of `price_tables.TARGETS`, or a table of what kernels cost there. How its
            channels are spread over tensors is chosen to be cheap there, and it may execute more multiply-adds than it
            must. None: the fewest multiply-adds. That runs fastest in PyTorch itself, and elsewhere in networks where
            many gates meet in additions; `gatedeploy prune --optimize max` measures both.
        round_gates: flip the least sure gates so that tensors have a whole multiple of this many channels. What is
            collapsed then is that network, and no longer the one that was trained.
        budget: flip the least sure gates, so that the collapsed network needs at most this many multiply-adds for one
            picture; up to 1 it is a share of those of the gated network, as far as `tasks` need it. That is the count
            with `target=None`; a layout for a target may add to it.
            A `Budget` has those of tasks, too; `Milliseconds` are those that are predicted for `target`.

    Raises:
        InputError: the network cannot be captured, a task does not exist, or the budget cannot be met.
        CheckError: a weight or a prediction is no number; or the result differs from the gated network by more than
            rounding, which is a bug of gatedeploy.
    """
    clock = _Clock()
    program = _program(gated, example_input)
    clock.lap("capture")
    prices = prices_of_target(target)
    wanted, rounded = flipped(program, tasks, round_gates, budget, prices)
    dtype = _precision(wanted)
    lowered = lower(wanted, prices)
    collapsed = Collapsed(lowered.program)
    clock.lap("passes")
    asked = questions(wanted, example_input)
    parity = worst_parity(partial(evaluate, collapsed.program), asked, FLOAT64)
    parity_float32 = _round(collapsed, dtype, asked)
    clock.lap("verification")
    if isinstance(gated, nn.Module):
        describe(collapsed.network, _still_known(info_of(gated), wanted, rounded))
    report = _report(program, wanted, collapsed, lowered, (parity, parity_float32), clock.seconds)
    collapsed.report = replace(report, rounded=rounded)
    return collapsed


def flipped(
    program: Program,
    tasks: Sequence[str] | None,
    round_gates: int | None,
    budget: Budget | Milliseconds | float | None,
    prices: Prices | None,
) -> tuple[Program, tuple[Rounded, ...]]:
    """The network for these tasks with such gates flipped as `collapse` is asked to flip, and which those were.

    Raises:
        InputError: both ways are asked for, or what is asked for cannot be.
    """
    program = program if tasks is None else with_tasks(program, tasks)
    if budget is None and round_gates is None:
        return program, ()
    if budget is not None and round_gates is not None:
        raise InputError("gates are flipped for whole vectors (round_gates) or for a budget; ask for one of them")
    if not gates_of(program):
        asked = "a budget" if round_gates is None else "round_gates"
        raise InputError(f"{asked} is met by flipping gates, and this network has none that choose; leave it out")
    if round_gates is not None:
        return rounded_gates(program, round_gates)
    assert budget is not None
    if isinstance(budget, Milliseconds):
        if prices is None:
            raise InputError("a budget in milliseconds goes by what kernels cost: name a target that has prices")
        return within_milliseconds(program, budget, prices)
    return within_budget(program, budget if isinstance(budget, Budget) else Budget(budget))


def _program(gated: nn.Module | Program, example_input: Tensor | None) -> Program:
    """The network as data, its weights numbers."""
    if isinstance(gated, Program):
        program = gated
        _check_example(program, example_input)
    elif isinstance(reason := getattr(gated, UNDEPLOYABLE, None), str):
        raise InputError(f"{type(gated).__name__} {reason}")
    elif example_input is None:
        raise InputError("collapse needs an example_input to see how the network runs")
    else:
        program = capture(gated, example_input)
    _check_numbers(program)
    return program


def _report(
    gated: Program,
    wanted: Program,
    collapsed: Collapsed,
    lowered: Lowered,
    parity: tuple[Parity, Parity],
    seconds: dict[str, float],
) -> CollapseReport:
    left = cost(collapsed.program)
    return CollapseReport(
        gated=cost(gated),
        collapsed=left,
        parity=parity[0],
        parity_float32=parity[1],
        sites=tuple(site_shares(wanted)),
        barriers=lowered.barriers,
        fewest_macs=left.macs - lowered.extra_macs,
        layout=lowered.layout,
        seconds=seconds,
    )


def _still_known(info: ModelInfo | None, program: Program, rounded: Sequence[Rounded]) -> ModelInfo | None:
    """What is known of the gated network, for the outputs that were kept; nobody measured a rounded one."""
    if info is None or not {task.name for task in info.tasks} >= program.outputs.keys():
        return None
    kept = replace(info.only(program.outputs), input=program.input, form="collapsed")
    return with_flipped(kept, rounded)


def with_flipped(info: ModelInfo, rounded: Sequence[Rounded]) -> ModelInfo:
    """What is known of a network after these gates were flipped: metrics are those of the one that was trained."""
    flipped = info.flipped_gates + sum(gate.flipped for gate in rounded)
    return replace(info, flipped_gates=flipped, metrics={}) if rounded else info


def _check_example(program: Program, example_input: Tensor | None) -> None:
    if example_input is not None and tuple(example_input.shape[1:]) != program.input.shape:
        expected = ", ".join(map(str, program.input.shape))
        raise InputError(
            f"example_input: expected (batch, {expected}), the picture that the program was made for; "
            f"got {tuple(example_input.shape)}"
        )


def _check_numbers(program: Program) -> None:
    """Raise `CheckError` where a weight is no number, as a training that went wrong leaves it."""
    for name, weight in program.weights.items():
        # A buffer may be a mask that is infinite by intent; statistics of norms are buffers too.
        learned = name in program.trainable or "running_" in name
        wrong = ~weight.isfinite() if learned else weight.isnan()
        if wrong.any():
            raise CheckError(
                f"weight {name!r}: {int(wrong.sum())} of {weight.numel()} numbers are NaN or infinite, so the network "
                "predicts nothing; look at its training (a lower learning rate, wrong labels) and train it again"
            )


def _round(collapsed: Collapsed, dtype: torch.dtype, asked: Sequence[Question]) -> Parity:
    """Round the network to `dtype` and verify it as it is then; one of half precision in float32, before."""
    if dtype in (torch.float32, torch.float64):
        collapsed.to(dtype)
        tolerance = FLOAT64 if dtype == torch.float64 else FLOAT32
        return worst_parity(lambda picture: collapsed(picture.to(dtype)), asked, tolerance)
    parity = worst_parity(partial(evaluate, collapsed.program, dtype=torch.float32), asked, FLOAT32)
    collapsed.to(dtype)
    return parity


def _precision(program: Program) -> torch.dtype:
    """The precision that the collapsed network is returned in."""
    kinds = {weight.dtype for weight in program.weights.values() if weight.is_floating_point()}
    if len(kinds) > 1 and any(kind.itemsize < torch.float32.itemsize for kind in kinds):
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise InputError(f"the network has weights of several precisions ({names}); give it in one, e.g. net.float()")
    return program.dtype


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
