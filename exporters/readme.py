"""`README.md` of a bundle, for whoever receives it and has never heard of gatedeploy."""

from __future__ import annotations

from pathlib import Path

from gatedeploy.exporters.manifest import LISTING, Engine, Manifest, labels_file, largest
from gatedeploy.runners.base import TensorSpec
from gatedeploy.specs import InputSpec, Task

EXAMPLE = """\
import numpy as np
import onnxruntime

mean, std = np.array({mean}), np.array({std})
picture = np.random.randint(0, 256, ({height}, {width}, {channels}))  # yours: (height, width, channels), 8 bits
image = ((picture / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]  # (1, {channels}, {height}, {width})
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
for name, prediction in zip(names, session.run(names, {{"{name}": image}})):
    print(name, prediction.shape, prediction.min(), prediction.max())
"""

MEANING = {
    None: "the network's raw prediction",
    "classification": "one score per class; the largest wins, and its position is the line in `{labels}`",
    "segmentation": "one score per class and pixel; the largest along axis 1 wins, and its position is the line in "
    "`{labels}`",
    "depth": "distance per pixel, in the unit that it was trained with",
    "normals": "surface normal per pixel, x, y and z along axis 1; divide by its length",
    "saliency": "a score per pixel, above 0 for what stands out; 1 / (1 + exp(-score)) is its probability",
    "edges": "a score per pixel, above 0 for an edge; 1 / (1 + exp(-score)) is its probability",
}


def readme(manifest: Manifest) -> str:
    """The text; everything in it is said by `manifest`, so it needs no file but that."""
    sections = [_title(manifest), _input(manifest.input), _outputs(manifest), _example(manifest.input)]
    return "\n".join([*sections, *_precision(manifest), *_engines(manifest), _costs(manifest), _check(manifest)])


def _title(manifest: Manifest) -> str:
    names = ", ".join(task.name for task in manifest.tasks)
    several = f"{len(manifest.tasks)} questions about one picture" if len(manifest.tasks) > 1 else "one question"
    return (
        f"# A network for {names}\n\n`model.onnx` answers {several} in one pass. `manifest.json` says all of the "
        f"below to programs.\n{_flipped(manifest.flipped_gates)}"
    )


def _flipped(count: int) -> str:
    if not count:
        return ""
    return (
        f"\nAfter it was trained, {count:,} of its gates' choices were flipped so that it computes whole vectors of "
        "channels. So it is not the network that was trained: what it reaches has to be measured.\n"
    )


def _input(spec: InputSpec) -> str:
    mean, std = map(list, spec.moments)
    order = ", in the order in which it was trained (RGB as a rule)" if spec.channels == 3 else ""
    return f"""## Input

`{spec.name}`: float32, (batch, {spec.channels}, {spec.height}, {spec.width}), channels first{order}; any batch size.
Resize a picture to {spec.height} × {spec.width} (height × width), then `(pixel / 255 - mean) / std` for each channel:

* mean {mean}
* std {std}
"""


def _outputs(manifest: Manifest) -> str:
    tasks = {task.name: task for task in manifest.tasks}
    rows = [_row(output, tasks[manifest.task_of[output.name]]) for output in manifest.outputs]
    return "\n".join(["## Outputs", "", "| output | shape | meaning |", "|---|---|---|", *rows, ""])


def _row(output: TensorSpec, task: Task) -> str:
    shape = ", ".join(map(str, output.shape))
    meaning = MEANING[task.kind].format(labels=labels_file(task))
    classes = f" ({len(task.classes)} classes)" if task.classes else ""
    return f"| `{output.name}` | ({shape}) | {task.name}: {meaning}{classes} |"


def _example(spec: InputSpec) -> str:
    mean, std = map(list, spec.moments)
    sizes = {"height": spec.height, "width": spec.width, "channels": spec.channels}
    code = EXAMPLE.format(mean=mean, std=std, name=spec.name, **sizes)
    return f"## Example\n\nIn this folder, after `pip install numpy onnxruntime`:\n\n```python\n{code}```\n"


