"""How a benchmark is asked to measure."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gatedeploy.benchmarks.environment import cores
from gatedeploy.benchmarks.runners import RUNTIME, RUNTIMES
from gatedeploy.benchmarks.scenarios import Effort
from gatedeploy.errors import InputError, MissingExtraError, check_known, located
from gatedeploy.training.recipe_file import load_recipe


@dataclass(frozen=True)
class BenchOptions:
    """How networks are measured.

    Args:
        quick: measure latencies for seconds rather than minutes.
        threads: how many threads compute one request.
        runtime: what runs exported networks, of `RUNTIMES`.
        compiled: whether the gated network is measured in `torch.compile`, too.
        effort: how much to measure; decided by `quick` when None.
        data: a recipe whose pictures are shown with what is predicted for them; the network's own when None.
        against: the `report.json` of an earlier benchmark, to tell what got slower.
    """

    quick: bool = False
    threads: int = 1
    runtime: str = RUNTIME
    compiled: bool = False
    effort: Effort | None = None
    data: str | None = None
    against: Path | None = None

    def check(self) -> None:
        """Raise `InputError` for what cannot be measured, `MissingExtraError` where the runtime is not installed."""
        check_known("the runtime", self.runtime, RUNTIMES)
        if find_spec(self.runtime) is None:
            raise MissingExtraError(f"measuring in {self.runtime}", self.runtime, RUNTIMES[self.runtime])
        if not 1 <= self.threads <= cores():
            expected = f"expected 1 to {cores()}, the cores this process may use"
            raise InputError(f"threads: {self.threads} for one request; {expected}")
        if self.data is not None:  # before minutes are spent
            with located("--data"):
                load_recipe(self.data)

    @property
    def words(self) -> list[str]:
        """As they are typed."""
        words = ["--quick"] if self.quick else []
        words += ["--threads", str(self.threads)] if self.threads != 1 else []
        words += ["--runtime", self.runtime] if self.runtime != RUNTIME else []
        words += ["--compile"] if self.compiled else []
        words += ["--data", self.data] if self.data else []
        return words + (["--against", str(self.against)] if self.against else [])
