"""How much memory a process holds."""

from __future__ import annotations

import threading
from pathlib import Path

STATUS = Path("/proc/self/statm")
INTERVAL_S = 0.005


class PeakMemory:
    """The largest resident size of this process while the block runs, sampled every few milliseconds.

    Attributes:
        before: bytes when it began; None where the system does not tell.
        peak: bytes at most; likewise.
    """

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self.before is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            self._stop.set()
            self._thread.join()
            self._look()

    @property
    def more(self) -> int | None:
        """Bytes at the peak, beyond those when it began."""
        return None if self.before is None or self.peak is None else self.peak - self.before

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak or 0, resident() or 0)


def resident() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    try:
        import resource

        return int(STATUS.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return None
