"""Everything that is compared in one benchmark: the networks that were given, and their rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.accuracy import SINGLE
from gatedeploy.benchmarks.costs import NetworkCost, count, total
from gatedeploy.benchmarks.naive import lower_naively
from gatedeploy.benchmarks.rivals import PlainRivals, mixture_of_recipe, rivals_of_gates, rivals_of_recipe
from gatedeploy.benchmarks.subjects import Subject
from gatedeploy.compiler import Collapsed, collapse
from gatedeploy.errors import InputError, located
from gatedeploy.exporters.plain_gates import plain_gates
from gatedeploy.graph.cost import cost as cost_by_shapes
from gatedeploy.graph.modules import network
from gatedeploy.models.moe import MOE, MoENetwork
from gatedeploy.models.registry import METHODS
from gatedeploy.program import Program
from gatedeploy.specs import InputSpec
from gatedeploy.training.snapshots import load_network, read_snapshot

KINDS = ("stl", "mtl", "moe", "moe-batch", "gated", "compiled", "naive", "collapsed", "bundle")
"""In the order of reports: rivals first."""

OURS = ("collapsed", "bundle")
"""Those that a report is about; the others are what they are compared with."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to answer all tasks for one picture, in one request.

    Args:
        name: its kind, and the label of its file where there are several of a kind.
        kind: one of `KINDS`.
        cost: of the request.
        networks: what computes it, one after the other; each takes a picture and returns predictions by task.
        file: the ONNX file of a bundle, which has no networks.
        collapse: what the collapse did, as `CollapseReport` in JSON types; empty for what was not collapsed.
        flipped_gates: how many choices of gates were flipped after it was trained.
        measured: the label of the file that tells what it reached; "" for random weights, and where no file does.
    """

    name: str
    kind: str
    cost: NetworkCost
    networks: tuple[nn.Module, ...] = ()
    file: Path | None = None
    collapse: Mapping[str, Any] = field(default_factory=dict)
    flipped_gates: int = 0
    measured: str = ""


def assemble(
    subjects: Sequence[Subject], experts: bool = True, compiled: bool = False
) -> tuple[list[Candidate], list[str]]:
    """The candidates in the order of reports, and in sentences which rivals are missing and why.

    The single-task networks and uniform MTL are the trained ones where such checkpoints are among the subjects; else
    they are read off the first gated network (see `rivals_of_gates`), else built from the recipe.

    Args:
        subjects: what was given.
        experts: whether a mixture of experts is among the rivals.
        compiled: whether the gated network in `torch.compile` is.

    Raises:
        InputError: a checkpoint cannot be collapsed, or is of an unknown form.
    """
    notes: list[str] = []
    found = _different([own for subject in subjects for own in _own(subject)])
    gated = [subject for subject in subjects if subject.form == "gated"]
    if gated:
        program = _program(gated[0])
        trained = gated_candidate(program)
        naive = candidate("naive", [Collapsed(lower_naively(program)).to(program.dtype)], program.input)
        same = [trained, naive, *([_compiled(trained)] if compiled else [])]
        found += [replace(each, measured=_measured(gated[0])) for each in same]
        notes += _other_backbones(gated)
    found += _plain(subjects, notes)
    if experts:
        found += _mixture(subjects, notes)
    ordered = sorted(found, key=lambda each: KINDS.index(each.kind))
    kinds = [each.kind for each in ordered]
    # A candidate alone of its kind is called by it.
    named = [replace(each, name=each.kind) if kinds.count(each.kind) == 1 else each for each in ordered]
    return named, notes


def gated_candidate(program: Program) -> Candidate:
    """A gated network as it was trained: every branch runs, and gates choose."""
    return candidate("gated", [network(plain_gates(program))], program.input)


def candidate(kind: str, networks: Sequence[nn.Module], input: InputSpec) -> Candidate:
    """A candidate of networks that share no parameter, and its cost."""
    return Candidate(kind, kind, total(count(each, input) for each in networks), tuple(networks))


def _compiled(trained: Candidate) -> Candidate:
    (plain,) = trained.networks
    machine_code: Any = torch.compile(plain)
    return replace(trained, name="compiled", kind="compiled", networks=(machine_code,))


def mixture_candidates(mixture: MoENetwork, input: InputSpec) -> list[Candidate]:
    """A mixture of experts, asked once per task, and for all tasks as one batch."""
    params = sum(parameter.numel() for parameter in mixture.parameters())  # deployed, those folded are buffers
    asked = {kind: mixture.request(together) for kind, together in (("moe", False), ("moe-batch", True))}
    found = [candidate(kind, [network], input) for kind, network in asked.items()]
    return [replace(each, cost=replace(each.cost, params=params)) for each in found]


def title(kind: str, tasks: int) -> str:
    """What a kind of candidate is called in reports.

    Args:
        kind: one of `KINDS`.
        tasks: how many tasks there are.
    """
    return {
        "stl": f"{tasks} single-task networks",
        "mtl": "One shared encoder",
        "moe": f"Mixture of experts, {tasks} passes",
        "moe-batch": "Mixture of experts, batched",
        "gated": "Gated, as trained",
        "compiled": "Gated, torch.compile",
        "naive": "Collapsed, naive layout",
        "collapsed": "Collapsed",
        "bundle": "Bundle",
    }[kind]


def _own(subject: Subject) -> list[Candidate]:
    """What a subject itself brings; trained rivals are taken by `_plain` and `_mixture`."""
    if subject.form in ("shared", "single", MOE):
        return []
    if subject.form == "bundle":
        assert subject.bundle is not None
        said = subject.bundle.manifest.costs
        name = f"bundle {subject.label}"
        cost, flipped = NetworkCost(said.macs, said.params), subject.info.flipped_gates
        file, measured = subject.bundle.model, _measured(subject)
        return [Candidate(name, "bundle", cost, file=file, flipped_gates=flipped, measured=measured)]
    if subject.form not in ("gated", "collapsed", *METHODS):
        raise InputError(f"{subject.path}: a network of form {subject.form!r}; expected one that gatedeploy wrote")
    program = _program(subject)
    if subject.form == "collapsed":
        thin, report = Collapsed(program), subject.info.report
    else:
        thin = _collapsed(subject)
        report = asdict(thin.report) if thin.report else {}
    cost = count(thin, program.input)
    name, flipped = f"collapsed {subject.label}", subject.info.flipped_gates
    return [Candidate(name, "collapsed", cost, (thin,), None, report, flipped, _measured(subject))]


def _measured(subject: Subject) -> str:
    return subject.label if subject.info.metrics else ""


def _different(found: Sequence[Candidate]) -> list[Candidate]:
    """Without collapsed networks that stand there already: a file, and the checkpoint that it was made of.

    Which of the two has the figures does not matter.
    """
    kept: list[Candidate] = []
    for each in found:
        equal = next((number for number, other in enumerate(kept) if _equal(each, other)), None)
        if equal is None:
            kept.append(each)
        else:
            kept[equal] = replace(kept[equal], measured=kept[equal].measured or each.measured)
    return kept


def _equal(one: Candidate, other: Candidate) -> bool:
    if not (one.networks and other.networks):
        return False
    ours, theirs = one.networks[0], other.networks[0]
    if not (isinstance(ours, Collapsed) and isinstance(theirs, Collapsed)):
        return False
    weights, others = ours.state_dict(), theirs.state_dict()
    same = weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
    return same and str(ours.network.graph) == str(theirs.network.graph)


def _plain(subjects: Sequence[Subject], notes: list[str]) -> list[Candidate]:
    """Uniform MTL and the single-task networks: the trained ones, completed by made ones."""
    tasks = list(dict.fromkeys(task.name for subject in subjects for task in subject.info.tasks))
    input = subjects[0].info.input
    shared = next((subject for subject in subjects if subject.form == "shared"), None)
    single = {subject.info.tasks[0].name: subject for subject in reversed(subjects) if subject.form == "single"}
    made = None if shared and set(single) == set(tasks) else _made(subjects, notes)
    encoder = _collapsed(shared) if shared else made.shared if made else None
    networks = {task: _collapsed(subject) for task, subject in single.items()}
    if made:
        networks = {**made.single, **networks}
    found = []
    if encoder:
        measured = _measured(shared) if shared else ""
        found.append(replace(candidate("mtl", [encoder], input), measured=measured))
    if set(networks) == set(tasks):
        measured = SINGLE if set(single) == set(tasks) else ""
        found.append(replace(candidate("stl", [networks[task] for task in tasks], input), measured=measured))
    return found


def _made(subjects: Sequence[Subject], notes: list[str]) -> PlainRivals | None:
    reasons = []
    for subject in sorted(subjects, key=lambda subject: subject.form != "gated"):
        if subject.form == "gated":
            made, reason = _tried(lambda subject=subject: rivals_of_gates(_program(subject)))  # type: ignore[misc]
        elif subject.form != "single":
            made, reason = _tried(lambda subject=subject: rivals_of_recipe(subject.info))  # type: ignore[misc]
        else:
            continue
        if made:
            return made
        reasons.append(f"{subject.label}: {reason}")
    notes.append(
        f"Single-task networks and one shared encoder could not be made: {'; '.join(reasons) or 'no such network'}."
    )
    if not any(subject.form == "gated" for subject in subjects):
        notes[-1] += " They can be read off the gated network: name its checkpoint too."
    return None


def _mixture(subjects: Sequence[Subject], notes: list[str]) -> list[Candidate]:
    known_first = sorted(subjects, key=lambda subject: (subject.form != MOE, not subject.info.recipe))
    first = next((subject for subject in known_first if subject.form != "single"), None)
    if first is None:
        return []
    mixture, reason = _tried(
        lambda: trained_mixture(first.info, first.path) if first.form == MOE else mixture_of_recipe(first.info)
    )
    if mixture is None:
        notes.append(f"There is no mixture of experts to compare with: {reason}.")
        return []
    measured = _measured(first) if first.form == MOE else ""
    return [replace(each, measured=measured) for each in mixture_candidates(mixture, first.info.input)]


def trained_mixture(info: ModelInfo, file: Path) -> MoENetwork:
    """The mixture of experts that a checkpoint holds.

    Args:
        info: what the file says of its network.
        file: the checkpoint.

    Raises:
        InputError: its backbone is not known, or it is damaged.
    """
    mixture = mixture_of_recipe(info)
    load_network(mixture, read_snapshot(file).network, file)
    return mixture


def _program(subject: Subject) -> Program:
    assert subject.program is not None  # all but bundles have one
    return subject.program


def _collapsed(subject: Subject) -> Collapsed:
    with located(str(subject.path)):
        return collapse(_program(subject))


def _other_backbones(gated: Sequence[Subject]) -> list[str]:
    """The rivals are the first one's, which says little about a network of another backbone."""
    first = cost_by_shapes(_program(gated[0])).macs
    others = [subject.label for subject in gated[1:] if cost_by_shapes(_program(subject)).macs != first]
    if not others:
        return []
    return [f"The rivals are those of {gated[0].label}; {', '.join(others)} may have another backbone or other sites."]


def _tried(make: Callable[[], T]) -> tuple[T | None, str]:
    """What was made and an empty reason, or None and why not."""
    try:
        return make(), ""
    except InputError as error:
        return None, str(error)
