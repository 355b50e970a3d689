"""Plain networks in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import nn

from gatedeploy.errors import GatedeployError, InputError
from gatedeploy.program import flat_predictions
from gatedeploy.runners.base import (
    BATCH,
    Array,
    Runner,
    TensorSpec,
    check_feed,
    picture_of,
    still_open,
)
from gatedeploy.runners.torch_process import TorchThreads, tensor_of
from gatedeploy.specs import InputSpec


@final
class TorchRunner(Runner):
    """Any plain network in PyTorch, on the device where its weights are.

    Args:
        network: takes one picture and returns a dict of predictions; is put into evaluation mode.
        input: the picture.
        threads: how many threads PyTorch may use in this process until `close`; None leaves it as it is.
        name: what reports call it.

    Raises:
        InputError: the network does not return a dict of tensors.
        GatedeployError: it does not run on such a picture.
    """

    def __init__(self, network: nn.Module, input: InputSpec, threads: int | None = None, name: str = "torch") -> None:
        self.name, self.threads, self._torch_threads = name, threads, TorchThreads(threads)
        self._network: nn.Module | None = network.eval()
        weights = [*network.parameters(), *network.buffers()]
        self._device = weights[0].device if weights else torch.device("cpu")
        dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)
        self.inputs = (picture_of(input, str(dtype).removeprefix("torch.")),)
        try:
            self.outputs = self._describe(torch.zeros(2, *input.shape, dtype=dtype, device=self._device))
        except GatedeployError:
            self.close()
            raise

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        image = tensor_of(feed[self.inputs[0].name])
        return {name: tensor.cpu().numpy() for name, tensor in self._predict(image.to(self._device)).items()}

    def close(self) -> None:
        """See `Runner`."""
        self._torch_threads.give_back()
        self._network = None

    def _predict(self, image: torch.Tensor) -> dict[str, Any]:
        network = still_open(self._network, self.name)
        self._torch_threads.take()
        try:
            with torch.inference_mode():
                return flat_predictions(network(image))
        except RuntimeError as error:
            raise GatedeployError(f"{self.name} failed on pictures {tuple(image.shape)}: {error}") from error

    def _describe(self, image: torch.Tensor) -> tuple[TensorSpec, ...]:
        specs = []
        for name, tensor in self._predict(image).items():
            if not isinstance(tensor, torch.Tensor):
                raise InputError(f"prediction {name!r} is a {type(tensor).__name__}; expected a tensor")
            sizes = (BATCH if not axis and size == len(image) else size for axis, size in enumerate(tensor.shape))
            specs.append(TensorSpec(name, tuple(sizes), str(tensor.dtype).removeprefix("torch.")))
        return tuple(specs)
