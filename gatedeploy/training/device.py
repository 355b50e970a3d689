"""Where and in which precision a network is trained."""

from __future__ import annotations

from typing import Any

import torch

from gatedeploy.errors import InputError, MissingExtraError
from gatedeploy.training.recipe import Train
from gatedeploy.training.workers import local_rank


def make_fabric(train: Train) -> Any:
    """A `lightning_fabric.Fabric` of one device, as the recipe asks; each of several processes has its own.

    Raises:
        InputError: there is no GPU and the recipe needs one, or lightning-fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise MissingExtraError("training", "lightning_fabric", "train") from None
    has_gpu = torch.cuda.is_available()
    if train.accelerator == "gpu" and not has_gpu:
        raise InputError("train.accelerator: gpu was asked for and PyTorch sees none; take auto or cpu")
    accelerator = "cuda" if has_gpu and train.accelerator != "cpu" else "cpu"
    if train.precision == "16-mixed" and accelerator == "cpu":
        raise InputError("train.precision: 16-mixed needs a GPU; on a CPU take 32-true or bf16-mixed")
    devices = [local_rank()] if accelerator == "cuda" else 1
    return Fabric(accelerator=accelerator, devices=devices, precision=train.precision)
