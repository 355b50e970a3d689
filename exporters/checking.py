"""Prove that a bundle computes here what it computed where it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatedeploy.errors import CheckError, located
from gatedeploy.exporters.manifest import MANIFEST, Manifest, Reference
from gatedeploy.exporters.opening import check_ports, open_runner
from gatedeploy.exporters.pieces import Batches, batches_to_try, cycled, in_pieces
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

    There is no PyTorch network in a bundle to compare with. Instead the manifest remembers of every output, for a few
    pictures made of a seed, numbers that PyTorch computed in float64 (see `gatedeploy.exporters.reference`). The same
    pictures are made here and run, one by one, together, and as few and as many at once as an engine takes. The
    numbers of the outputs are compared, to the tolerance of the manifest's own reference but never a looser one than
    rounding in its precision needs.

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
        engine = bundle.runs(runtime)[1]
        parity = compare_with_reference(manifest, runner, engine.batches if engine else None)
    sizes = [(bundle.path / name).stat().st_size for name in (MANIFEST, *manifest.files)]
    return BundleCheck(len(sizes), sum(sizes), runner.name, parity)


def compare_with_reference(manifest: Manifest, runner: Runner, batches: Batches = None) -> Parity:
    """How far a runner is from what the manifest remembers, by output and relative to its scale.

    Args:
        manifest: of the bundle.
        runner: of its network.
        batches: the batch sizes that this takes.

    Raises:
        CheckError: it is too far, or an output has another shape.
    """
    reference, image = manifest.reference, manifest.input
    pictures = reference_picture(image, reference.batch, reference.seed)
    allowed = min(PRECISIONS[manifest.precision].tolerance, reference.tolerance)
    worst = dict.fromkeys(reference.outputs, 0.0)
    for size in batches_to_try(reference.batch, batches):
        rounds = max(1, size // reference.batch)
        answers = in_pieces(runner, image.name, cycled(pictures, rounds * reference.batch), size, size)
        for start in range(0, rounds * reference.batch, reference.batch):
            got = {name: values[start : start + reference.batch] for name, values in answers.items()}
            parity = Parity(_differences(reference, got), allowed)
            parity.check(f"on this machine the network in {runner.name} at batch size {size}")
            worst = {name: max(error, parity.error[name]) for name, error in worst.items()}
    return Parity(worst, allowed)


def _differences(reference: Reference, got: Mapping[str, Array]) -> dict[str, float]:
    error = {}
    for name, expected in reference.outputs.items():
        seen = fingerprint(got[name])
        if seen.shape != expected.shape:
            raise CheckError(f"output {name!r}: expected the shape {expected.shape}, got {seen.shape}")
        error[name] = difference(expected, seen)
    return error


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
