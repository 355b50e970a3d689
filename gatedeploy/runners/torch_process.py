"""What runners that compute with PyTorch have in common."""

from __future__ import annotations

import numpy as np
import torch

from gatedeploy.runners.base import Array, check_threads


def tensor_of(array: Array) -> torch.Tensor:
    """The array as a tensor, copied only where it is not contiguous or may not be written to."""
    contiguous = np.ascontiguousarray(array)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())


class TorchThreads:
    """A number of threads for as long as a runner is open; None leaves the process as it is.

    PyTorch has one number for the whole process, not one for each network.
    """

    def __init__(self, threads: int | None) -> None:
        check_threads(threads)
        self._threads = threads
        self._before: int | None = torch.get_num_threads()

    def take(self) -> None:
        """Before each request, for another runner may have changed the number."""
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)

    def give_back(self) -> None:
        """Once, when the runner is closed."""
        if self._threads is not None and self._before is not None:
            torch.set_num_threads(self._before)
        self._before = None
