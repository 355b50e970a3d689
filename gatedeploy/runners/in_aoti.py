"""AOTInductor packages: networks that PyTorch compiled to machine code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch

from gatedeploy.errors import GatedeployError, InputError, first_line, located
from gatedeploy.modes import quiet
from gatedeploy.runners.base import Array, Runner, TensorSpec, check_batch, check_feed, still_open
from gatedeploy.runners.torch_process import TorchThreads, tensor_of


@final
class AotiRunner(Runner):
    """An AOTInductor package (`.pt2`) on the CPU. It is machine code: whoever made it runs it.

    Args:
        path: the package.
        inputs: the picture it takes; a package does not say.
        outputs: what it returns, in order.
        batches: the smallest and the largest batch size it takes; it would accept others without a word.
        threads: how many threads PyTorch may use in this process until `close`; None leaves it as it is.

    Raises:
        InputError: no such file, or no package that the installed PyTorch can load.
    """

    def __init__(
        self,
        path: Path | str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        batches: tuple[int, int],
        *,
        threads: int | None = None,
        name: str = "aoti",
    ) -> None:
        self.name, self.threads, self._torch_threads = name, threads, TorchThreads(threads)
        self._batches = batches
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        with located(str(path)):
            self._package: Any = _loaded(Path(path))

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        check_batch(feed, self.inputs[0], self._batches)
        package = still_open(self._package, self.name)
        self._torch_threads.take()
        try:
            with torch.inference_mode():
                found = package(tensor_of(feed[self.inputs[0].name]))
        except RuntimeError as error:
            raise GatedeployError(f"{self.name} failed: {first_line(error)}") from error
        return {spec.name: tensor.numpy() for spec, tensor in zip(self.outputs, found, strict=True)}

    def close(self) -> None:
        """See `Runner`."""
        self._torch_threads.give_back()
        self._package = None


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise InputError("no such file; expected an AOTInductor package")
    try:
        with quiet():
            return torch._inductor.aoti_load_package(str(path))
    except Exception as error:  # the loader raises whatever opening an archive and a library raises
        told = f"PyTorch {torch.__version__} cannot load it ({first_line(error)})"
        raise InputError(f"{told}; export it again with this PyTorch, on this kind of machine") from error
