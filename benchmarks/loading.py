"""How fast training pictures are read, augmented and batched, beside how fast their files can be decoded at all.

    python -m gatedeploy.benchmarks.loading [--data nyud …] [--pictures 24] [--rounds 10]

Files are made up, of the published layouts and sizes (`loading_files`), and lie in the system's memory while they are
measured. To decode is to make an array of every file that a picture has, by Pillow, `numpy.load` or `scipy.io.loadmat`
alone, in as many threads as the loader takes. Both work through the same pictures in turns, a batch each; the figure
is the median over rounds of their rates' ratio. Rates are per second of processor time, of all threads together, which
leaves waiting for a busy machine out. Sizes and augmentation are those of the papers' recipes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from gatedeploy.benchmarks import loading_files
from gatedeploy.benchmarks.collapse_cost import row
from gatedeploy.benchmarks.environment import cores, processor
from gatedeploy.data import load_data
from gatedeploy.errors import run_program
from gatedeploy.training.batches import of_epoch

BATCH = 8

ENOUGH = 0.8
"""The share of the decoding rate that a loader should reach."""

FULL = {"flip": True, "scale": [0.5, 2.0], "crop": True}


@dataclass(frozen=True)
class Subject:
    """A data set to measure.

    Args:
        write: makes a folder of so many training pictures, and tells the files of each.
        options: of the data set, without its root.
    """

    write: Callable[[Path, int], list[loading_files.Files]]
    options: Mapping[str, Any]


SUBJECTS: Mapping[str, Subject] = {
    "celeba": Subject(loading_files.write_celeba, {"augment": {"flip": True}}),
    "nyud": Subject(loading_files.write_nyud, {"augment": FULL}),
    "pascal_context": Subject(loading_files.write_pascal_context, {"augment": FULL}),
    "cityscapes": Subject(
        loading_files.write_cityscapes, {"augment": {"flip": True, "scale": [1.0, 1.5], "crop": True}}
    ),
    "taskonomy": Subject(
        loading_files.write_taskonomy, {"train": ["onaga"], "val": ["darden"], "augment": {"flip": True}}
    ),
}


def decode(path: Path) -> object:
    """One file as an array, or what `scipy.io` makes of it; nothing is done with it."""
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".mat":
        from scipy.io import loadmat

        return loadmat(path)
    with Image.open(path) as image:
        return np.asarray(image)


@dataclass(frozen=True)
class Rates:
    """Pictures a second of processor time, by round."""

    decoded: Sequence[float]
    loaded: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """The loader's rate over the decoders', by round, in ascending order."""
        return sorted(loaded / decoded for loaded, decoded in zip(self.loaded, self.decoded, strict=True))


def measure(name: str, root: Path, pictures: int, rounds: int, clock: Callable[[], float] = time.process_time) -> Rates:
    """Decode and load the pictures of a data set in turns; the first round warms up and does not count.

    Args:
        name: of the data set.
        root: an empty folder for its files.
        pictures: how many.
        rounds: how often all of them are read.
        clock: seconds.
    """
    subject = SUBJECTS[name]
    files = subject.write(root, pictures)
    train = load_data(name, root=root, **subject.options).train
    decoded: list[float] = []
    loaded: list[float] = []
    with ThreadPoolExecutor(cores()) as threads:
        for epoch in range(rounds + 1):
            seen = of_epoch(train, 0, epoch)
            spent = np.zeros(2)
            for start in range(0, pictures, BATCH):
                batch = range(start, min(start + BATCH, pictures))
                begin = clock()
                list(threads.map(lambda number: [decode(file) for file in files[number]], batch))
                middle = clock()
                seen.batch(batch)
                spent += (middle - begin, clock() - middle)
            decoded.append(pictures / spent[0])
            loaded.append(pictures / spent[1])
    return Rates(decoded[1:], loaded[1:])


def main() -> None:
    """Measure every data set and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", default=tuple(SUBJECTS), choices=tuple(SUBJECTS))
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{processor()}, {cores()} threads\n")
    print(row("data set", "decoded a second", "loaded a second", "ratio", "least and most"))
    print(row(*["---"] * 5))
    for name in arguments.data:
        with tempfile.TemporaryDirectory() as folder:
            rates = measure(name, Path(folder), arguments.pictures, arguments.rounds)
        ratios = rates.ratios
        figures = f"{median(rates.decoded):.0f}", f"{median(rates.loaded):.0f}", f"{median(ratios):.2f}"
        print(row(name, *figures, f"{ratios[0]:.2f} to {ratios[-1]:.2f}"), flush=True)


if __name__ == "__main__":
    run_program(main)
