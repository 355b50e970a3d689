"""What energy the processor has used, where the machine tells: Linux's powercap (Intel's and AMD's RAPL).

The counters are of whole packages: cores, caches, what the machine does when it does nothing, and whatever else runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.benchmarks.timing import Clock

POWERCAP = Path("/sys/class/powercap")
PACKAGE = re.compile(r"(intel|amd)-rapl:\d+")


@dataclass(frozen=True)
class Energy:
    """What requests used, one after the other without a pause.

    Args:
        joules: of a request, the mean.
        watts: of the packages meanwhile.
        requests: how many were made.
    """

    joules: float
    watts: float
    requests: int


def measure_energy(
    request: Callable[[], None], seconds: float, *, clock: Clock = time.perf_counter, home: Path = POWERCAP
) -> Energy | None:
    """Answer requests for some seconds; None where the machine does not tell what they use.

    Args:
        request: answers one.
        seconds: how long; counters step about every millisecond.
        clock: tells the time.
        home: where the system keeps its counters.
    """
    before = _counters(home)
    if not before:
        return None
    start, requests = clock(), 0
    while clock() - start < seconds:
        request()
        requests += 1
    passed, after = clock() - start, _counters(home)
    if after.keys() != before.keys():
        return None
    used = 1e-6 * sum((after[zone] - before[zone]) % (_range(zone) + 1) for zone in before)  # they start again at 0
    return Energy(used / requests, used / passed, requests)


def _counters(home: Path) -> dict[Path, int]:
    """Microjoules by package; empty where there is none that may be read: most systems let nobody but root read it."""
    try:
        zones = [zone for zone in sorted(home.iterdir()) if PACKAGE.fullmatch(zone.name)]
        return {zone: int((zone / "energy_uj").read_text(encoding="ascii")) for zone in zones}
    except (OSError, ValueError):
        return {}


def _range(zone: Path) -> int:
    return int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
