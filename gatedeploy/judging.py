"""The pictures of a recipe's data set, for a network that stands in a file: to calibrate, judge or train it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatedeploy.data import DataSet, load_data
from gatedeploy.errors import InputError, located
from gatedeploy.exporters.precision.samples import Headline, Metrics, Predict, Samples
from gatedeploy.specs import InputSpec, Task
from gatedeploy.training.measure import measure
from gatedeploy.training.metrics import headline
from gatedeploy.training.recipe import Recipe
from gatedeploy.training.recipe_file import load_recipe

CALIBRATION = 128
"""Pictures that ranges of values are taken from, of the training split."""

BATCH = 16
SEED = 0


def samples_of(recipe: Recipe, source: str, tasks: Sequence[Task], input: InputSpec) -> Samples:
    """Pictures to calibrate by from the training split, chosen by a seed, and all of the validation split to judge by.

    Args:
        recipe: names the data set.
        source: the recipe's name, for messages.
        tasks: what the network predicts; the data set must have labels for each.
        input: the picture that the network takes.

    Raises:
        InputError: the data set cannot be used, or is for another network.
    """
    data = data_for(recipe, source, tasks, input)
    order = np.random.default_rng(SEED).permutation(len(data.train))[:CALIBRATION].tolist()
    with located(source):
        chosen = [data.train.batch(order[start : start + BATCH])[0].numpy() for start in range(0, len(order), BATCH)]

    def judge(predict: Predict) -> Metrics:
        def network(images: Tensor) -> Mapping[str, Tensor]:
            return {name: torch.from_numpy(values) for name, values in predict(images.numpy()).items()}

        return measure(network, data.val, tasks, BATCH)

    headlines = {task.name: Headline(headline(task).name, headline(task).lower_is_better) for task in tasks}
    return Samples(chosen, judge, headlines, f"{data.name} ({source})", len(data.val))


def data_for(recipe: Recipe, source: str, tasks: Sequence[Task], input: InputSpec) -> DataSet:
    """The data set of a recipe, for a network that is known.

    Args:
        recipe: names it.
        source: the recipe's name, for messages.
        tasks: what the network predicts; it must have labels for each.
        input: the picture that the network takes.

    Raises:
        InputError: it cannot be used, or is for another network.
    """
    with located(source):
        data = load_data(recipe.data.name, **recipe.data.options)
        known = {task.name: task for task in data.tasks}
        for task in tasks:
            if task.name not in known:
                raise InputError(
                    f"the data set {data.name} has no labels for task {task.name}; it has {', '.join(known)}"
                )
            theirs = known[task.name]
            if (theirs.kind, theirs.classes) != (task.kind, task.classes):
                raise InputError(f"the data set's task {task.name} is of another kind or has other classes")
        if data.input.shape != input.shape or data.input.moments != input.moments:
            raise InputError(f"the data set {data.name} makes {_told(data.input)}; the network takes {_told(input)}")
    return data


def _told(input: InputSpec) -> str:
    size = "×".join(map(str, input.shape))
    mean, std = (", ".join(f"{value:g}" for value in values) for values in input.moments)
    return f"pictures of {size}, normalised by mean {mean} and deviation {std}"


def recipe_of(info_recipe: Mapping[str, Any], asked: str | None, file: str) -> tuple[Recipe, str]:
    """The recipe whose data set a network is for: the one that is asked for, else the one that the file holds.

    Args:
        info_recipe: what the network's file says of its recipe; empty where it was not trained by one.
        asked: the file of a recipe or the name of a bundled one; None: the network's own.
        file: the network's file, for messages.

    Raises:
        InputError: there is none, or it is none.
    """
    if asked is not None:
        return load_recipe(asked), asked
    if not info_recipe:
        raise InputError(
            f"{file}: names no recipe, so there are no pictures of its own; name a recipe whose data to take: "
            "--data RECIPE"
        )
    with located(file):
        return Recipe.from_plain(info_recipe), file
