"""Counters as Linux has them, in a folder made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatedeploy.benchmarks.energy import measure_energy
from tests.benchmarks.tiny import Clock

RANGE = 1_000_000_000


class Machine:
    """Two packages of 10 W each, one of whose parts has a counter of its own, and requests of 50 ms."""

    def __init__(self, home: Path, start: int) -> None:
        self.clock, self.home, self.start = Clock(), home, start
        for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl"):
            (home / name).mkdir(parents=True)
            (home / name / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.write()

    def write(self) -> None:
        for zone in self.home.iterdir():
            used = self.start + round(10e6 * self.clock.now)
            (zone / "energy_uj").write_text(f"{used % (RANGE + 1)}\n")

    def request(self) -> None:
        self.clock.now += 0.05
        self.write()


@pytest.mark.parametrize("start", [123, RANGE - 1_000_000], ids=["", "counters start again at 0"])
def test_joules_of_a_request(start: int, tmp_path: Path) -> None:
    machine = Machine(tmp_path, start)
    found = measure_energy(machine.request, 1.0, clock=machine.clock, home=tmp_path)
    assert found is not None
    assert found.requests in (20, 21)  # 0.05 is no binary number
    assert found.watts == pytest.approx(20)
    assert found.joules == pytest.approx(1.0)


def test_where_the_machine_does_not_tell(tmp_path: Path) -> None:
    def request() -> None:
        raise AssertionError("nothing should be run")

    assert measure_energy(request, 1.0, home=tmp_path / "nowhere") is None
    assert measure_energy(request, 1.0, home=tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert measure_energy(request, 1.0, home=tmp_path) is None  # no counter, or none that may be read
