"""Does a collapsed network answer as the gated one does?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gatedeploy.errors import CheckError
from gatedeploy.parity import Parity, compare
from gatedeploy.program import Program, evaluate

Question = tuple[Tensor, dict[str, Any]]
"""A picture, and what the gated network predicts for it."""


def questions(program: Program, example_input: Tensor | None) -> list[Question]:
    """What the collapsed network must answer alike: the example, else seeded noise, and two pictures of noise.

    What is undefined (NaN) can be compared with nothing. So each has a substitute without numbers below 0, for networks
    that are undefined there.

    Raises:
        CheckError: a prediction is undefined for every picture.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *program.input.shape, generator=generator)
    tame = torch.rand(3, *program.input.shape, generator=generator)
    example = noise[:1] if example_input is None else example_input[:1].detach().cpu().float()
    return [_defined(program, [example, noise[:1], tame[:1]]), _defined(program, [noise[1:], tame[1:]])]


def _defined(program: Program, pictures: Sequence[Tensor]) -> Question:
    """The first of `pictures` for which every prediction is a number, and what is predicted for it."""
    for picture in pictures:
        predictions = evaluate(program, picture)
        undefined = [task for task in predictions if _has_nan(predictions[task])]
        if not undefined:
            return picture, predictions
    raise CheckError(
        f"prediction {undefined[0]!r} is not a number (NaN) for any picture of noise, so nothing can be compared; look "
        "at what the network computes there, such as the root of a negative number, and at its training"
    )


def _has_nan(prediction: Any) -> bool:
    return any(bool(torch.as_tensor(leaf).isnan().any()) for leaf in pytree.tree_leaves(prediction))


def worst_parity(run: Callable[[Tensor], dict[str, Any]], asked: Sequence[Question], tolerance: float) -> Parity:
    """How far off answers are at worst.

    Args:
        run: the collapsed network.
        asked: pictures, and what the gated network predicts for them.
        tolerance: as for `compare`.

    Raises:
        CheckError: they differ by more.
    """
    with torch.no_grad():
        found = [compare(expected, run(picture), tolerance) for picture, expected in asked]
    for parity in found:
        parity.check("the collapsed network")
    return Parity({task: max(parity.error[task] for parity in found) for task in found[0].error}, tolerance)