def _engines(manifest: Manifest) -> list[str]:
    if not manifest.engines:
        return []
    rows = [
        f"| `{file}` | {engine.runtime} {engine.version} | {', '.join(engine.targets) or 'its choice'} | "
        f"{' / '.join(map(str, engine.batches)) if engine.batches else 'any'} | {_proof(engine)} |"
        for file, engine in manifest.engines.items()
    ]
    table = [
        "| file | library | made for | batch, smallest / usual / largest | error |",
        "|---|---|---|---|---|",
        *rows,
    ]
    listed = [
        f"`{Path(file).with_suffix(LISTING).as_posix()}`" for file, engine in manifest.engines.items() if engine.layers
    ]
    layers = f"\nWhat each layer is and which type it computes in is listed in {', '.join(listed)}." if listed else ""
    told = (
        "The same network, compiled. The error is the largest difference from the network it was made of, relative to\n"
        "the output's largest value. All but OpenVINO's are machine code, and most are made for one version of their\n"
        f"library: run only those whose maker you trust.{layers}"
    )
    return ["\n".join(["## Engines", "", told, "", *table, ""])]


def _proof(engine: Engine) -> str:
    error = largest(engine.error)
    if error is None:
        return "built, not run"
    lost = ", ".join(f"{task} {drop:+.2f} %" for task, drop in engine.lost.items())
    return f"{error:.1e}{f'; lost: {lost}' if lost else ''}"


def _precision(manifest: Manifest) -> list[str]:
    found = manifest.reduction
    if found is None:
        return []
    rows = [f"| {' | '.join(cells)} |" for cells in found.rows]
    table = [f"| task | metric | fp32 | {manifest.precision} |", "|---|---|---|---|", *rows]
    ranges = f" Ranges of values were taken from {found.calibrated_on} others ({found.calibration})." * bool(
        found.calibration
    )
    twin = "" if manifest.precision == "int8" else " Every value was rounded to the type, sums were kept in float32."
    lost = ", ".join(f"{task} {drop:+.2f} %" for task, drop in found.lost.items())
    kept = f"\n\nIn float32 stayed: {', '.join(f'`{name}`' for name in found.kept)}." if found.kept else ""
    layers = f"{found.layers} of {found.layers + len(found.kept)} layers"
    return [
        f"## Precision\n\n{layers} in {manifest.precision}, measured on {found.judged_on} pictures ({found.data})."
        f"{ranges}{twin}\n"
        f"Lost of what each task is judged by: {lost} (at most {found.max_drop:g} % was allowed).{kept}\n\n"
        + "\n".join([*table, ""])
    ]


def _costs(manifest: Manifest) -> str:
    costs = manifest.costs
    lines = [
        "## Costs",
        "",
        f"* {costs.macs:,} multiply-adds per picture (convolutions and linear layers)",
        f"* {costs.params:,} parameters, {costs.size_bytes:,} bytes, {manifest.precision}",
    ]
    if costs.gated.get("macs") and costs.gated.get("params"):
        lines.append(f"* as trained, before it was collapsed: {costs.gated['macs']:,} and {costs.gated['params']:,}")
    return "\n".join([*lines, ""])


def _check(manifest: Manifest) -> str:
    proof = manifest.verification
    rows = [
        f"| {batch} | `{output}` | {error:.1e} |"
        for batch, errors in proof.error.items()
        for output, error in errors.items()
    ]
    table = "\n".join(["| batch | output | error |", "|---|---|---|", *rows])
    before = " in float32, before its precision was reduced," if manifest.reduction else ""
    return f"""## Verification

Compared{before} with PyTorch in float64 when it was written, run by {proof.runtime}; the largest difference relative to
the output's largest value (at most {proof.tolerance:.0e} was allowed):

{table}

`gatedeploy verify .` (`pip install 'gatedeploy[cpu]'`) checks on your machine that no file has changed since, and that
your runtime computes the same numbers. `manifest.json` holds the SHA-256 of every other file and, as `content_sha256`
in its last entry, of its own text up to the comma before that entry. Hashes show damage, not who wrote a file.
"""
