"""What a training tells while it runs: a progress bar on standard error and scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gatedeploy.training.events import EventFile


class Journal:
    """Where trainings report to.

    Args:
        console: for bar and lines; standard error when None.
        tensorboard: whether to write scalars into the run's folder.
    """

    def __init__(self, console: Console | None = None, tensorboard: bool = True) -> None:
        self.console = console or Console(stderr=True)
        self._tensorboard = tensorboard

    def say(self, line: str) -> None:
        """One line for the user."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def run(self, title: str, folder: Path, steps: int, first_step: int) -> Iterator[RunJournal]:
        """The journal of one run.

        Args:
            title: e.g. "single depth".
            folder: for TensorBoard's files.
            steps: of the whole run.
            first_step: where it goes on; later scalars of an interrupted run are superseded.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            run = RunJournal(self, title, progress, progress.add_task(title, total=steps, completed=first_step))
            if self._tensorboard:
                run.open_events(folder, first_step)
            try:
                yield run
            finally:
                run.close()


class RunJournal:
    """The journal of one run; made by `Journal.run`."""

    def __init__(self, journal: Journal, title: str, progress: Progress, bar: TaskID) -> None:
        self._journal = journal
        self._title = title
        self._progress = progress
        self._bar = bar
        self._events: EventFile | None = None

    def open_events(self, folder: Path, first_step: int) -> None:
        """Write scalars for TensorBoard from here on."""
        with self._without_events_on_error():
            self._events = EventFile(folder, first_step)

    def steps(self, step: int, scalars: Mapping[str, float]) -> None:
        """`step` steps are done; the scalars are of the last few."""
        self._progress.update(self._bar, completed=step)
        self._scalars(step, scalars)

    def epoch(self, epoch: int, epochs: int, step: int, scalars: Mapping[str, float], headline: str) -> None:
        """`epoch` epochs are done; the network has just been measured."""
        self._scalars(step, scalars)
        self._journal.say(f"{self._title}: epoch {epoch} of {epochs}: {headline}")

    def skipped(self, pictures: str | None) -> None:
        """Tell of the pictures that an epoch went without, if there were any."""
        if pictures is not None:
            self._journal.say(pictures)

    def close(self) -> None:
        """Nothing more will be told."""
        if self._events is not None:
            self._events.close()

    def _scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            if self._events is not None:
                with self._without_events_on_error():
                    self._events.scalar(name, value, step)

    @contextmanager
    def _without_events_on_error(self) -> Iterator[None]:
        """A curve that cannot be kept is no reason to stop a training."""
        try:
            yield
        except OSError as error:
            self.close()
            self._events = None
            self._journal.say(
                f"{self._title}: TensorBoard's file cannot be written ({error.strerror}); going on without"
            )
