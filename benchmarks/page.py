"""Writing a report: `report.json`, `report.md`, and `report.html`, one page that needs nothing from elsewhere.

Names of tasks, classes, files and gate sites are untrusted text. The page's templates escape all that is put into them;
only our own pictures, in which names are escaped already, are put in as they are. The page's content policy forbids
scripts and everything from the net besides.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gatedeploy.benchmarks.accuracy import SINGLE
from gatedeploy.benchmarks.candidates import OURS
from gatedeploy.benchmarks.latency_sections import LONGEST, baseline_title, profiled
from gatedeploy.benchmarks.layers import Layer, shares
from gatedeploy.benchmarks.look import inline_svg
from gatedeploy.benchmarks.pareto import Place, accuracy_against
from gatedeploy.benchmarks.plots import Point, Series, growth, latency_against_macs, ratio_bars, share_bars
from gatedeploy.benchmarks.predictions import class_colours
from gatedeploy.benchmarks.report import CandidateReport, Report
from gatedeploy.benchmarks.sections import sections, tiles
from gatedeploy.benchmarks.sharing import MIX, SPECIFIC, sharing_figure
from gatedeploy.files import replacing_file

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Args:
        title: what it shows.
        text: how to read it.
        svg: the picture, as an `svg` element.
    """

    title: str
    text: str
    svg: Markup


def write_report(report: Report, out: Path) -> dict[str, Path]:
    """Write a report into the folder `out`, all three files or none.

    Returns:
        The files by kind, see `report_files`.

    Raises:
        GatedeployError: the disk refuses.
    """
    texts = {"json": render_json(report), "md": render_markdown(report), "html": render_page(report)}
    files = report_files(out)
    # A report must not be half of one measurement and half of another: all files are complete on the disk, under
    # temporary names, before the end of this block renames the first.
    with ExitStack() as stack:
        for kind, text in texts.items():
            temporary = stack.enter_context(replacing_file(files[kind]))
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    return files


def report_files(out: Path) -> dict[str, Path]:
    """The files of a report in the folder `out`, by kind: "json", "md", "html"."""
    return {kind: out / f"report.{kind}" for kind in ("json", "md", "html")}


