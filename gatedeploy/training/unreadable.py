"""Pictures whose files cannot be read while a network is trained: the run stops, or goes on without them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gatedeploy.errors import UnreadableError
from gatedeploy.training.batches import Batch, Pictures

_SHOWN = 3


class Readable:
    """Training pictures of one epoch, and what is to become of those that cannot be read.

    The place of a picture that is skipped is taken by the next one of its batch that can be read, going round. So every
    batch is whole, and which pictures it holds follows from the run's order and the files alone: a run that is resumed
    sees the same. Wrong labels are no matter of files, and always stop a run.

    Args:
        pictures: of the epoch.
        skip: whether the run goes on without what cannot be read.
        where: run and epoch, for messages.
    """

    def __init__(self, pictures: Pictures, skip: bool, where: str) -> None:
        self._pictures, self._skip, self._where = pictures, skip, where
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, indices: Sequence[int], /) -> Batch:
        """See `Pictures.batch`.

        Raises:
            UnreadableError: a picture cannot be read, and none is to be skipped or the whole batch would be.
        """
        try:
            return self._pictures.batch(indices)
        except UnreadableError as error:
            unreadable = self._unreadable(indices)
            if not unreadable:  # it could be, this time
                return self._pictures.batch(indices)
            told = f"{self._where}: {next(iter(unreadable.values()), error)}"
            count = f"{len(unreadable)} of the {len(indices)} pictures of this batch cannot be read"
            if not self._skip:
                raise UnreadableError(f"{told}. {count}; train.unreadable=skip goes on without them") from None
            if len(unreadable) == len(indices):
                raise UnreadableError(f"{told}. {count}, so there is nothing to go on with") from None
            self.skipped |= unreadable
            return self._pictures.batch(replaced(indices, unreadable))

    def _unreadable(self, indices: Sequence[int]) -> dict[int, str]:
        """Why pictures cannot be read, by their numbers; each is tried by itself."""
        reasons: dict[int, str] = {}
        for index in indices:
            try:
                self._pictures.batch([index])
            except UnreadableError as error:
                reasons[index] = str(error)
        return reasons

    def told(self) -> str | None:
        """What was skipped so far, in one line; None where nothing was."""
        if not self.skipped:
            return None
        count = f"{len(self.skipped)} picture{'s' * (len(self.skipped) > 1)}"
        reasons = [self.skipped[number] for number in sorted(self.skipped)]
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        return f"{self._where}: {count} could not be read and went without: {'; '.join(reasons[:_SHOWN])}{more}"


def replaced(indices: Sequence[int], without: Collection[int]) -> list[int]:
    """The batch with the next picture, going round, in the place of each of those that it is to be without.

    >>> replaced([7, 3, 9, 4], {3, 4})
    [7, 9, 9, 7]
    """
    count = len(indices)
    return [
        next(index for step in range(count) if (index := indices[(place + step) % count]) not in without)
        for place in range(count)
    ]
