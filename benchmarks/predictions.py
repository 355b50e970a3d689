"""What a network predicts for a few pictures, beside their labels, as pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatedeploy.errors import InputError, first_line
from gatedeploy.judging import data_for, recipe_of
from gatedeploy.runners.base import Array
from gatedeploy.specs import IGNORED_CLASS, InputSpec, Task

COUNT = 3
"""Pictures that are shown, spread over the validation split."""

Colours = npt.NDArray[np.float64]
"""`(height, width, 3)` in [0, 1]."""

PALETTES = ("tab20", "tab20b", "tab20c")
"""One after another: from the 61st class on colours come again."""

HEAT = "viridis"


@dataclass(frozen=True)
class Shown:
    """A task's answer for one picture.

    Args:
        task: its name.
        label: what is right, as a PNG file or in words.
        predicted: what the network says, likewise.
    """

    task: str
    label: bytes | str
    predicted: bytes | str


@dataclass(frozen=True)
class Example:
    """A picture, as a PNG file, and what is said of it."""

    picture: bytes
    shown: tuple[Shown, ...]


def examples(
    recipe: Mapping[str, object],
    file: str,
    data: str | None,
    tasks: Sequence[Task],
    input: InputSpec,
    predict: Callable[[Array], Mapping[str, Array]],
) -> tuple[list[Example], str]:
    """Pictures of the recipe's validation split with labels and predictions; none and the reason where there are none.

    Args:
        recipe: as the network's file has it.
        file: that file, for messages.
        data: another recipe, whose pictures are taken instead.
        tasks: what is predicted.
        input: the picture that the network takes.
        predict: `(1, channels, height, width)` to arrays by task.
    """
    known = [task for task in tasks if task.kind is not None]
    try:
        found, source = recipe_of(recipe, data, file)
        split = data_for(found, source, known, input).val
        places = np.linspace(0, len(split) - 1, min(COUNT, len(split))).round().astype(int).tolist()
        images, labels = split.batch(places)
    except (InputError, OSError) as error:
        return [], first_line(error)
    made = []
    for number in range(len(places)):
        answers = predict(images[number : number + 1].numpy())
        shown = [shown_of(task, labels[task.name][number], torch.from_numpy(answers[task.name][0])) for task in known]
        made.append(Example(png(picture_of(images[number], input)), tuple(shown)))
    return made, ""


def shown_of(task: Task, label: Tensor, predicted: Tensor) -> Shown:
    """A label and a prediction of one picture, alike in colours.

    Args:
        task: says what they are.
        label: as the data set has it; see `gatedeploy.training.losses`.
        predicted: as the network makes it.
    """
    if task.kind == "classification":
        return Shown(task.name, task.classes[int(label)], task.classes[int(predicted.argmax())])
    if task.kind == "segmentation":
        return Shown(task.name, png(classes(label)), png(classes(predicted.argmax(0))))
    if task.kind == "normals":
        right, found = label.double(), torch.nn.functional.normalize(predicted.double(), dim=0)
        return Shown(task.name, png(directions(right)), png(directions(found)))
    if task.kind == "depth":
        right, found = label[0].double(), predicted[0].double()
        valid = right[~right.isnan()]
        low, high = (float(valid.min()), float(valid.max())) if len(valid) else (0.0, 1.0)
        return Shown(task.name, png(heat(right, low, high)), png(heat(found, low, high)))
    right = label.double().where(label != IGNORED_CLASS, torch.nan).reshape(label.shape[-2:])
    return Shown(task.name, png(heat(right, 0, 1)), png(heat(predicted[0].double().sigmoid(), 0, 1)))


def picture_of(image: Tensor, input: InputSpec) -> Colours:
    """A picture as it was before it was normalised; of other than three channels the first alone, in grey."""
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in input.moments)
    pixels = (image.double() * std + mean).clamp(0, 1)
    return (pixels if len(pixels) == 3 else pixels[:1].expand(3, -1, -1)).permute(1, 2, 0).numpy()


def class_colours(task: Task) -> dict[str, str]:
    """In which colour each class of a segmentation task is drawn, as `#rrggbb`; of other tasks none."""
    from matplotlib.colors import to_hex

    colours = _palette()
    shown = task.classes if task.kind == "segmentation" else ()
    return {name: to_hex(colours[number % len(colours)]) for number, name in enumerate(shown)}


def classes(label: Tensor) -> Colours:
    """`(height, width)` numbers of classes in the palettes' colours; those to ignore in white."""
    palette = _palette()
    colours: Colours = palette[label.numpy() % len(palette)]
    colours[label.numpy() == IGNORED_CLASS] = 1
    return colours


def _palette() -> Colours:
    from matplotlib import colormaps

    return np.concatenate([np.array(colormaps[name].colors) for name in PALETTES])  # type: ignore[attr-defined]


def directions(normals: Tensor) -> Colours:
    """`(3, height, width)` unit vectors, each component of [-1, 1] a colour; where there is none, white."""
    colours: Colours = ((normals + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    colours[(normals == 0).all(0).numpy()] = 1
    return colours


def heat(values: Tensor, low: float, high: float) -> Colours:
    """`(height, width)` values from dark to bright between two of them; NaN in white."""
    from matplotlib import colormaps

    scaled = ((values - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
    colours: Colours = colormaps[HEAT](np.nan_to_num(scaled))[..., :3]
    colours[np.isnan(scaled)] = 1
    return colours


def png(colours: Colours) -> bytes:
    """A PNG file."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colours), format="png", metadata={"Software": ""})
    return file.getvalue()
