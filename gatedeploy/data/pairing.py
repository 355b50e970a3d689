"""Find the label of every picture for every task, and the picture of every label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.data.label_files import Maps, Source, read_table
from gatedeploy.data.picture_files import PICTURES
from gatedeploy.errors import InputError
from gatedeploy.specs import Task


@dataclass(frozen=True)
class Places:
    """Where the files of one split are: the folder of pictures, and by task the folder or table of labels."""

    pictures: Path
    labels: Mapping[str, Path]


@dataclass(frozen=True)
class Sample:
    """A picture's file, and by task its label: a class number or a file."""

    picture: Path
    labels: Mapping[str, int | Path]


def pair(splits: Sequence[Places], sources: Mapping[Task, Source]) -> list[list[Sample]]:
    """The samples of each split, in the order of the pictures' names.

    Splits may share a folder or a table of labels: each label must then belong to a picture of either.

    Raises:
        InputError: a place is missing or empty, a picture has no label, a label no picture, or two files of a folder
            differ in nothing but their ending.
    """
    files = [_list(places, sources) for places in splits]
    for mine in files:
        for task, source in sources.items():
            sharing = [other for other in files if other.places.labels[task.name] == mine.places.labels[task.name]]
            _refuse_strays(mine, sharing, task, source)
    return [[_sample(picture, mine, sources) for picture in mine.pictures] for mine in files]


@dataclass(frozen=True)
class _Files:
    """What lies in a split's places: pictures in order, and for each task the labels by the `_key` of a picture."""

    places: Places
    pictures: Sequence[Path]
    labels: Mapping[str, Mapping[str, int | Path]]


def _list(places: Places, sources: Mapping[Task, Source]) -> _Files:
    pictures = tuple(_by_stem(places.pictures, PICTURES, "pictures").values())
    labels = {task.name: _labels_at(places.labels[task.name], task, source) for task, source in sources.items()}
    return _Files(places, pictures, labels)


def _refuse_strays(mine: _Files, sharing: Sequence[_Files], task: Task, source: Source) -> None:
    """Raise `InputError` when a label belongs to no picture of the splits that share its place."""
    keys = {_key(picture, source) for files in sharing for picture in files.pictures}
    labels = mine.labels[task.name]
    stray = sorted(labels.keys() - keys)
    if stray:
        label = labels[stray[0]]
        what = label if isinstance(label, Path) else f"{mine.places.labels[task.name]}, {stray[0]}"
        more = f" (and {len(stray) - 1} more)" if len(stray) > 1 else ""
        raise InputError(
            f"{what}: a label of task {task.name} without a picture; expected {stray[0]} in "
            f"{' or '.join(str(files.places.pictures) for files in sharing)}{more}. "
            "Add the picture or take the label away"
        )


def folder_at(path: Path, option: str) -> Path:
    """`path`, or `InputError` when it is no folder."""
    if not path.is_dir():
        raise InputError(f"{option}: {path}: no such folder{neighbours(path)}")
    return path


def inside(base: Path, place: str, option: str) -> Path:
    """`base / place`, or `InputError` when `place` is absolute or climbs out with `..`."""
    if Path(place).is_absolute() or ".." in re.split(r"[\\/]", place):
        raise InputError(f"{option}: {place!r} leaves the data set's folder {base}; give a place inside it")
    return base / place


def _labels_at(place: Path, task: Task, source: Source) -> Mapping[str, int | Path]:
    """All labels at `place`, by the key that `_key` gives their pictures."""
    if isinstance(source, Maps):
        return _by_stem(folder_at(place, f"tasks.{task.name}"), source.suffixes, f"labels of task {task.name}")
    if not place.is_file():
        raise InputError(f"tasks.{task.name}: {place}: no such file{neighbours(place)}")
    return read_table(place, source.classes)


def _by_stem(folder: Path, suffixes: Sequence[str], what: str) -> dict[str, Path]:
    """The files of a folder with one of the endings, by name without ending, in order; hidden ones do not count."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} differs only in its ending; keep one of the two")
        files[path.stem] = path
    if not files:
        raise InputError(f"{folder}: holds no {what}; expected files that end in {', '.join(suffixes)}")
    return files


def _key(picture: Path, source: Source) -> str:
    return picture.stem if isinstance(source, Maps) else picture.name


def _sample(picture: Path, files: _Files, sources: Mapping[Task, Source]) -> Sample:
    labels: dict[str, int | Path] = {}
    for task, source in sources.items():
        key, place = _key(picture, source), files.places.labels[task.name]
        if key not in files.labels[task.name]:
            wanted = f"a line {key},class in {place}"
            if isinstance(source, Maps):
                wanted = " or ".join(str(place / f"{key}{suffix}") for suffix in source.suffixes)
            raise InputError(
                f"{picture}: a picture without a label for task {task.name}; expected {wanted}. "
                "Add the label or take the picture away"
            )
        labels[task.name] = files.labels[task.name][key]
    return Sample(picture, labels)


def neighbours(path: Path) -> str:
    """`; PARENT holds a, b, …` for a path that is not there, or nothing where it has no neighbours."""
    names: Iterable[str] = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else ()
    shown = [name for name in names if not name.startswith(".")][:8]
    return f"; {path.parent} holds {', '.join(shown)}" if shown else ""
