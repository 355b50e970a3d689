"""Scalars in a file for TensorBoard."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

from gatedeploy.errors import MissingExtraError

_numbers = itertools.count()


class EventFile:
    """An event file that TensorBoard reads, each record written at once and by the caller's own thread.

    TensorBoard's own `SummaryWriter` writes in another thread, which dies with a traceback where the disk is full.

    Args:
        folder: where the file goes; made if need be.
        first_step: scalars that another file of the folder holds for this step and later are superseded; 0 for none.

    Raises:
        MissingExtraError: tensorboard is not installed.
        OSError: the file cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise MissingExtraError("training", "tensorboard", "train") from None
        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._file = (folder / name).open("xb", buffering=0)
        self._records = RecordWriter(self._file)
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            if first_step:
                started = SessionLog(status=SessionLog.START)
                self._write(Event(wall_time=time.time(), step=first_step, session_log=started))
        except OSError:
            self._file.close()
            raise

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write one number of one step."""
        summary = self._summary(value=[self._summary.Value(tag=name, simple_value=value)])
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: object) -> None:
        self._records.write(event.SerializeToString())  # type: ignore[attr-defined]
