"""What the published data sets have in common: the picture they make, lists of pictures, and a file of each for a task.

A place is a pattern inside the data set's folder: `depth/{name}.npy` is where the depth of the picture `name` lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.data.augment import Augment
from gatedeploy.data.base import DataSet
from gatedeploy.data.file_split import FileSplit
from gatedeploy.data.label_files import Maps
from gatedeploy.data.pairing import Sample, folder_at, inside, neighbours
from gatedeploy.errors import InputError, closest
from gatedeploy.specs import InputSpec, Task

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, because that is what the pretrained backbones that users bring were fed."""

Size = int | Sequence[int]
"""Height and width in pixels, or one number for both."""


@dataclass(frozen=True)
class Labels:
    """A task of a published data set.

    Args:
        task: the task.
        maps: how a file becomes its label.
        places: where the files are; the first that is there counts.
    """

    task: Task
    maps: Maps
    places: tuple[str, ...]


def input_of(size: Size) -> InputSpec:
    """The picture a network is fed, in colour, normalised as ImageNet's.

    Raises:
        InputError: that is no size.
    """
    return InputSpec(3, *read_size(size), MEAN, STD)


def read_size(size: Size) -> tuple[int, int]:
    """Height and width of a recipe's `size`, or `InputError`."""
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise InputError(f"size must be [height, width] or one whole number, of at least 1, got {size!r}")
    return sides[0], sides[1]


def chosen(offered: Sequence[Labels], names: Sequence[str]) -> tuple[Labels, ...]:
    """The tasks of these names, in their order.

    Raises:
        InputError: there is no such task, none is named, or one is named twice.
    """
    by_name = {labels.task.name: labels for labels in offered}
    for name in names:
        if name not in by_name:
            raise InputError(f"tasks: no such task {name!r}; there are {', '.join(by_name)}{closest(name, [*by_name])}")
    if not names or len(set(names)) < len(names):
        raise InputError(f"tasks must name at least one task, and each once, got {list(names)!r}")
    return tuple(by_name[name] for name in names)


def read_names(path: Path) -> list[str]:
    """The names of a list of pictures, one a line.

    Raises:
        InputError: there is no such file, it is empty or no text, or it names a picture twice.
    """
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if not names:
        raise InputError(f"{path}: names no picture; expected one name a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{path}: names {name} twice; take one away")
        seen.add(name)
    return names


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; `InputError` where there is none, or it is no text."""
    if not path.is_file():
        raise InputError(f"{path}: no such file{neighbours(path)}")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def samples(base: Path, listing: Path, names: Sequence[str], picture: str, labels: Sequence[Labels]) -> list[Sample]:
    """The files of the pictures that a list names.

    Args:
        base: the data set's folder.
        listing: where the names are from, for messages.
        names: of the pictures.
        picture: where pictures lie.
        labels: the tasks.

    Raises:
        InputError: a folder is missing, a name leaves the data set's folder, or files are missing; all are counted.
    """
    places = {"pictures": (picture,), **{f"task {each.task.name}": each.places for each in labels}}
    for what, patterns in places.items():
        tops = [inside(base, pattern.split("/")[0], what) for pattern in patterns]
        if not any(top.is_dir() for top in tops):
            folder_at(tops[0], what)
    exists = _lookup_of_files()
    found: list[Sample] = []
    lacking: list[str] = []
    for name in names:
        inside(base, name, str(listing))
        files = {what: _first(base, name, patterns, exists) for what, patterns in places.items()}
        missing = [what for what, file in files.items() if file is None]
        if missing:
            expected = " or ".join(str(base / pattern.format(name=name)) for pattern in places[missing[0]])
            lacking.append(f"{name}, without {expected}")
            continue
        paths = {what: file for what, file in files.items() if file is not None}
        found.append(Sample(paths["pictures"], {each.task.name: paths[f"task {each.task.name}"] for each in labels}))
    if lacking:
        raise InputError(
            f"{listing}: {len(lacking)} of {len(names)} pictures lack a file; the first is {lacking[0]}. Unpack the "
            "data set again, or take these names away"
        )
    return found


def of_lists(base: Path, lists: str, picture: str, labels: Sequence[Labels]) -> tuple[list[Sample], list[Sample]]:
    """The files to train on and to validate on, as the lists `train.txt` and `val.txt` name them.

    Args:
        base: the data set's folder.
        lists: the folder of the lists in it.
        picture: where pictures lie.
        labels: the tasks.

    Raises:
        InputError: as `read_names` and `samples`.
    """
    train, val = (base / lists / name for name in ("train.txt", "val.txt"))
    return (
        samples(base, train, read_names(train), picture, labels),
        samples(base, val, read_names(val), picture, labels),
    )


def _first(base: Path, name: str, patterns: Sequence[str], exists: Callable[[Path], bool]) -> Path | None:
    paths = (base / pattern.format(name=name) for pattern in patterns)
    return next((path for path in paths if exists(path)), None)


def _lookup_of_files() -> Callable[[Path], bool]:
    """Tells whether a file is there; lists each folder once, for hundreds of thousands of single looks take long."""
    listed: dict[Path, set[str]] = {}

    def exists(path: Path) -> bool:
        if path.parent not in listed:
            there = path.parent.is_dir()
            listed[path.parent] = {entry.name for entry in path.parent.iterdir()} if there else set()
        return path.name in listed[path.parent]

    return exists


def data_of_files(
    name: str,
    input: InputSpec,
    labels: Sequence[Labels],
    train: Sequence[Sample],
    val: Sequence[Sample],
    augment: Augment | None,
) -> DataSet:
    """A data set of these files; training pictures are augmented, the others are not."""
    sources = {each.task: each.maps for each in labels}
    return DataSet(
        name,
        input,
        tuple(sources),
        FileSplit(name, "train", input, sources, train, augment),
        FileSplit(name, "val", input, sources, val),
    )
