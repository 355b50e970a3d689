"""Try a backbone out on tensors without data: what could not be collapsed is refused before it is trained."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gatedeploy.errors import InputError, first_line
from gatedeploy.program import IMAGE, flat_predictions
from gatedeploy.randomness import draws
from gatedeploy.shapes import silent

LIBRARIES = (torch.__path__[0], str(Path(__file__).parents[1]))


def try_out(backbone: nn.Module, tasks: Sequence[str], heads: Mapping[str, nn.Module], example_input: Tensor) -> None:
    """Run `backbone` and its heads as for prediction, with two sizes of the batch; nothing is computed or changed.

    Args:
        backbone: takes a picture.
        tasks: their names.
        heads: by task; each reads what the backbone returns. Without heads its features are the predictions.
        example_input: (batch, channels, height, width).

    Raises:
        InputError: the example or a head does not fit; something but a tensor is predicted; two predictions would have
            one name; or what is computed depends on what the picture shows, on chance, or on the other pictures of the
            batch and their number.
    """
    name = f"the backbone {type(backbone).__name__}"
    _refuse_forms(backbone, name)
    _refuse_further_inputs(backbone, name)
    try:
        trunk, heads = copy.deepcopy((backbone, dict(heads)))
    except Exception as error:  # whatever the user's own attributes say to it
        raise InputError(
            f"{name} or a head cannot be copied, and each branch is a copy: {first_line(error)}"
        ) from error
    for part in (trunk, *heads.values()):
        _refuse_batch_statistics(part)
        part.eval()
    for batch in (len(example_input), len(example_input) + 1):
        picture = example_input[:1].expand(batch, *example_input.shape[1:])
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            with _told(name, f"an input of shape {tuple(picture.shape)}"):
                features = trunk(mode.from_tensor(picture))
            if not heads:
                _check(name, features, batch)
            predictions = dict.fromkeys(tasks, features)
            for task, head in heads.items():
                with _told(f"the head of {task!r}", f"what the backbone returns, {described(features)}"):
                    predictions[task] = head(features)
                _check(f"the head of {task!r}", predictions[task], batch)
            if IMAGE in flat_predictions(predictions):
                raise InputError(f"the picture and a prediction would both be called {IMAGE!r}; rename the task")


def place_of(error: BaseException) -> str:
    """(file:line, in function) of the user's code that an error comes from; "" where no such code is."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(LIBRARIES)]
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def described(structure: Any) -> str:
    """The shapes of the tensors in it, for people."""
    shapes = [
        str(tuple(leaf.shape)) if isinstance(leaf, Tensor) else repr(leaf) for leaf in pytree.tree_leaves(structure)
    ]
    return " and ".join(shapes) or repr(structure)


class _RandomError(Exception):
    """An operator draws random numbers."""


class _Deterministic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        given = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
        given.update(zip([argument.name for argument in arguments], args, strict=False), **kwargs)
        if draws(func, given):
            raise _RandomError(str(func))
        return func(*args, **kwargs)


@contextmanager
def _told(who: str, given: str) -> Iterator[None]:
    """Say of what goes wrong inside who did it, where, and what to do."""
    try:
        with silent(), _Deterministic():  # type: ignore[no-untyped-call]
            yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise InputError(
            f"what {who} computes depends on what the picture shows{place_of(error)}: {error.func}; only networks that "
            "call the same operators for every picture can be collapsed. Choose between values with torch.where"
        ) from error
    except _RandomError as error:
        raise InputError(
            f"{who} draws random numbers when it predicts{place_of(error)}: {error}; only deterministic networks can "
            "be collapsed. Draw in training mode alone"
        ) from error
    except Exception as error:  # the user's own code runs here
        raise InputError(f"{who} does not take {given}{place_of(error)}: {first_line(error)}") from error


def _check(who: str, prediction: Any, batch: int) -> None:
    leaves = pytree.tree_leaves(prediction)
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise InputError(f"{who} returns {described(prediction)}; a task's output must consist of tensors")
    for leaf in leaves:
        if not leaf.is_floating_point():
            raise InputError(
                f"{who} returns a tensor of {str(leaf.dtype).removeprefix('torch.')}, which has no gradient; return "
                "scores, and leave what follows them, such as an argmax, to whoever runs the network"
            )
        if leaf.ndim == 0 or leaf.shape[0] != batch:
            raise InputError(
                f"{who} returns a tensor of shape {tuple(leaf.shape)} for {batch} pictures; a task's output must have "
                "an entry for each picture of the batch, whatever its size"
            )


def _refuse_forms(backbone: nn.Module, name: str) -> None:
    if isinstance(backbone, torch.jit.ScriptModule):
        raise InputError(f"{name} is TorchScript, which cannot be gated; give the module that it was made from")
    for path, parameter in backbone.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise InputError(
                f"{name}: {path!r} has no size yet, since its layer is lazy; run a picture through it first"
            )


def _refuse_further_inputs(backbone: nn.Module, name: str) -> None:
    """Parameters of `forward` other than the first take their defaults."""
    for parameter in list(inspect.signature(backbone.forward).parameters.values())[1:]:
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.default is parameter.empty:
            raise InputError(f"{name} needs a second input {parameter.name!r}; one is supported, the picture")


def _refuse_batch_statistics(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise InputError(
                f"batch norm {name!r} has no running statistics (track_running_stats=False), so what it predicts for a "
                "picture depends on the rest of the batch; such a network cannot be collapsed"
            )
