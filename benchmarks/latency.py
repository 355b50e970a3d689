"""How long requests took, and how sure that is.

Candidates are timed in turns (`timing`), which does not help where other processes want the same cores all the time: a
request that fits between two switches of the scheduler is not hurt at all, and a longer one is held up again and again.
So processor time is taken beside the time that passes; where the two differ a measurement says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NOISY_SPREAD = 0.10
"""A relative spread between rounds above which a measurement says so."""

NOISY_DRIFT = 0.10
"""The same for a relative change from the first third of the rounds to the last."""

NOISY_WAIT = 0.10
"""The same for the share of the time in which other processes had the processor."""

BEYOND = 10
"""How many samples have to lie beyond a percentile for it to be told: 100 samples for the 90th, 1000 for the 99th."""

UNSURE = 1.5
"""Where an interval's upper end is so many times its lower one, nothing can be told from the ratio."""

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measurement:
    """The times of one candidate.

    Args:
        candidate: its name.
        samples_ms: the time of every request, round by round.
        cpu_ms: the processor time of the same requests, all threads together.
    """

    candidate: str
    samples_ms: tuple[tuple[float, ...], ...]
    cpu_ms: tuple[tuple[float, ...], ...]

    @property
    def rounds_ms(self) -> npt.NDArray[np.float64]:
        """`(rounds,)`: the median request of each round."""
        return _medians(self.samples_ms)

    @property
    def waiting(self) -> float:
        """The share of the time in which no thread of this process ran: others had the processor."""
        return max(0.0, float(1 - np.concatenate(self.cpu_ms).sum() / np.concatenate(self.samples_ms).sum()))

    @property
    def awake_ms(self) -> npt.NDArray[np.float64]:
        """`(rounds,)`: the median request of each round, without the time in which others had the processor."""
        pairs = zip(self.samples_ms, self.cpu_ms, strict=True)
        return _medians([tuple(map(min, wall, cpu)) for wall, cpu in pairs])

    @property
    def median_ms(self) -> float:
        """The median request of all."""
        return float(np.median(np.concatenate(self.samples_ms)))

    def percentile_ms(self, percent: int) -> float | None:
        """The time that so many requests of a hundred do not exceed; None of too few samples to tell (`BEYOND`)."""
        return percentile(np.concatenate(self.samples_ms), percent)

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds, divided by their median."""
        return relative_spread(self.rounds_ms)

    @property
    def drift(self) -> float:
        """By how much the last third of the rounds is slower than the first, relative to the first."""
        third = max(1, len(self.samples_ms) // 3)
        return float(np.median(self.rounds_ms[-third:]) / np.median(self.rounds_ms[:third]) - 1)

    @property
    def complaint(self) -> str:
        """What makes it doubtful beside `waiting`, in a sentence; empty for a quiet measurement."""
        if self.spread > NOISY_SPREAD:
            return (
                f"{self.candidate}: rounds differ by {self.spread:.0%} (interquartile range over median; "
                f"quiet is up to {NOISY_SPREAD:.0%})."
            )
        if abs(self.drift) > NOISY_DRIFT:
            return (
                f"{self.candidate}: became {abs(self.drift):.0%} {'slower' if self.drift > 0 else 'faster'} while it "
                f"was measured (quiet is up to {NOISY_DRIFT:.0%})."
            )
        return ""


@dataclass(frozen=True)
class Ratio:
    """One candidate's latency divided by the baseline's.

    Args:
        value: the median over rounds of the ratio within the round.
        low: the lower end of its 95 % bootstrap interval; see also `Latency.ratio_of`.
        high: the upper end.
    """

    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether it says anything; False where the machine was too noisy."""
        return self.high < UNSURE * self.low


