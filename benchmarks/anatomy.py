"""What a collapsed network is made of, as a page: which branches live where, how wide, and by which kernels.

A row is a layer of the backbone or of a head, in all branches, or an addition or a mix; a box is a tensor that it
makes, as wide as it has channels, in the colours of the branches whose layers make them. Details stand in the boxes'
titles, which browsers show where the pointer rests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from gatedeploy.artifact import ModelInfo
from gatedeploy.benchmarks.look import short
from gatedeploy.benchmarks.page import TEMPLATES, environment
from gatedeploy.benchmarks.words import human, three_digits
from gatedeploy.errors import InputError
from gatedeploy.graph.cost import cost, macs_of
from gatedeploy.program import Program
from gatedeploy.shapes import shapes_of
from gatedeploy.specs import SHARED

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#7b5ea7")
"""By task, those of Okabe and Ito first; from the ninth on they come again."""

WIDTH, LABEL, BARS, PITCH, TALL, GAP = 920, 210, 150, 24, 16, 6
"""Pixels: of the picture, of its names and of its bars; between rows, of a box, and between boxes."""


@dataclass(frozen=True)
class Box:
    """A tensor.

    Args:
        rows: its channels by the branch or head whose layers make them; `""` for what several make together.
        title: what there is to know of it.
    """

    rows: Mapping[str, int]
    title: str


@dataclass(frozen=True)
class Row:
    """A layer in all branches.

    Args:
        name: of the layer.
        boxes: the tensors that it makes.
        amount: what it costs.
        plain: what it would cost as one tensor per branch; None where that is not known.
        told: both, in words.
    """

    name: str
    boxes: tuple[Box, ...]
    amount: float
    plain: float | None
    told: str


def anatomy_page(program: Program, info: ModelInfo, name: str) -> str:
    """A page of its own: HTML that needs nothing from elsewhere.

    Args:
        program: a collapsed network.
        info: what travels with it; how it was laid out stands in its report.
        name: of the file.

    Raises:
        InputError: its report is damaged.
    """
    layout = info.report.get("layout") or []
    tasks = [task.name for task in info.tasks]
    rows = list(_of_layout(layout, tasks) if layout else _of_program(program, tasks))
    branches = list(dict.fromkeys(branch for row in rows for box in row.boxes for branch in box.rows))
    colours = {branch: _colour(branch, tasks) for branch in sorted(branches, key=lambda each: _place(each, tasks))}
    counted = cost(program)
    unit = "predicted milliseconds; pale: of one tensor per branch" if layout else "multiply-adds"
    return (
        environment(autoescape=True)
        .get_template("anatomy.html")
        .render(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            name=name,
            info=info,
            macs=human(counted.macs),
            params=human(counted.params),
            unit=unit,
            legend=[(branch or "of several", colour) for branch, colour in colours.items()],
            picture=Markup(_picture(rows, colours)),  # names are escaped there
        )
    )


def _of_layout(layout: Any, tasks: Sequence[str]) -> Iterator[Row]:
    """Rows as the compiler laid them out; see `gatedeploy.graph.choices.SiteChoice`."""
    try:
        for site in layout:
            name = ", ".join(map(str, site["layers"]))
            boxes = tuple(_laid_out(tensor, _head(name, tasks)) for tensor in site["tensors"])
            amount = sum(float(tensor["ms"]) for tensor in site["tensors"])
            plain = float(site["plain_ms"])
            told = f"{three_digits(1e3 * amount)} µs predicted, {three_digits(1e3 * plain)} µs as one tensor per branch"
            yield Row(name, boxes, amount, plain, told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"its report of the layout is damaged ({type(error).__name__}: {error})") from None


def _laid_out(tensor: Mapping[str, Any], head: str) -> Box:
    rows = {str(branch) or head: int(count) for branch, count in tensor["rows"].items()}
    kernels = [f"{kernel['tactic']} ({int(kernel['channels'])} channels)" for kernel in tensor["kernels"]]
    copies = f"; {int(tensor['copies'])} copies of {int(tensor['copied_bytes']):,} bytes" if tensor["copies"] else ""
    title = f"{_channels(rows)}; reads: {', '.join(kernels)}{copies}; {three_digits(1e3 * float(tensor['ms']))} µs"
    return Box(rows, title)


def _of_program(program: Program, tasks: Sequence[str]) -> Iterator[Row]:
    """Rows of a network that was not laid out by price: its layers, by the branch that they are named after."""
    shapes = shapes_of(program)
    found: dict[str, list[tuple[Box, int]]] = {}
    for node in program.graph.nodes:
        macs = macs_of(node, shapes) if node.op == "call_function" else 0
        if not macs:
            continue
        weight = str(node.args[1].target).removesuffix(".weight")
        branch, _, layer = weight.partition(".")
        if branch not in (SHARED, *tasks):
            branch, layer = _head(weight, tasks), weight
        shape = shapes[node.args[1]]
        rows = {branch: int(shape[0])}
        title = f"{_channels(rows)} of {int(shape[1])}; {human(macs).strip()} multiply-adds"
        found.setdefault(layer, []).append((Box(rows, title), macs))
    for layer, made in found.items():
        macs = sum(each for _, each in made)
        yield Row(layer, tuple(box for box, _ in made), macs, None, f"{human(macs).strip()} multiply-adds")


def _head(layer: str, tasks: Sequence[str]) -> str:
    """The only task that a layer can belong to: the one whose head it is of, or the only one; "" for others."""
    heads = {task for task in tasks for each in layer.split(", ") if each.startswith(f"heads.{task}.")}
    alone = heads or set(tasks)
    return alone.pop() if len(alone) == 1 else ""


def _channels(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} channels{f' of {branch}' if branch else ''}" for branch, count in rows.items())


def _colour(branch: str, tasks: Sequence[str]) -> str:
    if branch in tasks:
        return COLOURS[tasks.index(branch) % len(COLOURS)]
    return "var(--rival)" if branch == SHARED else "var(--grid)"


def _place(branch: str, tasks: Sequence[str]) -> int:
    return tasks.index(branch) + 1 if branch in tasks else 0 if branch == SHARED else len(tasks) + 1


def _picture(rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    most = max((len(row.boxes) for row in rows), default=1)
    widest = max((sum(sum(box.rows.values()) for box in row.boxes) for row in rows), default=1)
    scale = (WIDTH - LABEL - BARS - (most + 2) * GAP) / max(widest, 1)
    dearest = max((max(row.amount, row.plain or 0) for row in rows), default=1) or 1
    parts = []
    for number, row in enumerate(rows):
        top, told = GAP + PITCH * number, f"{row.name}: {row.told}"
        name = f'<text x="{LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(short(row.name))}</text>'
        bars = _rectangle(WIDTH - BARS, top, BARS * row.plain / dearest, "var(--ours)", 0.35) if row.plain else ""
        bars += _rectangle(WIDTH - BARS, top + 4, BARS * row.amount / dearest, "var(--ours)", tall=TALL - 8)
        parts += [_titled(told, name), *_boxes(row, top, scale, colours), _titled(told, bars)]
    box = f'viewBox="0 0 {WIDTH} {PITCH * len(rows) + GAP}"'
    return "\n".join([f'<svg {box} role="img" aria-label="The layers, from the input down">', *parts, "</svg>"])


def _boxes(row: Row, top: int, scale: float, colours: Mapping[str, str]) -> Iterator[str]:
    left = float(LABEL)
    for box in row.boxes:
        inside = ""
        for branch, count in box.rows.items():
            inside += _rectangle(left, top, scale * count, colours[branch])
            left += max(scale * count, 1)
        yield _titled(f"{row.name}: {box.title}", inside)
        left += GAP


def _titled(title: str, inside: str) -> str:
    return f'<g class="box"><title>{escape(title)}</title>{inside}</g>'


def _rectangle(left: float, top: int, width: float, colour: str, opacity: float = 1, tall: int = TALL) -> str:
    place = f'x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="{tall}"'
    return f'<rect {place} fill="{colour}" fill-opacity="{opacity:g}"/>'
