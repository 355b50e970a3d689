"""Pretrained weights from a local file, which is never trusted to be more than tensors."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gatedeploy.errors import InputError, first_line, located

SHOWN = 3
"""How many names a report tells of each kind."""

LAYER = r"encoder\.layers\.encoder_layer_(\d+)\."
TORCHVISION = {
    r"class_token": "cls_token",
    r"conv_proj\.": "patch_embed.proj.",
    r"encoder\.pos_embedding": "pos_embed",
    LAYER + r"ln_([12])\.": r"blocks.\1.norm\2.",
    LAYER + r"self_attention\.in_proj_": r"blocks.\1.attn.qkv.",
    LAYER + r"self_attention\.out_proj\.": r"blocks.\1.attn.proj.",
    LAYER + r"mlp\.(?:0|linear_1)\.": r"blocks.\1.mlp.fc1.",
    LAYER + r"mlp\.(?:3|linear_2)\.": r"blocks.\1.mlp.fc2.",
    r"encoder\.ln\.": "norm.",
}
"""What torchvision calls the parts of a vision transformer, and what timm and we do; its ResNets have our names."""

CLASSIFIERS = ("fc.", "head.", "heads.head.", "classifier.")
"""What a trunk does without."""


@dataclass(frozen=True)
class WeightsReport:
    """What became of the entries of a file of weights; keys in the order of the module or the file.

    Attributes:
        matched: keys that were loaded.
        resized: those of them that were brought to the shape of the module, such as positions of another picture size.
        missed: keys of the module that the file lacks; they keep their values.
        reshaped: keys that both have in different shapes; they keep their values.
        unused: keys of the file that the module lacks.
    """

    matched: tuple[str, ...]
    resized: tuple[str, ...]
    missed: tuple[str, ...]
    reshaped: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for people, with the names of what did not match."""
        all_of = len(self.matched) + len(self.missed) + len(self.reshaped)
        told = [f"{len(self.matched)} of {all_of} tensors loaded"]
        for what, keys in (
            ("resized", self.resized),
            ("not in the file", self.missed),
            ("of another shape", self.reshaped),
            ("unused", self.unused),
        ):
            if keys:
                others = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                told.append(f"{what}: {', '.join(keys[:SHOWN])}{others}")
        return "; ".join(told)


def load_weights(module: nn.Module, path: str | Path, where: str = "") -> WeightsReport:
    """Fill `module` with the tensors of a file, by name.

    Reads `.safetensors`, and anything else as a PyTorch file with `weights_only=True`. Of a PyTorch file, an entry
    `state_dict` or `model` is taken if there is one. The prefix `module.` of data-parallel training is stripped,
    names that torchvision gives are read as timm's, and a classifier is dropped. A module that can bring a tensor of
    another shape to its own has a method `fitted(key, tensor)`.

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
        fitted = {key: _fitted(module, key, value) if key in own else value for key, value in tensors.items()}
        fitting = {key: value for key, value in fitted.items() if key in own and value.shape == own[key].shape}
        if not fitting:
            raise InputError(_nothing_fits(tensors, own))
        try:
            module.load_state_dict(fitting, strict=False)
        except RuntimeError as error:
            raise InputError(f"the tensors cannot be copied: {first_line(error)}") from None
    return WeightsReport(
        matched=tuple(key for key in own if key in fitting),
        resized=tuple(key for key in own if key in fitting and tensors[key].shape != own[key].shape),
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
    return {_renamed(key): value for key, value in tensors.items() if not key.startswith(CLASSIFIERS)}


def _renamed(key: str) -> str:
    for theirs, ours in TORCHVISION.items():
        if re.match(theirs, key):
            return re.sub(theirs, ours, key, count=1)
    return key


def _fitted(module: nn.Module, key: str, value: Tensor) -> Tensor:
    fit: Callable[[str, Tensor], Tensor] | None = getattr(module, "fitted", None)
    return value if fit is None else fit(key, value)


def _nothing_fits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    there = ", ".join(list(tensors)[:3]) or "nothing"
    for key, value in tensors.items():
        if key in own:
            return f"no tensor fits: {key} has shape {tuple(value.shape)} and the module's {tuple(own[key].shape)}"
    return f"no tensor fits: the file's names begin with {there}; the module's with {', '.join(list(own)[:3])}"