@dataclass(frozen=True)
class Latency:
    """What was measured in one go.

    Args:
        measurements: one per candidate, in their order.
        baseline: the candidate that all are compared with.
        seed: of the order of turns and of the bootstrap.
    """

    measurements: tuple[Measurement, ...]
    baseline: str
    seed: int

    def has(self, candidate: str) -> bool:
        """Whether a candidate was measured."""
        return any(each.candidate == candidate for each in self.measurements)

    def of(self, candidate: str) -> Measurement:
        """The measurement of a candidate."""
        return next(each for each in self.measurements if each.candidate == candidate)

    def ratios(self, candidate: str, baseline: str | None = None) -> npt.NDArray[np.float64]:
        """`(rounds,)`: a candidate's latency over another's (the baseline's when None), round against round."""
        ratios: npt.NDArray[np.float64] = self.of(candidate).rounds_ms / self.of(baseline or self.baseline).rounds_ms
        return ratios

    def ratio(self, candidate: str, baseline: str | None = None) -> Ratio:
        """The median of `ratios`, and how sure it is."""
        return self.ratio_of([candidate], [baseline or self.baseline])

    def ratio_of(self, candidates: Sequence[str], baselines: Sequence[str]) -> Ratio:
        """The mean of some candidates over that of others within a round; of all rounds the median, and how sure it is.

        Where other processes had the processor, a short request fits between their turns and a long one does not, which
        no number of rounds mends: there the interval reaches to what the ratio is without the time that they had.
        """
        ours, theirs = [self.of(name) for name in candidates], [self.of(name) for name in baselines]
        passed = _mean([each.rounds_ms for each in ours]) / _mean([each.rounds_ms for each in theirs])
        own, other = _mean([each.awake_ms for each in ours]), _mean([each.awake_ms for each in theirs])
        known = own.all() and other.all()  # else the clock of processor time is too coarse
        return self._reaching(ours + theirs, passed, own / other if known else passed)

    def milliseconds(self, candidate: str) -> Ratio:
        """The median request of a candidate, of all rounds the median; how sure it is as in `ratio_of`."""
        one = self.of(candidate)
        return self._reaching([one], one.rounds_ms, one.awake_ms if one.awake_ms.all() else one.rounds_ms)

    def _reaching(
        self, of: Sequence[Measurement], passed: npt.NDArray[np.float64], awake: npt.NDArray[np.float64]
    ) -> Ratio:
        """What is sure of `(rounds,)` numbers, `passed`; up to those without others' time where others had much."""
        found = self.sure(passed)
        if max(each.waiting for each in of) <= NOISY_WAIT:
            return found
        without = float(np.median(awake))
        return Ratio(found.value, min(found.low, without), max(found.high, without))

    def cpu_ratio(self, candidate: str) -> Ratio | None:
        """A candidate's processor time over the baseline's; None where the system's clock for it is too coarse."""
        ours, theirs = _medians(self.of(candidate).cpu_ms), _medians(self.of(self.baseline).cpu_ms)
        return self.sure(ours / theirs) if ours.min() > 0 and theirs.min() > 0 else None

    def sure(self, paired: npt.NDArray[np.float64]) -> Ratio:
        """The median of `(rounds,)` numbers, with its bootstrap interval."""
        drawn = np.random.default_rng(self.seed).integers(len(paired), size=(RESAMPLES, len(paired)))
        tails = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
        low, high = np.percentile(np.median(paired[drawn], axis=1), tails)
        return Ratio(float(np.median(paired)), float(low), float(high))

    @property
    def complaints(self) -> list[str]:
        """What makes the measurement doubtful, in sentences; empty when it was quiet."""
        said = [each.complaint for each in self.measurements if each.complaint]
        waiting = max(each.waiting for each in self.measurements)
        if waiting > NOISY_WAIT:
            said.insert(
                0,
                f"Other processes had the processor for up to {waiting:.0%} of the time (quiet is up to "
                f"{NOISY_WAIT:.0%}), which hurts long requests more than short ones.",
            )
        return said


def percentile(samples: npt.NDArray[np.float64], percent: int) -> float | None:
    """What so many samples of a hundred do not exceed; None where fewer than `BEYOND` lie beyond it."""
    enough = len(samples) * (100 - percent) >= 100 * BEYOND
    return float(np.percentile(samples, percent)) if enough else None


def relative_spread(rounds: npt.NDArray[np.float64]) -> float:
    """The interquartile range of what was measured round by round, divided by its median."""
    low, middle, high = np.percentile(rounds, (25, 50, 75))
    return float((high - low) / middle)


def _mean(rounds: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """`(rounds,)`: the mean of several candidates."""
    mean: npt.NDArray[np.float64] = np.mean(np.stack(rounds), axis=0)
    return mean


def _medians(turns: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    return np.array([np.median(turn) for turn in turns])
