"""How many threads PyTorch computes with: a number that belongs to the process, not to a network."""

from __future__ import annotations

import torch

from gatedeploy.runners.base import check_threads


class TorchThreads:
    """A number of threads for as long as a runner is open; None leaves the process as it is."""

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
