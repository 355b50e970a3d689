"""What `gate` is given, checked before anything is traced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.gating.sites import DECODER, ENDS
from gatedeploy.shapes import check_pictures
from gatedeploy.specs import Task, check_tasks

OVER_WHOLES = ("soft", "drawn")
"""Gates over whole tensors, as `gate` calls them."""


def checked_parts(
    backbone: nn.Module, tasks: Sequence[Task], heads: Mapping[str, nn.Module] | None, example_input: Tensor
) -> tuple[tuple[Task, ...], dict[str, nn.Module]]:
    """Tasks and heads that fit each other, of a backbone and an example that can be tried out."""
    if not isinstance(backbone, nn.Module):
        raise InputError(f"backbone: expected a torch.nn.Module, got a {type(backbone).__name__}")
    check_pictures("example_input", example_input)
    if 0 in example_input.shape:
        raise InputError(f"example_input: there is nothing in it, its shape is {tuple(example_input.shape)}")
    if not isinstance(tasks, Iterable):
        raise InputError(f"tasks: expected a list of tasks, got a {type(tasks).__name__}")
    if heads is not None and not isinstance(heads, Mapping):
        raise InputError(f"heads: expected a dict of modules by task, got a {type(heads).__name__}")
    tasks, heads = check_tasks(tuple(tasks)), dict(heads or {})
    names = [task.name for task in tasks]
    for name, head in heads.items():
        if name not in names:
            raise InputError(f"a head was given for {name!r}, which is no task")
        if not isinstance(head, nn.Module):
            raise InputError(f"the head of {name!r} is a {type(head).__name__}; expected a torch.nn.Module")
    without = [name for name in names if name not in heads]
    if heads and without:
        raise InputError(
            f"task {without[0]!r} has no head, so it has no output; give it one, torch.nn.Identity() if it shall "
            "predict what the backbone returns"
        )
    return tasks, heads


def check_placing(
    sites: str | Sequence[str],
    group: int,
    tie: str | None,
    gates: str,
    leaves: Sequence[str | type[nn.Module]],
    has_heads: bool,
) -> None:
    """Raise `InputError` unless the arguments of `gate` say where gates stand, and some paper has such gates."""
    kinds = ("channel", "head", *OVER_WHOLES)
    for argument, given, known in (("tie", tie, (None, "residual")), ("gates", gates, kinds)):
        if given not in known:
            raise InputError(f"{argument} must be {' or '.join(map(repr, known))}, got {given!r}")
    if type(group) is not int or group < 1:
        raise InputError(f"group must be a whole number, at least 1, got {group!r}")
    if isinstance(sites, str) and sites not in ("auto", *ENDS):
        raise InputError(f"sites must be 'auto', 'encoder', 'decoder' or a list of names, got {sites!r}")
    _check_defined(sites in ENDS, group, tie, gates)
    if sites == DECODER and not has_heads:
        raise InputError("sites='decoder' stands behind heads, and there are none; give them, or gate the encoder")
    if not all(isinstance(site, str) for site in sites):
        raise InputError(f"sites must be names, as `site.name` has them, got {sites!r}")
    listed = isinstance(leaves, Iterable) and not isinstance(leaves, str)
    if not listed or not all(isinstance(leaf, (str, type)) for leaf in leaves):
        raise InputError(f"leaf_modules must be a list of names or classes of modules, got {leaves!r}")


def _check_defined(at_end: bool, group: int, tie: str | None, gates: str) -> None:
    """Refuse gates that no paper defines, with the nearest that one does."""
    if at_end and gates not in OVER_WHOLES:
        raise InputError(
            f"gates={gates!r} behind whole encoders or decoders is in no paper; the nearest are gates='soft' (SMTL) or "
            "gates='drawn' (L-SMTL) there, and sites='auto' with these gates (InterroGate)"
        )
    if not at_end and gates in OVER_WHOLES:
        raise InputError(
            f"gates={gates!r} inside a backbone is in no paper; the nearest is sites='encoder' or sites='decoder' with "
            "these gates (Safe MTL)"
        )
    if at_end and (group != 1 or tie is not None):
        raise InputError("group and tie are of channels; a gate behind an encoder or decoder stands for all of them")
