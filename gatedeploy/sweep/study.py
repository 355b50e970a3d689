"""The study: every training of a sweep once, whoever does it, on Optuna.

Several workers share one study and one folder. Two kinds of lock keep them apart (`gatedeploy.sweep.locks`):

* `locks/study` is held by whoever reads or changes the study, for moments.
* `locks/<number>` is held by whoever trains that trial, from before the study calls it running until it calls it done.

So a trial that the study calls running and whose lock is free is one whose worker has vanished, and whoever holds the
study's lock may take it over; and no trial is ever trained by two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatedeploy.errors import InputError
from gatedeploy.files import check_writable
from gatedeploy.sweep.grid import SEED, Point, Value
from gatedeploy.sweep.locks import Lock, hold, try_to_hold
from gatedeploy.sweep.plan import Plan, check_points
from gatedeploy.sweep.records import Found, Measured, Rivals, Trial
from gatedeploy.sweep.storage import IDENTITY, known_storage, opened, reached
from gatedeploy.training.snapshots import first_difference

if TYPE_CHECKING:  # Optuna is optional, and takes long to import
    import optuna
    from optuna.distributions import BaseDistribution

RECIPE, KEYS = "recipe", "over"
"""What the study knows of the sweep, among its user attributes."""


@dataclass(frozen=True)
class Claim:
    """A trial that this worker is to train, and the lock that says so."""

    trial: Trial
    lock: Lock


@dataclass(frozen=True)
class Study:
    """A sweep's trials; made by `open_study`.

    Args:
        plan: what is swept over.
        out: the folder that all workers share.
        storage: what the trials lie in, for messages.
        optuna: the study itself.
    """

    plan: Plan
    out: Path
    storage: str
    optuna: optuna.Study

    def lock(self, name: str = "study") -> Lock:
        """Hold one of the study's locks; `study` is that of the study itself."""
        return hold(self.out / "locks" / name)

    def claim(self) -> Claim | None:
        """A trial to train: one whose worker has vanished, else one that waits; None where all are done or in hand."""
        from optuna.trial import TrialState

        with self.lock(), reached(self.storage):
            for frozen in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                lock = try_to_hold(self._lock_of(frozen.number))
                if lock is not None:
                    return Claim(_trial(frozen), lock)
            if not self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return None
            number = self.optuna.ask().number  # the first that waits, which now is running
            lock = hold(self._lock_of(number))  # nobody has it: only running trials are locked
            return Claim(next(trial for trial in self._trials() if trial.number == number), lock)

    def _lock_of(self, number: int) -> Path:
        return self.out / "locks" / str(number)

    def finish(self, claim: Claim, delta_mtl: float, measured: Measured) -> None:
        """A trial is done; its lock is still held."""
        with self.lock(), reached(self.storage):
            self._note(claim, "measured", measured.plain())
            self.optuna.tell(claim.trial.number, [delta_mtl, measured.macs])

    def fail(self, claim: Claim, error: str) -> None:
        """A trial cannot be done; its lock is still held."""
        from optuna.trial import TrialState

        with self.lock(), reached(self.storage):
            self._note(claim, "error", error)
            self.optuna.tell(claim.trial.number, state=TrialState.FAIL)

    def _note(self, claim: Claim, key: str, value: Any) -> None:
        """Keep a user attribute of a running trial, whichever worker began it."""
        import optuna

        frozen = next(each for each in self.optuna.get_trials(deepcopy=False) if each.number == claim.trial.number)
        optuna.Trial(self.optuna, frozen._trial_id).set_user_attr(key, value)

    def set_rivals(self, seed: int, rivals: Rivals) -> None:
        """Keep what the networks of a seed are compared with."""
        with self.lock(), reached(self.storage):
            for name, measured in (("single", rivals.single), ("shared", rivals.shared)):
                if measured is not None:
                    self.optuna.set_user_attr(f"{name}, seed {seed}", measured.plain())

    def found(self) -> Found:
        """What there is so far. The study's lock is held by the caller."""
        with reached(self.storage):
            known = self.optuna.user_attrs
            trials = self._trials()
        rivals = {}
        for seed in {trial.seed for trial in trials}:
            measured = [known.get(f"{name}, seed {seed}") for name in ("single", "shared")]
            single, shared = (None if plain is None else Measured(**plain) for plain in measured)
            if single is not None:
                rivals[seed] = Rivals(single, shared)
        return Found(self.plan.tasks, tuple(trials), rivals)

    def _trials(self) -> list[Trial]:
        return [_trial(frozen) for frozen in self.optuna.get_trials(deepcopy=False)]

    def _settle(self, say: Callable[[str], None] | None) -> None:
        """Make a new study that of the plan, check that an old one is, and add what it lacks.

        Args:
            say: is told that points are checked; None where they have been.
        """
        recipe, keys = {RECIPE: self.plan.base.plain()}, sorted(self.plan.over)
        known = self.optuna.user_attrs
        if RECIPE in known:
            self._check_same(known[RECIPE], known[KEYS])
        there = [(trial.point, trial.seed) for trial in self._trials()]
        wanted = [(point, seed) for seed in self.plan.seeds for point in self.plan.points]
        missing = [each for each in wanted if each not in there]
        if missing and say is not None:
            _check(self.plan, [point for point in self.plan.points if point in [point for point, _ in missing]], say)
        self.optuna.set_user_attr(KEYS, keys)
        self.optuna.set_user_attr(RECIPE, recipe[RECIPE])  # the last: where it is known, so is all else
        for point, seed in missing:
            self._add(point, seed)

    def _check_same(self, recipe: dict[str, Any], keys: list[str]) -> None:
        begin = f"{self.out}: holds a sweep of another"
        remedy = "Go on with what it was begun with, or choose another --out"
        now = sorted(self.plan.over)
        if keys != now:
            told = f"it varies {', '.join(keys)}, not {', '.join(now)}"
            raise InputError(f"{begin} grid: {told}; values and seeds may be added, keys may not. {remedy}")
        difference = first_difference(recipe, self.plan.base.plain(), (*now, SEED))
        if difference is not None:
            raise InputError(f"{begin} recipe: {difference}. {remedy}")

    def _add(self, point: Point, seed: int) -> None:
        from optuna.trial import TrialState, create_trial

        values = {**self.plan.over, SEED: self.plan.seeds}
        try:
            trial = create_trial(
                state=TrialState.WAITING,
                params={key: _parameter(value, values[key]) for key, value in {**point, SEED: seed}.items()},
                distributions={key: _distribution(values[key]) for key in (*point, SEED)},
                user_attrs={"point": dict(point), "seed": seed},
            )
            self.optuna.add_trial(trial)
        except ValueError as error:  # Optuna's choices of words are fixed for a study
            raise InputError(
                f"{self.storage}: refuses values for this study: {error}. Words cannot be added to those that a sweep "
                "was begun with; choose another --out"
            ) from error


