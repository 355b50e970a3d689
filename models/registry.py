"""Backbones, heads, and ways of sharing other than gates, by name, as recipes write them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from gatedeploy.errors import InputError, closest, first_line
from gatedeploy.models.adashare import adashare
from gatedeploy.models.afa import afa
from gatedeploy.models.cross_stitch import cross_stitch
from gatedeploy.models.dpt import MAPS, DPTHead
from gatedeploy.models.heads import ASPPHead, DenseHead, HRNetHead, LinearHead
from gatedeploy.models.hrnet import HRNet, hrnet18
from gatedeploy.models.moe import moe
from gatedeploy.models.mtan import mtan
from gatedeploy.models.mtl import mtl
from gatedeploy.models.nddr import nddr
from gatedeploy.models.resnet import ResNet, resnet18, resnet20, resnet50
from gatedeploy.models.vit import ViT, vit_b16, vit_s16
from gatedeploy.options import check_options
from gatedeploy.specs import Task

Entry = TypeVar("Entry")


class _Head(NamedTuple):
    build: Callable[..., nn.Module]
    dense: bool
    """Whether it answers per pixel, and so takes the size of the picture."""
    maps: int | None = 1
    """How many feature maps it reads; None for several, however many."""


Trunk = ResNet | HRNet | ViT
BACKBONES: Mapping[str, Callable[..., Trunk]] = {
    **{"resnet20": resnet20, "resnet18": resnet18, "resnet50": resnet50},
    **{"hrnet18": hrnet18, "vit_s16": vit_s16, "vit_b16": vit_b16},
}
HEADS: Mapping[str, _Head] = {
    "linear": _Head(LinearHead, dense=False),
    "dense": _Head(DenseHead, dense=True),
    "aspp": _Head(ASPPHead, dense=True),
    "hrnet": _Head(HRNetHead, dense=True, maps=None),
    "dpt": _Head(DPTHead, dense=True, maps=MAPS),
}
METHODS: Mapping[str, Callable[..., nn.Module]] = {
    **{"mtl": mtl, "cross_stitch": cross_stitch, "nddr": nddr},
    **{"mtan": mtan, "adashare": adashare, "afa": afa, "moe": moe},
}


def backbone_names() -> tuple[str, ...]:
    """The names `build_backbone` knows."""
    return tuple(BACKBONES)


def head_names() -> tuple[str, ...]:
    """The names `build_head` knows."""
    return tuple(HEADS)


def takes_size(name: str) -> bool:
    """Whether the trunk has to know the size of the picture, as its option `size`."""
    return name in BACKBONES and "size" in inspect.signature(BACKBONES[name]).parameters


def build_backbone(name: str, **options: Any) -> Trunk:
    """A trunk with fresh random weights.

    Args:
        name: one of `backbone_names()`.
        options: the arguments of the function of that name in `gatedeploy.models`, e.g. `width=0.5`.

    Raises:
        InputError: no such backbone, no such option, or a value it cannot have.
    """
    build = _known("backbone", name, BACKBONES)
    _check_options(f"backbone {name}", build, options, given=())
    return _built(f"backbone {name}", build, options)


def build_head(
    name: str, in_channels: int | Sequence[int], task: Task, size: Sequence[int], **options: Any
) -> nn.Module:
    """A head for `task` with fresh random weights.

    Args:
        name: one of `head_names()`.
        in_channels: channels of the feature map it reads, or of each of several: a trunk's `out_channels`.
        task: says how many channels the prediction has and whether it is a map.
        size: (height, width) of the picture and of a dense prediction.
        options: the remaining arguments of the head's class in `gatedeploy.models.heads`, e.g. `width=64`.

    Raises:
        InputError: no such head, no such option, a value it cannot have, or a head that cannot serve this kind of task.
    """
    head = _known("head", name, HEADS)
    given: dict[str, Any] = {"in_channels": in_channels, "out_channels": task.channels}
    if task.dense != head.dense:
        fitting = [other for other, entry in HEADS.items() if entry.dense == task.dense]
        gives, needs = ("a map", "one answer per picture") if head.dense else ("one answer per picture", "a map")
        raise InputError(
            f"task {task.name}: head {name!r} gives {gives} and {task.kind} needs {needs}; take {' or '.join(fitting)}"
        )
    _check_maps(name, head, in_channels)
    if head.dense:
        given["size"] = size
    _check_options(f"head {name}", head.build, options, tuple(given))
    return _built(f"head {name}", head.build, {**given, **options})


def build_method(
    name: str,
    backbone: nn.Module,
    tasks: Sequence[Task],
    heads: Mapping[str, nn.Module],
    example_input: Tensor,
    /,
    **options: Any,
) -> nn.Module:
    """A network in which tasks share by another way than gates.

    Args:
        name: one of `METHODS`.
        backbone: the trunk; it is copied.
        tasks: the questions.
        heads: by task.
        example_input: (batch, channels, height, width), used for shapes only.
        options: the remaining arguments of the function of that name in `gatedeploy.models`.

    Raises:
        InputError: no such method, no such option, a value it cannot have, or a backbone that it is not defined for.
    """
    build = _known("method", name, METHODS)
    given = {"backbone": backbone, "tasks": tasks, "heads": heads, "example_input": example_input}
    _check_options(f"method {name}", build, options, tuple(given))
    check_options(build, {**given, **options}, f"method {name}")
    network = _built(f"method {name}", build, {**given, **options})
    kinds = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if len(kinds) == 1:  # what is new computes as precisely as what there was
        network.to(dtype=next(iter(kinds)))
    return network.train(backbone.training)


def _check_maps(name: str, head: _Head, in_channels: int | Sequence[int]) -> None:
    count = 1 if isinstance(in_channels, int) else len(in_channels)
    if count == head.maps or (head.maps is None and count > 1):
        return
    fitting = [other for other, entry in HEADS.items() if entry.maps == count or (entry.maps is None and count > 1)]
    reads = "several feature maps" if head.maps is None else f"{head.maps} feature map{'s' if head.maps > 1 else ''}"
    raise InputError(f"head {name!r} reads {reads} and the backbone gives {count}; take {' or '.join(fitting)}")


def _built(what: str, build: Callable[..., Entry], options: Mapping[str, Any]) -> Entry:
    try:
        return build(**options)
    except (RuntimeError, MemoryError) as error:  # PyTorch raises the first for what fits into no memory
        raise InputError(f"{what}: cannot be built with {dict(options)}: {first_line(error)}") from None


def _known(what: str, name: str, known: Mapping[str, Entry]) -> Entry:
    if name not in known:
        near = closest(str(name), tuple(known))
        raise InputError(f"there is no {what} {name!r}; known are {', '.join(known)}{near}")
    return known[name]


def _check_options(what: str, build: Callable[..., Any], options: Mapping[str, Any], given: tuple[str, ...]) -> None:
    known = tuple(option for option in inspect.signature(build).parameters if option not in given)
    for option in options:
        if option not in known:
            have = f"known are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{what}: there is no option {option!r}; {have}{closest(option, known)}")
