"""Read a bundle that may come from a stranger, and prove that it computes here what it computed there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, InputError, located
from gatedeploy.exporters.emulation import emulated
from gatedeploy.exporters.manifest import MANIFEST, Manifest
from gatedeploy.exporters.manifest_json import manifest_from_json
from gatedeploy.exporters.reference import difference, fingerprint, reference_picture
from gatedeploy.exporters.surgery import opened
from gatedeploy.exporters.to_onnx import check_onnx
from gatedeploy.exporters.verification import TOLERANCE
from gatedeploy.files import sha256
from gatedeploy.parity import FLOAT32, Parity
from gatedeploy.runners.base import Array, Runner
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


@dataclass(frozen=True)
class BundleCheck:
    """What `verify_bundle` found; all of it held.

    Args:
        files: how many files were read and hashed.
        size_bytes: of all of them.
        runtime: what ran the network.
        parity: per output, how far it is from what the manifest remembers.
    """

    files: int
    size_bytes: int
    runtime: str
    parity: Parity


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle: its manifest, and that the folder holds the files listed there, unchanged, and nothing else.

    Raises:
        InputError: it is no bundle, of another version, or holds what no bundle may hold: links, names that leave it.
        CheckError: it is damaged: a file is missing, was added, or has changed, the manifest itself included.
    """
    path = Path(path)
    manifest = read_manifest(path)
    with located(str(path)), _readable():
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
    with located(str(file)), _readable():
        size = file.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise InputError(f"has {size:,} bytes; no bundle's manifest is that large")
        try:
            text = file.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"not text ({error.reason}); export or copy the bundle again") from None
        return manifest_from_json(text)


def verify_bundle(path: Path | str, *, threads: int | None = None) -> BundleCheck:
    """Prove that a bundle is whole and that ONNX Runtime computes with it here what it computed where it was made.

    There is no PyTorch network in a bundle to compare with. Instead the manifest remembers of every output, for one
    picture made of a seed, numbers that PyTorch computed in float64 (see `gatedeploy.exporters.reference`). The same
    picture is made here, run, and its outputs' numbers are compared, to the tolerance of the manifest's own
    verification but never a looser one than float32 needs.

    Raises:
        InputError: see `read_bundle`.
        MissingExtraError: onnxruntime is not installed.
        CheckError: a file is damaged, is not valid ONNX, has other inputs or outputs than the manifest says, or
            computes other numbers.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    with located(str(bundle.model)):
        _check_model(bundle.model)
    with open_model(bundle.model, manifest.precision, threads) as runner, located(str(bundle.model)):
        _check_ports(manifest, runner)
        reference = manifest.reference
        picture = reference_picture(manifest.input, reference.batch, reference.seed)
        parity = compare_with_reference(manifest, runner.infer({manifest.input.name: picture}))
        parity.check("on this machine the network")
    sizes = [(bundle.path / name).stat().st_size for name in (MANIFEST, *manifest.files)]
    return BundleCheck(len(sizes), sum(sizes), runner.name, parity)


def compare_with_reference(manifest: Manifest, got: Mapping[str, Array]) -> Parity:
    """How far outputs for the reference picture are from what the manifest remembers, relative to their scale.

    Raises:
        CheckError: an output has another shape.
    """
    error = {}
    for name, expected in manifest.reference.outputs.items():
        seen = fingerprint(got[name])
        if seen.shape != expected.shape:
            raise CheckError(f"output {name!r}: expected the shape {expected.shape}, got {seen.shape}")
        error[name] = difference(expected, seen)
    return Parity(error, min(TOLERANCE.get(manifest.precision, FLOAT32), manifest.reference.tolerance))


@contextmanager
def open_model(file: Path, precision: str, threads: int | None = None) -> Iterator[OnnxRuntimeRunner]:
    """The network of a bundle in ONNX Runtime on the CPU; bfloat16, for which that has no kernels, is emulated."""
    if precision != "bf16":
        with OnnxRuntimeRunner(file, threads=threads) as runner:
            yield runner
        return
    import onnx

    with opened(emulated(onnx.load(str(file)), precision), threads) as runner:
        yield runner


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error


def _check_model(file: Path) -> None:
    try:
        check_onnx(file)
    except CheckError as error:
        raise CheckError(
            f"{error}; its hash fits, so it was not damaged on its way but written like this: export the network again"
        ) from error


def _check_ports(manifest: Manifest, runner: Runner) -> None:
    image = manifest.input.name
    ports = {spec.name: spec for spec in (*runner.inputs, *runner.outputs)}
    said = {spec.name: spec for spec in manifest.outputs}
    names = [spec.name for spec in runner.inputs], [spec.name for spec in runner.outputs]
    if names != ([image], list(said)):
        raise CheckError(
            f"takes {', '.join(names[0])} and returns {', '.join(names[1])}; its manifest says {image} and "
            f"{', '.join(said)}"
        )
    shapes = {image: ("batch", *manifest.input.shape), **{name: spec.shape for name, spec in said.items()}}
    for name, shape in shapes.items():
        if ports[name].shape != shape:
            raise CheckError(f"{name!r} is {ports[name]}; its manifest says the shape is {shape}")


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
