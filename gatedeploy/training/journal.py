"""What a training tells while it runs: a progress bar on standard error and scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatedeploy.errors import MissingExtraError


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
        writer = _writer(folder, first_step) if self._tensorboard else None
        try:
            with Progress(
                *columns, console=self.console, transient=True, disable=not self.console.is_terminal
            ) as progress:
                bar = progress.add_task(title, total=steps, completed=first_step)
                yield RunJournal(self, title, progress, bar, writer)
        finally:
            if writer is not None:
                writer.close()


class RunJournal:
    """The journal of one run; made by `Journal.run`."""

    def __init__(self, journal: Journal, title: str, progress: Progress, bar: Any, writer: Any) -> None:
        self._journal = journal
        self._title = title
        self._progress = progress
        self._bar = bar
        self._writer = writer

    def steps(self, step: int, scalars: Mapping[str, float]) -> None:
        """`step` steps are done; the scalars are of the last few."""
        self._progress.update(self._bar, completed=step)
        self._scalars(step, scalars)

    def epoch(self, epoch: int, epochs: int, step: int, scalars: Mapping[str, float], headline: str) -> None:
        """`epoch` epochs are done; the network has just been measured."""
        self._scalars(step, scalars)
        self._journal.say(f"{self._title}: epoch {epoch} of {epochs}: {headline}")

    def _scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)


def _writer(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("training", "tensorboard", "train") from None
    return SummaryWriter(str(folder), purge_step=first_step or None)