def open_study(plan: Plan, out: Path, storage: str | None, say: Callable[[str], None]) -> Study:
    """Begin a sweep, join it or go on with it.

    Args:
        plan: what is swept over. Values and seeds that the study does not have yet are added to it.
        out: the folder that all workers share.
        storage: the URL of a data base for the trials; a journal in `out` when None.
        say: is told of what takes long.

    Raises:
        InputError: Optuna is not installed, the storage cannot be reached, folder or storage hold another sweep, or
            a point cannot be trained.
    """
    check_writable(out / "sweep.md")
    told = known_storage(out, storage)
    new = not (out / IDENTITY).exists()
    if new:  # before anything is written, so that what is refused leaves nothing behind
        _check(plan, plan.points, say)
    with hold(out / "locks" / "study"), reached(told):
        study = Study(plan, out, told, opened(out, storage, told))
        study._settle(None if new else say)
        return study


def _check(plan: Plan, points: Sequence[Point], say: Callable[[str], None]) -> None:
    say(f"Checking that {len(points)} points can be trained and collapsed")
    check_points(plan, points)


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    known = frozen.user_attrs
    measured = Measured(**known["measured"]) if frozen.state.name == "COMPLETE" else None
    values = (frozen.values[0], frozen.values[1]) if frozen.values else None
    state = frozen.state.name.lower()
    return Trial(frozen.number, state, known["point"], known["seed"], values, measured, known.get("error", ""))


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parameter(value: Value, values: tuple[Value, ...]) -> Value:
    """A value as Optuna's own tools see it; what is trained goes by the point among the user attributes."""
    return float(value) if all(map(_is_number, values)) else value  # type: ignore[arg-type]


def _distribution(values: tuple[Value, ...]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(map(_is_number, values)):
        numbers = [float(value) for value in values]  # type: ignore[arg-type]
        return FloatDistribution(min(numbers), max(numbers))
    return CategoricalDistribution(values)
