"""What the paths given to a benchmark hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.artifact import ModelInfo, is_checkpoint, read_checkpoint, read_collapsed
from gatedeploy.errors import InputError
from gatedeploy.exporters.manifest import MANIFEST
from gatedeploy.exporters.reading import Bundle, read_bundle
from gatedeploy.files import sha256
from gatedeploy.program import Program
from gatedeploy.specs import Task
from gatedeploy.training.snapshots import FILE


@dataclass(frozen=True, eq=False)
class Subject:
    """A file or folder that holds a network.

    Args:
        path: as it was given.
        label: a short name that no other subject has, see `labels`.
        form: "gated", "shared", "single" or the name of a method (checkpoints), "collapsed" or "bundle".
        info: what travels with the network.
        sha256: of the file; of a bundle's manifest, which holds the hashes of all its files.
        program: the network; None for a bundle.
        bundle: the bundle, else None.
    """

    path: Path
    label: str
    form: str
    info: ModelInfo
    sha256: str
    program: Program | None
    bundle: Bundle | None = None


def read_subjects(paths: Sequence[Path | str]) -> list[Subject]:
    """Read checkpoints, collapsed networks and bundles that answer the same questions about the same picture.

    Args:
        paths: files; folders of bundles; or folders of a training, which stand for the checkpoints in them.

    Raises:
        InputError: there are no paths, one cannot be read, or they do not fit each other.
        CheckError: a bundle is damaged.
    """
    files = list({file.resolve(): file for path in paths for file in _expanded(Path(path))}.values())
    if not files:
        raise InputError("nothing to measure was given; name a checkpoint, a collapsed network or a bundle")
    subjects = [_read(path, label) for path, label in zip(files, labels(files), strict=True)]
    _check_fit(subjects)
    return subjects


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that tells it from all the others; a `checkpoint.pt` goes by its folder's name.

    >>> labels([Path("runs/a/checkpoint.pt"), Path("runs/b/checkpoint.pt"), Path("thin.safetensors")])
    ['a', 'b', 'thin.safetensors']
    """
    whole = [path.absolute() for path in paths]
    parts = [(path.parent if path.name == FILE else path).parts for path in whole]

    def alone(own: tuple[str, ...], length: int) -> bool:
        return sum(other[-length:] == own[-length:] for other in parts) == 1

    shortest = [next((n for n in range(1, len(own)) if alone(own, n)), len(own)) for own in parts]
    return ["/".join(own[-length:]) for own, length in zip(parts, shortest, strict=True)]


def _expanded(path: Path) -> list[Path]:
    """A folder of a training as the checkpoints in it (see `gatedeploy.training.stages`), all else as it is."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return [path]
    rivals = [path / "shared" / FILE, *sorted((path / "single").glob(f"*/{FILE}"))]
    found = [file for file in (path / FILE, *rivals) if file.is_file()]
    if not found:
        raise InputError(f"{path}: neither a bundle (no {MANIFEST}) nor a training (no {FILE})")
    return found


def _read(path: Path, label: str) -> Subject:
    if path.is_dir():
        bundle = read_bundle(path)
        said = bundle.manifest
        figures = said.reduction.reduced if said.reduction else said.metrics
        metrics = {
            task: {name: value for name, value in values.items() if value is not None}
            for task, values in figures.items()
        }
        info = ModelInfo(said.tasks, said.input, "bundle", metrics=metrics, flipped_gates=said.flipped_gates)
        return Subject(path, label, "bundle", info, sha256(path / MANIFEST), None, bundle)
    if is_checkpoint(path):
        checkpoint = read_checkpoint(path)
        return Subject(path, label, checkpoint.info.form, checkpoint.info, sha256(path), checkpoint.program)
    program, info = read_collapsed(path)
    return Subject(path, label, "collapsed", info, sha256(path), program)


def _check_fit(subjects: Sequence[Subject]) -> None:
    """Raise `InputError` unless all answer the tasks of the first that is no single-task network."""
    first = next((subject for subject in subjects if subject.form != "single"), subjects[0])
    tasks = {task.name for task in first.info.tasks}
    kinds: dict[str, tuple[Task, Path]] = {}
    for subject in subjects:
        own = {task.name for task in subject.info.tasks}
        if subject.info.input.shape != first.info.input.shape:
            raise InputError(
                f"{subject.path}: takes a picture of {subject.info.input.shape}, {first.path} one of "
                f"{first.info.input.shape}; compare networks of the same input"
            )
        if own != tasks and not (subject.form == "single" and (own <= tasks or first.form == "single")):
            raise InputError(
                f"{subject.path}: answers {', '.join(sorted(own))}, {first.path} answers {', '.join(sorted(tasks))}; "
                "compare networks of the same tasks"
            )
        for task in subject.info.tasks:
            known, path = kinds.setdefault(task.name, (task, subject.path))
            if (task.kind, len(task.classes)) != (known.kind, len(known.classes)):
                raise InputError(
                    f"{subject.path}: answers {task.name} by {_answer(task)}, {path} by {_answer(known)}; compare "
                    "networks of the same tasks"
                )


def _answer(task: Task) -> str:
    classes = f" of {len(task.classes)} classes" if task.classes else ""
    return f"{task.kind or 'a tensor of no known kind'}{classes}"
