"""Prove that a bundle computes here what it computed where it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, located
from gatedeploy.exporters.manifest import MANIFEST, Manifest
from gatedeploy.exporters.opening import check_ports, open_runner
from gatedeploy.exporters.precision.table import PRECISIONS
from gatedeploy.exporters.reading import Bundle, open_model, read_bundle
from gatedeploy.exporters.reference import difference, fingerprint, reference_picture
from gatedeploy.exporters.to_onnx import check_onnx
from gatedeploy.parity import Parity
from gatedeploy.runners.base import Array, Runner


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


def verify_bundle(
    path: Path | str, *, runtime: str = "onnxruntime", threads: int | None = None, trust: bool = False
) -> BundleCheck:
    """Prove that a bundle is whole and that a runtime computes with it here what was computed where it was made.

    There is no PyTorch network in a bundle to compare with. Instead the manifest remembers of every output, for one
    picture made of a seed, numbers that PyTorch computed in float64 (see `gatedeploy.exporters.reference`). The same
    picture is made here, run, and its outputs' numbers are compared, to the tolerance of the manifest's own
    reference but never a looser one than rounding in its precision needs.

    Args:
        path: the bundle's folder.
        runtime: what shall compute; see `gatedeploy.exporters.opening`.
        threads: how many threads compute; None leaves it to the runtime.
        trust: run engines that somebody else built.

    Raises:
        InputError: see `read_bundle`; there is no such runtime, or nothing for it in the bundle.
        MissingExtraError: the runtime is not installed.
        CheckError: a file is damaged, is not valid ONNX, has other inputs or outputs than the manifest says, or
            computes other numbers.
    """
    bundle = read_bundle(path)
    manifest = bundle.manifest
    with located(str(bundle.model)):
        _check_model(bundle.model)
    with _opened(bundle, runtime, threads, trust) as runner, located(str(bundle.path / bundle.runs(runtime)[0])):
        check_ports(manifest, runner)
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
    return Parity(error, min(PRECISIONS[manifest.precision].tolerance, manifest.reference.tolerance))


@contextmanager
def _opened(bundle: Bundle, runtime: str, threads: int | None, trust: bool) -> Iterator[Runner]:
    """Whatever is asked for; ONNX Runtime emulates bfloat16, for it is the one runtime that is always there."""
    if runtime == "onnxruntime":
        with open_model(bundle.model, bundle.manifest.precision, threads) as runner:
            yield runner
        return
    with open_runner(bundle.path, runtime, threads, trust=trust) as runner:
        yield runner


def _check_model(file: Path) -> None:
    try:
        check_onnx(file)
    except CheckError as error:
        raise CheckError(
            f"{error}; its hash fits, so it was not damaged on its way but written like this: export the network again"
        ) from error
