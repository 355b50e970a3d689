"""Pretrained weights from a local file, which is never trusted to be more than tensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gatedeploy.errors import InputError, first_line, located


@dataclass(frozen=True)
class WeightsReport:
    """What became of the entries of a file of weights; keys in the order of the module or the file.

    Attributes:
        matched: keys that were loaded.
        missed: keys of the module that the file lacks; they keep their values.
        reshaped: keys that both have in different shapes; they keep their values.
        unused: keys of the file that the module lacks.
    """

    matched: tuple[str, ...]
    missed: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]


def load_weights(module: nn.Module, path: str | Path, where: str = "") -> WeightsReport:
    """Fill `module` with the tensors of a file, by name.

    Reads `.safetensors`, and anything else as a PyTorch file with `weights_only=True`. Of a PyTorch file, an entry
    `state_dict` or `model` is taken if there is one. The prefix `module.` of data-parallel training is stripped and
    a classifier's `fc.…` dropped.

    Args:
        module: is changed in place; its own dtype and device are kept.
        path: of the file.
        where: who names the file, e.g. "init.shared"; comes first in every message.

    Raises:
        InputError: the file cannot be read, holds more than tensors, or has no tensor that fits.
    """
    path = Path(path)
    with located(f"{where}: {path}" if where else str(path)):
        tensors = _cleaned(_read(path))
        own = module.state_dict()
        fitting = {key: value for key, value in tensors.items() if key in own and value.shape == own[key].shape}
        if not fitting:
            raise InputError(_nothing_fits(tensors, own))
        try:
            module.load_state_dict(fitting, strict=False)
        except RuntimeError as error:
            raise InputError(f"the tensors cannot be copied: {first_line(error)}") from None
    return WeightsReport(
        matched=tuple(key for key in own if key in fitting),
        missed=tuple(key for key in own if key not in tensors),
        reshaped=tuple(key for key in own if key in tensors and key not in fitting),
        unused=tuple(key for key in tensors if key not in own),
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputError("there is no such file of weights")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"not a readable safetensors file: {first_line(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise nearly anything: EOFError, KeyError, UnpicklingError, …
        foreign = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign:
            raise InputError(
                f"holds {foreign[1]}, which is no tensor or plain container and could run code, so it was not loaded; "
                "load the file where you trust it and save its state_dict() alone"
            ) from None
        raise InputError("not a readable PyTorch file: damaged, cut short or of another kind") from None


def _cleaned(content: Any) -> dict[str, Tensor]:
    """The tensors of a file under the names a trunk would give them."""
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise InputError(f"holds no tensors by name but a {type(content).__name__}; expected a state_dict")
    tensors = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    return {key: value for key, value in tensors.items() if not key.startswith("fc.")}


def _nothing_fits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    there = ", ".join(list(tensors)[:3]) or "nothing"
    for key, value in tensors.items():
        if key in own:
            return f"no tensor fits: {key} has shape {tuple(value.shape)} and the module's {tuple(own[key].shape)}"
    return f"no tensor fits: the file's names begin with {there}; the module's with {', '.join(list(own)[:3])}"