def render_json(report: Report) -> str:
    """The report as JSON, see `gatedeploy.benchmarks.report`."""
    return json.dumps(report.plain(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def render_markdown(report: Report) -> str:
    """The report as Markdown, without pictures."""
    template = environment(autoescape=False).get_template("report.md")
    return template.render(report=report, tiles=tiles(report), sections=sections(report))


def render_page(report: Report) -> str:
    """The report as one page of HTML."""
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    template = environment(autoescape=True).get_template("report.html")
    shown = {"tiles": tiles(report), "sections": sections(report), "pictures": list(_pictures(report))}
    keys = {task.name: colours for task in report.tasks if (colours := class_colours(task))}
    return template.render(report=report, css=css, keys=keys, **shown)


def environment(autoescape: bool) -> Environment:
    """What renders templates; with `autoescape` all that is put into them is text."""
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters.update(md=_markdown, oneline=_one_line, image=_image)
    return made


def _markdown(text: Any) -> str:
    """Text in which nothing is taken for Markdown or HTML, nor for the end of a table's cell."""
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", escape(_one_line(text), quote=False))


def _image(shown: bytes | str, words: str) -> str | Markup:
    """A PNG file as a picture of the page, words as they are."""
    if isinstance(shown, str):
        return shown
    data = base64.b64encode(shown).decode("ascii")
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(words, data)


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _pictures(report: Report) -> Iterator[Picture]:
    baseline = next(each for each in report.candidates if each.name == report.baseline)
    points = [
        Point(each.title, each.kind in OURS, each.macs_ratio, each.ratio)
        for each in report.candidates
        if each.macs_ratio is not None
    ]
    told = [point for point in points if point.latency.told]
    if points and report.compares:
        yield _picture(
            "plot-ratios",
            "MACs and latency",
            f"Pale: MACs; solid: latency, with its 95 % interval. Both as multiples of “{baseline.title}”."
            + ("" if told == points else " Where a question mark stands the machine was too noisy to tell a latency."),
            ratio_bars(points, baseline.title),
        )
    if len(told) > 1:
        yield _picture(
            "plot-realisation",
            "Latency against MACs",
            _realisations(report) + (LEFT_OUT if told != points else ""),
            latency_against_macs(told, baseline.title),
        )
    yield from _accuracies(report)
    for name, title, text, x, y, read in GROWTHS:
        found = [(each, read(each)) for each in report.candidates]
        lines = [Series(each.title, each.kind in OURS, grown) for each, grown in found if len(grown) > 1]
        if lines:
            noisy = name == "throughput" and any(
                len(each.throughput) <= len(each.batches) for each in report.candidates
            )
            yield _picture(f"plot-{name}", title, text + (LEFT_OUT if noisy else ""), growth(lines, x, y))
    ours = profiled(report)
    if ours is not None:
        yield _picture(
            "plot-layers",
            "Where the time goes",
            f"Pale: MACs; solid: time. The longest layers of “{ours.title}”, in the order in which they run.",
            share_bars(_longest(ours.layers)),
        )
    for number, (label, sites) in enumerate(report.sharing.items()):
        where = f" ({label})" if len(report.sharing) > 1 else ""
        for name, panel, text in (
            (
                "specific",
                SPECIFIC,
                "By gate site and task, from the input down; the stronger the colour, the more goes its own way.",
            ),
            (
                "mix",
                MIX,
                "How much each task gives to the feature that the shared branch reads on from, the mean over channels.",
            ),
        ):
            if sites:
                figure = sharing_figure(sites, [panel])
                yield _picture(f"plot-{name}-{number}", f"{panel.capitalize()}{where}", text, figure)


LEFT_OUT = " What the machine was too noisy to tell is left out."
LINE = "Circles are ours, squares what one would run instead; the line joins those of ours that no other of ours beats."


def _accuracies(report: Report) -> Iterator[Picture]:
    """Δ_MTL against multiply-adds and against milliseconds, where both are known of several candidates."""
    gains = {row.name: row.compared.delta_mtl for row in report.accuracy if row.compared}
    gains = {**gains, SINGLE: 0.0}
    known = [(each, gain) for each in report.candidates if (gain := gains.get(each.measured)) is not None]
    if len(known) < 2:
        return
    beside = f"MACs, × {baseline_title(report)}"
    in_macs = [(each, gain, each.macs_ratio) for each, gain in known if each.macs_ratio is not None]
    in_time = [(each, gain, each.told_ms) for each, gain in known if each.told_ms is not None]
    left_out = LEFT_OUT.strip() if len(in_time) < len(known) else ""
    paper = [Place(each.name, "published", each.macs_ratio, each.delta_mtl) for each in report.published]
    hollow = f"Hollow: what InterroGate's {report.published[0].source} tells of the same set-up." if paper else ""
    for name, title, axis, found, more, told in (
        ("macs", "Accuracy against MACs", beside, in_macs, paper, hollow),
        ("ms", "Accuracy against milliseconds", "milliseconds, the median request", in_time, [], left_out),
    ):
        text = f"Up and to the left is better; single-task networks lie at a gain, Δ_MTL, of 0. {LINE} {told}".rstrip()
        places = [Place(each.title, "ours" if each.kind in OURS else "rival", cost, gain) for each, gain, cost in found]
        if len(places) > 1:
            yield _picture(f"plot-accuracy-{name}", title, text, accuracy_against({axis: [*places, *more]}))


def _longest(layers: Sequence[Layer]) -> list[tuple[str, float, float]]:
    """Of the longest layers, the share of the multiply-adds and of the time, in the order in which they run."""
    known = list(zip(layers, shares(layers), strict=True))
    longest = sorted(range(len(known)), key=lambda number: -known[number][1][0])[:LONGEST]
    return [(known[number][0].name, known[number][1][1], known[number][1][0]) for number in sorted(longest)]


def _throughputs(each: CandidateReport) -> list[tuple[float, float]]:
    return sorted(each.throughput.items())


def _waits(each: CandidateReport) -> list[tuple[float, float]]:
    found = [(offered.rate, offered.percentile_ms(90)) for offered in each.offered]
    return [(rate, wait) for rate, wait in found if wait is not None]


GROWTHS = (
    (
        *("throughput", "Throughput", "More is better."),
        *("pictures in a request", "pictures a second", _throughputs),
    ),
    (
        *("offered", "Offered load", "Less is better; a line ends before what is more than the network answers."),
        *("requests a second, at random", "milliseconds to the answer, p90", _waits),
    ),
)
"""What grows, and what becomes of it: a name, title and text, both axes, and what reads the points of a candidate."""


def _picture(name: str, title: str, text: str, figure: Any) -> Picture:
    return Picture(title, text, Markup(inline_svg(figure, name, f"{title}: {text}")))  # escaped there


def _realisations(report: Report) -> str:
    said = [
        f"{each.title} {each.realisation:.2f}" for each in report.candidates if each.kind in OURS and each.realisation
    ]
    text = "On the dashed line the milliseconds are what the MACs promise."
    return f"{text} Realisation (latency ratio ÷ MAC ratio): {', '.join(said)}." if said else text
