"""ExecuTorch programs: networks for phones and small boards, run here by the same runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from gatedeploy.errors import GatedeployError, InputError, MissingExtraError, first_line, located
from gatedeploy.modes import mute, quiet
from gatedeploy.runners.base import Array, Runner, TensorSpec, check_batch, check_feed, still_open
from gatedeploy.runners.torch_process import tensor_of


@final
class ExecutorchRunner(Runner):
    """An ExecuTorch program (`.pte`) on the CPU; its threads are the library's own choice.

    Args:
        path: the program.
        inputs: the picture it takes.
        outputs: what it returns, in order; a program does not name them.
        batches: the smallest and the largest batch size it takes.

    Raises:
        MissingExtraError: executorch is not installed.
        InputError: no such file, or no program that the installed library can load.
    """

    def __init__(
        self,
        path: Path | str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        batches: tuple[int, int],
        *,
        name: str = "executorch",
    ) -> None:
        self.name, self.threads, self._batches = name, None, batches
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        with located(str(path)):
            self._method: Any = _loaded(Path(path))

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """See `Runner`."""
        check_feed(feed, self.inputs)
        check_batch(feed, self.inputs[0], self._batches)
        method = still_open(self._method, self.name)
        try:
            found = method.execute([tensor_of(feed[self.inputs[0].name])])
        except RuntimeError as error:
            raise GatedeployError(f"{self.name} failed: {first_line(error)}") from error
        # The program's outputs lie in memory that its next request writes to.
        return {spec.name: tensor.numpy().copy() for spec, tensor in zip(self.outputs, found, strict=True)}

    def close(self) -> None:
        """See `Runner`."""
        self._method = None


def _loaded(path: Path) -> Any:
    try:
        with quiet():  # its libraries tell of parts of theirs that are for GPUs
            from executorch.runtime import Runtime
    except ImportError:
        raise MissingExtraError("running an ExecuTorch program", "executorch", "executorch") from None
    if not path.is_file():
        raise InputError("no such file; expected an ExecuTorch program")
    try:
        with mute():  # it tells of files that only telephones have
            return Runtime.get().load_program(path).load_method("forward")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"executorch cannot load it ({first_line(error)}); export it again") from error
