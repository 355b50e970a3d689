"""A bundle as models of NVIDIA's Triton Inference Server.

    repository/
        NAME/
            config.pbtxt         what it takes and returns
            TASK_labels.txt      class names
            gatedeploy.json      what was written here
            1/model.onnx         the network
        NAME_trt/                the same with 1/model.plan, if the bundle holds an engine of TensorRT

The layout is that of github.com/triton-inference-server/server, docs/user_guide/model_repository.md.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, InputError
from gatedeploy.exporters.manifest import labels_file
from gatedeploy.exporters.reading import MODEL, Bundle, read_bundle, readable
from gatedeploy.exporters.to_onnx import EXTERNAL_DATA_SUFFIX
from gatedeploy.exporters.triton_config import config_text, label_file, served_engine, served_onnx
from gatedeploy.files import replacing_folder, sha256

CONFIG = "config.pbtxt"
MARKER = "gatedeploy.json"
FORMAT = "gatedeploy.triton"
VERSION = 1
PLAN = "model.plan"
ENGINE_SUFFIX = "_trt"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Triton forbids little more than slashes (ValidateModelName in its core's src/model_repository_manager), but compares
the name with the address of a request as it stands there, in which other characters are written in another way."""


@dataclass(frozen=True)
class Model:
    """A model of the repository.

    Args:
        name: its folder's name.
        config: the text of `config.pbtxt`.
        files: by path in the model's folder, the file of the bundle that is copied there.
    """

    name: str
    config: str
    files: dict[str, str]


def write_triton(bundle: Bundle, out: Path, name: str | None = None) -> Path:
    """Write a bundle as models into a repository of Triton's.

    Args:
        bundle: what is served; its hashes are checked first.
        out: the repository, with other models or not; only folders that this function wrote are replaced.
        name: of the model; that of the bundle's folder when None.

    Returns:
        The model's folder, `out / name`. The engine, if there is one, is `out / f"{name}_trt"`.

    Raises:
        InputError: the bundle or the name is none that Triton can serve, or where it would go lies something else.
        CheckError: the bundle is damaged.
        GatedeployError: the disk refuses. As after every error, no model is changed then.
    """
    bundle = read_bundle(bundle.path)
    name = bundle.path.resolve().name if name is None else name
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} cannot be the name of a model: Triton's addresses hold it; take ASCII letters, digits, '_', '-' "
            "and '.', and no '-' or '.' first"
        )
    models = _models(bundle, name)
    with readable(out):
        _check_repository(out, bundle.path)
        for model in models:
            _check_place(out / model.name)
        if len(models) == 1:
            _check_no_old_engine(out / f"{name}{ENGINE_SUFFIX}")
    with ExitStack() as stack:
        for model in models:
            _write(stack.enter_context(replacing_folder(out / model.name, MARKER)), model, bundle)
    return out / name


def _models(bundle: Bundle, name: str) -> list[Model]:
    manifest = bundle.manifest
    labels = {label_file(task): file for task in manifest.tasks if (file := labels_file(task))}
    if missing := sorted(set(labels.values()) - set(manifest.files)):
        raise InputError(f"{bundle.path}: holds no {missing[0]}, though its task has classes; export it again")
    network = _network(bundle)
    models = [Model(name, config_text(served_onnx(manifest, name), manifest), labels | network)]
    for file, engine in manifest.engines.items():
        if engine.runtime == "tensorrt":  # those of TensorRT for RTX run in another library, which Triton does not have
            served = served_engine(engine, f"{name}{ENGINE_SUFFIX}")
            models.append(Model(served.name, config_text(served, manifest), labels | {f"1/{PLAN}": file}))
    return models


def _network(bundle: Bundle) -> dict[str, str]:
    """The ONNX file; with weights beside it, both have to lie in a folder of the file's name ("ONNX Models")."""
    network, weights = bundle.model.name, f"{MODEL}{EXTERNAL_DATA_SUFFIX}"
    if weights not in bundle.manifest.files:
        return {f"1/{MODEL}": network}
    return {f"1/{MODEL}/{file}": file for file in (network, weights)}


def _write(folder: Path, model: Model, bundle: Bundle) -> None:
    for name, source in model.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / source, target)
        if sha256(target) != bundle.manifest.files[source].sha256:
            raise CheckError(f"{bundle.path / source}: changed while it was copied; nothing was written. Try again")
    (folder / CONFIG).write_text(model.config, encoding="utf-8", newline="\n")
    files = {name: sha256(folder / name) for name in (CONFIG, *model.files)}
    said = {"format": FORMAT, "version": VERSION, "files": files}
    (folder / MARKER).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def _check_repository(out: Path, bundle: Path) -> None:
    """Raise `InputError` unless `out` is a folder, or free, and no part of the bundle."""
    if out.is_symlink():
        raise InputError(f"{out}: is a link; name the folder itself")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected the folder of a model repository, or a name that is free")
    if out.resolve().is_relative_to(bundle.resolve()):
        raise InputError(f"{out}: lies in the bundle, which holds its own files alone; choose another folder")


def _check_place(folder: Path) -> None:
    """Raise `InputError` unless the folder is free, or a model that `write_triton` wrote and nobody changed."""
    remedy = "choose another name or repository"
    if folder.is_symlink():
        raise InputError(f"{folder}: is a link; {remedy}")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    listed = _listed(folder)
    if listed is None:
        raise InputError(f"{folder}: exists and was not written by gatedeploy as a model of Triton's; {remedy}")
    files = [file for file in folder.rglob("*") if file.is_symlink() or not file.is_dir()]
    found = {file.relative_to(folder).as_posix(): file for file in files}
    if added := sorted(set(found) - {MARKER, *listed}):
        raise InputError(f"{folder}: holds {', '.join(added)} besides what gatedeploy wrote; move it, or {remedy}")
    for name, digest in listed.items():
        file = found.get(name)
        if file and (file.is_symlink() or not file.is_file() or sha256(file) != digest):
            raise InputError(f"{folder}: {name} was changed since gatedeploy wrote it; move it, or {remedy}")


def _check_no_old_engine(folder: Path) -> None:
    """Raise `InputError` where an earlier bundle's engine would be served beside this one's network."""
    if f"1/{PLAN}" in (_listed(folder) or ()):
        raise InputError(
            f"{folder}: is the TensorRT engine of an earlier bundle, and this one has none; delete it, or choose "
            "another name"
        )


def _listed(folder: Path) -> dict[str, str] | None:
    """The SHA-256 of each file that `write_triton` wrote there; None if it did not write the folder."""
    marker = folder / MARKER
    if folder.is_symlink() or marker.is_symlink() or not marker.is_file():
        return None
    try:
        said = json.loads(marker.read_bytes())
        return dict(said["files"]) if said["format"] == FORMAT else None
    except (ValueError, TypeError, KeyError, RecursionError):  # somebody else's file of that name
        return None
