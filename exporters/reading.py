"""Read a bundle that may come from a stranger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, InputError, located
from gatedeploy.exporters.manifest import MANIFEST, Engine, Manifest
from gatedeploy.exporters.manifest_json import manifest_from_json
from gatedeploy.exporters.precision.emulation import emulated
from gatedeploy.exporters.precision.surgery import opened
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.files import as_path, sha256
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner

MODEL = "model.onnx"
MAX_MANIFEST_BYTES = 32 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those that its manifest lists.

    Args:
        path: its folder.
        manifest: what it says about itself.
    """

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The ONNX file.

        Raises:
            InputError: the bundle holds none.
        """
        if MODEL not in self.manifest.files:
            raise InputError(f"{self.path}: holds no {MODEL}; it holds {', '.join(self.manifest.formats)}")
        return self.path / MODEL

    def runs(self, runtime: str) -> tuple[str, Engine | None]:
        """The file that a runtime runs: its engine, and what the manifest says of that; or the ONNX file."""
        engines = self.manifest.engines.items()
        return next(((name, engine) for name, engine in engines if engine.runtime == runtime), (MODEL, None))


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle: its manifest, and that the folder holds the files listed there, unchanged, and nothing else.

    Raises:
        InputError: it is no bundle, of another version, or holds what no bundle may hold: links, names that leave it.
        CheckError: it is damaged: a file is missing, was added, or has changed, the manifest itself included.
    """
    path = as_path(path)
    manifest = read_manifest(path)
    with located(str(path)), readable(path):
        found = dict(_files(path, path))
        del found[MANIFEST]
        missing, added = sorted(set(manifest.files) - set(found)), sorted(set(found) - set(manifest.files))
        if missing:
            raise CheckError(f"{', '.join(missing)} is missing; copy or export the bundle again")
        if added:
            raise CheckError(f"holds {', '.join(added)}, which the manifest does not list; copy or export it again")
        for name, entry in manifest.files.items():
            if found[name] != entry.size_bytes:
                raise CheckError(
                    f"{name} has {found[name]:,} bytes, expected {entry.size_bytes:,}; copy or export the bundle again"
                )
            digest = sha256(path / name)
            if digest != entry.sha256:
                raise CheckError(
                    f"{name} was changed or damaged: its SHA-256 is {digest[:12]}…, expected {entry.sha256[:12]}…; "
                    "copy or export the bundle again"
                )
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle in folder `path`; its files are not looked at.

    Raises:
        InputError: there is none, or it cannot be used.
        CheckError: it was changed or damaged.
    """
    if not path.is_dir():
        what = "a file" if path.exists() else "no such folder"
        raise InputError(f"{path}: {what}; expected the folder of a bundle, as gatedeploy export writes it")
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        raise InputError(f"{path}: not a bundle (no {MANIFEST} in it); gatedeploy export writes one")
    with located(str(file)), readable(file):
        size = file.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise InputError(f"has {size:,} bytes; no bundle's manifest is that large")
        try:
            text = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not text ({error.reason}); export or copy the bundle again") from None
        return manifest_from_json(text)


@contextmanager
def open_model(file: Path, precision: str, threads: int | None = None) -> Iterator[OnnxRuntimeRunner]:
    """The network of a bundle in ONNX Runtime on the CPU; bfloat16, for which that has no kernels, is emulated."""
    if not PRECISIONS[precision].emulated:
        with OnnxRuntimeRunner(file, threads=threads, optimized=PRECISIONS[precision].optimized) as runner:
            yield runner
        return
    import onnx

    with opened(emulated(onnx.load(str(file)), precision), threads) as runner:
        yield runner


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell, naming `path`, what the file system refuses inside."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def _files(folder: Path, root: Path) -> Iterator[tuple[str, int]]:
    """Path with forward slashes, and size, of every file; refuses all that is neither file nor folder."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if entry.is_symlink():
                raise InputError(f"{name} is a link; a bundle holds plain files only. Refused")
            if entry.is_dir(follow_symlinks=False):
                yield from _files(path, root)
            elif entry.is_file(follow_symlinks=False):
                yield name, entry.stat(follow_symlinks=False).st_size
            else:
                raise InputError(f"{name} is neither a file nor a folder; a bundle holds plain files only. Refused")
