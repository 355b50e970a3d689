from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch

from gatedeploy.errors import InputError
from gatedeploy.training.batches import Batch, prefetched, training_batches, validation_batches
from tests.training.made_up import Noise

CPU = torch.device("cpu")


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    assert training_batches(100, 7, seed=3, epoch=5) == training_batches(100, 7, seed=3, epoch=5)
    orders = {str(training_batches(100, 7, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_an_epoch_visits_no_picture_twice_and_fills_every_batch() -> None:
    batches = training_batches(100, 7, seed=0, epoch=0)
    visited = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [7] * 14
    assert len(set(visited)) == 98


def test_different_epochs_leave_out_different_pictures() -> None:
    left_out = [
        frozenset(range(10)) - {i for batch in training_batches(10, 8, 0, epoch) for i in batch} for epoch in range(4)
    ]
    assert len(set(left_out)) > 1


def test_too_few_pictures_for_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match=r"train\.batch_size: 8 is more than the 7 pictures there are to train on"):
        training_batches(7, 8, seed=0, epoch=0)


def test_validation_visits_everything_in_order() -> None:
    assert validation_batches(5, 2) == [[0, 1], [2, 3], [4]]


def test_batches_come_in_order_and_the_next_is_prepared_meanwhile() -> None:
    prepared = threading.Event()

    class Watched(Noise):
        def batch(self, indices: Sequence[int], /) -> Batch:
            if list(indices) == [2, 3]:
                prepared.set()
            return super().batch(indices)

    pictures = Watched(6, 0)
    batches = prefetched(pictures, [[0, 1], [2, 3], [4, 5]], CPU)
    images, labels = next(batches)
    assert prepared.wait(5)  # nobody has asked for it yet
    assert torch.equal(images, pictures.images[:2])
    assert set(labels) == {"colour", "parts", "depth", "normals"}
    assert [images.shape[0] for images, _ in batches] == [2, 2]
    assert list(prefetched(pictures, [], CPU)) == []


def test_an_error_of_the_data_comes_out_where_the_batch_was_asked_for() -> None:
    class Torn(Noise):
        def batch(self, indices: Sequence[int], /) -> Batch:
            if 2 in indices:
                raise InputError("room.png: cannot be read")
            return super().batch(indices)

    batches = prefetched(Torn(4, 0), [[0, 1], [2, 3]], CPU)
    next(batches)
    with pytest.raises(InputError, match=r"^room\.png: cannot be read$"):
        next(batches)


def test_no_thread_is_left_behind_when_a_run_stops_early() -> None:
    batches = prefetched(Noise(4, 0), [[0, 1], [2, 3]], CPU)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
