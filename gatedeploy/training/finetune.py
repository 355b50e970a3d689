"""A short training of a collapsed network, after gates were flipped that it had been trained with."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from torch import nn

from gatedeploy.artifact import ModelInfo
from gatedeploy.specs import Task
from gatedeploy.training.batches import Data
from gatedeploy.training.journal import Journal
from gatedeploy.training.loop import fit
from gatedeploy.training.recipe import Polynomial, Recipe
from gatedeploy.training.run import Run

STAGE = "finetune"

OF_THE_RATE = 0.1
"""Which share of the recipe's learning rate it begins with; it falls to 0 from there."""


def finetune(
    network: nn.Module, tasks: tuple[Task, ...], recipe: Recipe, data: Data, epochs: int, journal: Journal
) -> ModelInfo:
    """Train a collapsed network on, in place, by Adam at a tenth of its recipe's learning rate.

    Args:
        network: maps pictures to predictions by task; its norms are folded, so that it is the same in training.
        tasks: what it is trained on.
        recipe: everything else about its training.
        data: pictures and labels.
        epochs: how often it sees every picture.
        journal: told of progress.

    Returns:
        What travels with it; its metrics are those after the last epoch.

    Raises:
        InputError: network and data do not fit each other.
        CheckError: a loss or a weight is no number.
    """
    train = replace(recipe.train, learning_rate=OF_THE_RATE * recipe.train.learning_rate, schedule=Polynomial())
    with tempfile.TemporaryDirectory() as folder:
        return fit(Run(STAGE, network, tasks, epochs, replace(recipe, train=train), data, Path(folder)), journal)
