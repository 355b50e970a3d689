"""What a recipe names, built: its data set, its backbone, its heads."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatedeploy.data import Described, describe_data, load_data
from gatedeploy.errors import InputError, first_line, located
from gatedeploy.models.registry import build_backbone, build_head, build_method, takes_size
from gatedeploy.models.weights import WeightsReport, load_weights
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.batches import Data
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.sections import Component
from gatedeploy.training.stages import Parts

MakeBackbone = Callable[[], nn.Module]
MakeHead = Callable[[Task], nn.Module]


def build_parts(
    recipe: Recipe,
    source: str,
    backbone: str | None = None,
    say: Callable[[str], None] | None = None,
    data: Data | None = None,
) -> tuple[Recipe, Parts]:
    """The data set of a recipe and what builds its networks.

    Args:
        recipe: says all but a backbone of the user's own.
        source: the recipe's name, for messages.
        backbone: `module:function` of the user's own backbone, from the command line. The recipe that comes back names
            it, for people: no name in a file is ever imported.
        say: is told what became of a file of pretrained weights.
        data: the data set, where it has been loaded already.

    Raises:
        InputError: something is not known, does not exist, or does not fit.
    """
    if backbone is not None:
        recipe = replace(recipe, model=replace(recipe.model, backbone=Component(backbone)))
    with located(source):
        if data is None:
            with located("data"):
                data = load_data(recipe.data.name, **recipe.data.options)
        make_backbone, make_head = makers(recipe, data.input, _own(backbone) if backbone else None, say)
        for task in recipe.chosen_tasks(data.tasks):  # so that a wrong head is told before anything is trained
            make_head(task)
    shape = data.input.shape

    def make_method(tasks: tuple[Task, ...]) -> nn.Module:
        assert recipe.method is not None
        heads = {task.name: make_head(task) for task in tasks}
        given = make_backbone(), tasks, heads, torch.zeros(2, *shape)
        with located("method"):
            return build_method(recipe.method.name, *given, **recipe.method.options)

    return recipe, Parts(data, make_backbone, make_head, make_method)


def describe_parts(recipe: Recipe, source: str) -> tuple[Described, MakeBackbone, MakeHead]:
    """What a recipe's data set is and what builds its networks; its pictures need not be there.

    Args:
        recipe: says all.
        source: the recipe's name, for messages.

    Raises:
        InputError: something is not known, does not exist, or does not fit.
    """
    with located(source):
        with located("data"):
            described = describe_data(recipe.data.name, **recipe.data.options)
        return described, *makers(recipe, described.input)


def makers(
    recipe: Recipe,
    input: InputSpec,
    own: Callable[[], nn.Module] | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[MakeBackbone, MakeHead]:
    """What makes the recipe's backbone, and what makes a head of it for a task.

    Args:
        recipe: names the backbone, its weights and the heads.
        input: the picture.
        own: makes the backbone instead.
        say: is told, once, what became of a file of pretrained weights.

    Raises:
        InputError: something is not known, does not exist, or does not fit; what is returned raises it too.
    """
    component, weights = recipe.model.backbone, recipe.model.weights

    def make_backbone() -> nn.Module:
        if own is not None:
            try:
                made = own()
            except Exception as error:  # the user's own code runs here
                told = f"raised {type(error).__name__}: {first_line(error)}"
                raise InputError(f"{component.name}: {told}; it is called without arguments") from error
            if not isinstance(made, nn.Module):
                raise InputError(f"{component.name}: returned a {type(made).__name__}; expected a torch.nn.Module")
        else:
            with located("model.backbone"):
                asked = component.options.get("in_channels", input.channels)
                if asked != input.channels:
                    raise InputError(f"in_channels: {asked}, but the pictures have {input.channels}; leave it out")
                given: dict[str, Any] = {"in_channels": input.channels}
                if takes_size(component.name):
                    given["size"] = (input.height, input.width)
                made = build_backbone(component.name, **{**given, **component.options})
        if weights is not None:
            reports.append(load_weights(made, weights, "model.weights"))
        return made

    reports: list[WeightsReport] = []
    channels = _channels(make_backbone(), input)
    if reports and say is not None:
        say(f"{weights}: {reports[0]}.")

    def make_head(task: Task) -> nn.Module:
        head = recipe.head(task.name)
        with located(f"tasks.{task.name}"):
            return build_head(head.name, channels, task, (input.height, input.width), **head.options)

    return make_backbone, make_head


def _own(name: str) -> Callable[[], nn.Module]:
    """The function `module:function`, looked for where the user stands too."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise InputError(f"--backbone {name}: expected module:function, e.g. my_networks:small_trunk")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        made: Any = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise InputError(f"--backbone {name}: {error}; it is looked for in {here} and where Python looks") from None
    except AttributeError:
        raise InputError(f"--backbone {name}: module {module} has no function {function}") from None
    if not callable(made):
        raise InputError(f"--backbone {name}: is a {type(made).__name__}; expected a function that returns a network")
    return made  # type: ignore[no-any-return]


@torch.no_grad()
def _channels(backbone: nn.Module, input: InputSpec) -> int | tuple[int, ...]:
    """How many channels a head reads: of the one feature map that the backbone returns, or of each of several."""
    try:
        features = backbone.eval()(torch.zeros(1, *input.shape))
    except Exception as error:  # the user's own code runs here
        told = f"does not run on a picture of {input.shape}"
        raise InputError(f"model.backbone: {told}: {first_line(error)}") from error
    several = isinstance(features, (list, tuple))
    maps = list(features) if several else [features]
    for feature in maps:
        if not isinstance(feature, Tensor) or feature.ndim < 2:
            raise InputError(
                f"model.backbone: returns a {type(features).__name__}; the registered heads read feature maps "
                "(batch, channels, height, width), one or a tuple of them"
            )
    return tuple(int(feature.shape[1]) for feature in maps) if several else int(maps[0].shape[1])
