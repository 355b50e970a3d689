"""The report as JSON, Markdown and a page."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError, validate

import gatedeploy as gd
from gatedeploy.benchmarks import page
from gatedeploy.benchmarks.latency import Measurement, Ratio
from gatedeploy.benchmarks.page import render_json, render_markdown, render_page, write_report
from gatedeploy.benchmarks.report import Report
from gatedeploy.benchmarks.sections import sections, tiles
from gatedeploy.benchmarks.words import human, three_digits
from gatedeploy.errors import GatedeployError
from tests.benchmarks.tiny import EVIL, some_candidate, some_report

KEYS = {
    *("format", "version", "created", "command", "paths", "tasks", "input", "baseline", "candidates", "beside"),
    "sharing",
    *("accuracy", "reductions", "published", "latency", "environment", "warnings", "notes", "missing", "against"),
}
SCHEMA = json.loads((page.TEMPLATES / "report.schema.json").read_text(encoding="utf-8"))


class Page(HTMLParser):
    """What a browser would make of a page: elements, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.images += [values["src"] or ""] if tag == "img" else []
        self.links += [values[key] or "" for key in ("href", "src", "xlink:href", "action") if key in values]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_flipped_gates_are_told() -> None:
    """Parity with the flipped network is not parity with the one that was trained."""
    report = some_report()
    assert "flipped" not in render_markdown(report)
    candidates = tuple(replace(each, flipped_gates=3 * (each.kind == "collapsed")) for each in report.candidates)
    told = render_markdown(replace(report, candidates=candidates))
    assert "gated network with flipped gates, float64" in told
    assert "that is another network, and nobody measured it" in told


def test_the_json_is_of_its_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    plain = json.loads(render_json(some_report(("noisy",))))
    validate(plain, SCHEMA)
    assert set(SCHEMA["properties"]) == KEYS
    with pytest.raises(ValidationError, match="'unheard' was unexpected"):
        validate({**plain, "unheard": 1}, SCHEMA)
    full = plain["candidates"]["mtl"]
    assert full["batches"].keys() == {"8"}
    assert full["throughput"] == {"1": 1000, "8": 2000}
    assert [each["saturated"] for each in full["offered"]] == [False, False, True]
    assert full["footprint"] == {"load_ms": 12.0, "first_ms": 3.0, "memory_bytes": 5000000}
    assert full["energy"] == {"joules": 0.02, "watts": 20.0, "requests": 100}
    thin = plain["candidates"]["collapsed"]
    assert thin["realisation"] == pytest.approx(1.5 / 1.3)
    assert thin["latency"]["samples_ms"] == [[1.5, 1.515], [1.485, 1.5]]
    assert thin["parity"] == {"onnx": {"depth": 1e-6}, "collapse": {"depth": 1e-12}}


def test_every_key_of_the_json_is_described() -> None:
    from gatedeploy.benchmarks import report

    described = re.findall(r"^    ([a-z]+(?:, [a-z]+)*)  ", report.__doc__ or "", re.MULTILINE)
    assert {key for line in described for key in line.split(", ")} == KEYS


def test_the_page_holds_every_picture_and_table_and_nothing_from_elsewhere() -> None:
    text = render_page(some_report())
    parsed = Page(text)
    assert parsed.tags.count("svg") == 9
    costs = ("ratios", "realisation", "accuracy-macs", "accuracy-ms")
    pictures = (*costs, "throughput", "offered", "layers", "specific-0", "mix-0")
    for name in (f"plot-{picture}" for picture in pictures):
        assert name in parsed.ids
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [link for link in parsed.links if not link.startswith("#")] == parsed.images
    assert len(parsed.images) == 2
    assert all(link.startswith("data:image/png;base64,") for link in parsed.images)
    assert "://" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not {"script", "iframe", "link", "object"} & set(parsed.tags)
    headings = ("Cost and latency", "MACs by operator", "Accuracy", "Precision", "Sharing by site", "Parity", "Tasks")
    for heading in (*headings, "Environment", "1 MAC is one multiply-add", "gatedeploy bench 'a <b>.pt'", "Δ_MTL"):
        assert heading in parsed.text
    assert all(f"#{identifier}" in text for identifier in ("plot-",))


def test_the_key_of_colours_stands_under_predictions() -> None:
    report = some_report()
    assert "Colours of" not in render_page(report)
    text = render_page(replace(report, tasks=(gd.Task("parts", "segmentation", ("road", EVIL)), *report.tasks)))
    (key,) = re.findall(r'<ul class="legend" aria-label="Colours of parts">.*?</ul>', text)
    assert "road" in key
    assert EVIL not in text


def test_accuracy_stands_against_cost_where_both_are_known() -> None:
    report = some_report()
    text = render_page(report)
    by_macs, by_ms = (
        re.findall(rf'<svg id="plot-accuracy-{name}".*?</svg>', text, re.DOTALL)[0] for name in ("macs", "ms")
    )
    assert "InterroGate &lt;1&gt;" in by_macs
    assert "what InterroGate's table 5 tells of the same set-up" in Page(text).text
    assert "InterroGate" not in by_ms  # a paper's milliseconds are another machine's
    assert "2 single-task networks" in by_macs
    assert "2 single-task networks" in by_ms
    assert "One shared encoder" not in by_ms  # nobody measured what it reaches
    alone = replace(report, candidates=tuple(replace(each, measured="") for each in report.candidates))
    assert "plot-accuracy" not in render_page(alone)


def test_what_reduced_precision_costs_is_told() -> None:
    report = some_report()
    row = next(line for line in render_markdown(report).splitlines() if "min-max" in line)
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells[1:] == ["int8", "min-max", "depth rmse ↓", "0.4", "0.5", "+25.00", "7", "1"]
    (plain,) = json.loads(render_json(report))["reductions"].values()
    assert plain["reduced"] == {"depth": {"rmse": 0.5}, "kind": {}}


def test_ours_stand_beside_each_rival_with_intervals() -> None:
    """Two rounds, in which the collapsed network takes 1.5 / 2.1 and 1.5 / 1.0 of the others' time."""
    plain = json.loads(render_json(some_report()))
    assert set(plain["beside"]) == {"collapsed"}
    assert plain["beside"]["collapsed"]["stl"]["value"] == pytest.approx(1.5 / 2.1, abs=0.01)
    assert plain["beside"]["collapsed"]["mtl"]["value"] == pytest.approx(1.5, abs=0.01)
    text = render_markdown(some_report())
    assert "## Beside each rival" in text
    assert "the latency of 2 single-task networks (95 % interval 0.71 to 0.71)" in text


def test_parity_names_the_runtime() -> None:
    report = some_report()
    elsewhere = replace(report, latency={**report.latency, "runtime": "openvino"})
    assert "PyTorch, in openvino" in render_markdown(elsewhere)


def test_references_inside_pictures_lead_somewhere() -> None:
    text = render_page(some_report())
    ids = set(Page(text).ids)
    referred = re.findall(r'(?:url\(#|href="#)([^")]+)', text)
    assert referred
    assert set(referred) <= ids


def test_names_are_text_on_the_page() -> None:
    parsed = Page(render_page(some_report(("noise of </li><script>",))))
    assert "script" not in parsed.tags
    for text in (EVIL, "](", "|", "no experts <here>", "some <cpu>", "noise of </li><script>"):
        assert text in parsed.text


def test_names_are_text_in_markdown() -> None:
    text = render_markdown(some_report(("noise\nof <b> | *stars*",)))
    assert "<script" not in text
    assert "<b>" not in text.replace("'a <b>.pt'", "")
    assert r"&lt;b&gt; \| \*stars\*" in text
    assert r"alert('\$x\$')" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for line in tables:
        assert line.rstrip().endswith("|")
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    assert all(width > 2 for width in widths)


def test_the_noise_warning_is_there_when_there_is_noise_and_only_then() -> None:
    assert "noise" not in Page(render_page(some_report())).ids
    noisy = some_report(("collapsed: rounds differ by 50%",))
    assert "noise" in Page(render_page(noisy)).ids
    assert "rounds differ by 50%" in Page(render_page(noisy)).text
    assert "**Noisy:** collapsed: rounds differ by 50%" in render_markdown(noisy)


def test_what_is_missing_is_told_first() -> None:
    assert "incomplete" not in Page(render_page(some_report())).ids
    stopped = replace(some_report(), missing=("batches", "offered load"))
    parsed = Page(render_page(stopped))
    assert "incomplete" in parsed.ids
    assert "The measurement was stopped. What is missing: batches, offered load." in parsed.text
    assert "**Not complete:** the measurement was stopped. What is missing: batches, offered load" in render_markdown(
        stopped
    )


def test_where_noise_hides_a_ratio_no_number_is_given() -> None:
    report = some_report()
    unsure = [
        replace(each, ratio=Ratio(1.5, 0.9, 2.2)) if each.kind == "collapsed" else each for each in report.candidates
    ]
    noisy = replace(report, candidates=tuple(unsure))
    thin = json.loads(render_json(noisy))["candidates"]["collapsed"]
    assert thin["latency"]["ratio"] == {"value": None, "low": 0.9, "high": 2.2}
    assert thin["realisation"] is None
    assert "| too noisy to tell | 0.90 to 2.20 |" in render_markdown(noisy)
    assert [tile.value for tile in tiles(noisy)][:2] == ["1.30\u00a0×", "?"]
    assert not any("realisation" in tile.meaning for tile in tiles(noisy))
    ratios, realisation = (drawn(noisy, name) for name in ("ratios", "realisation"))
    assert ">1.30</text>" in ratios  # its multiply-adds are as they are
    assert ">1.50</text>" not in ratios
    assert ">?</text>" in ratios
    assert "Collapsed" not in realisation
    assert render_page(noisy).count("too noisy to tell is left out") > render_page(report).count("is left out") == 0
    assert "Where a question mark stands the machine was too noisy" in Page(render_page(noisy)).text
    assert ">?</text>" not in drawn(report, "ratios")


def drawn(report: Report, name: str) -> str:
    (picture,) = re.findall(rf'<svg id="plot-{name}".*?</svg>', render_page(report), re.DOTALL)
    return str(picture).rpartition("</title>")[2]


def test_where_others_had_the_processor_no_milliseconds_are_given() -> None:
    """Whoever is as disturbed as the baseline has a ratio nevertheless."""

    def held_up(each: Measurement) -> Measurement:
        return replace(each, cpu_ms=tuple(tuple(time / 2 for time in turn) for turn in each.samples_ms))

    report = some_report()
    thin = report.candidates[2]
    assert thin.kind == "collapsed"
    batches = {size: held_up(each) for size, each in thin.batches.items()}
    hurt = replace(thin, measurement=held_up(thin.measurement), batches=batches)
    noisy = replace(report, candidates=(*report.candidates[:2], hurt))
    (row,) = (row for row in sections(noisy)[0].table.rows if row[0].startswith("Collapsed"))
    assert row[1:3] == ("1.30", "1.50")
    assert row[9:12] == ("too noisy to tell", "–", "–")
    assert thin.throughput.keys() == {1, 8}
    assert hurt.throughput == {}
    assert "Collapsed" in drawn(report, "throughput")
    assert "Collapsed" not in drawn(noisy, "throughput")
    assert "More is better. What the machine was too noisy to tell is left out." in Page(render_page(noisy)).text
    assert "plot-accuracy-macs" in render_page(noisy)
    assert "plot-accuracy-ms" not in render_page(noisy)  # of the other two only one is there


def test_rendering_is_deterministic() -> None:
    assert render_page(some_report()) == render_page(some_report())


def test_dark_and_light_share_the_pictures() -> None:
    text = render_page(some_report())
    assert "prefers-color-scheme: dark" in text
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--ours)" in pictures
    assert not re.findall(r"#[0-9a-f]{6}\b", pictures)


def test_the_headline_figures() -> None:
    shown = [(tile.value.replace("\u00a0", " "), tile.meaning) for tile in tiles(some_report())]
    assert shown == [
        ("1.30 ×", "the MACs of one shared encoder"),
        ("1.50 ×", "the latency of one shared encoder"),
        ("0.71 ×", "the latency of 2 single-task networks (95 % interval 0.71 to 0.71)"),
        ("1.15", "realisation: latency ratio ÷ MAC ratio; 1 is what MACs promise"),
    ]
    noisy = [tile.meaning for tile in tiles(some_report(("noisy",)))]
    assert "the processor time of one shared encoder, which noise hurts less" in noisy


def test_a_report_of_one_network_alone() -> None:
    whole = some_report()
    alone = replace(whole, baseline="collapsed", candidates=whole.candidates[2:], sharing={}, accuracy=())
    assert tiles(alone) == []
    assert "Accuracy" not in [section.heading for section in sections(alone)]
    assert "# gatedeploy: depth, kind" in render_markdown(alone)
    # Nothing is compared with itself: no picture of that, no ratio, no word of rivals.
    page = Page(render_page(alone))
    assert [name for name in page.ids if name.startswith("plot-") and name.count("-") == 1] == [
        *("plot-throughput", "plot-offered", "plot-layers"),
    ]
    assert "no experts <here>" in page.text
    cost = sections(alone)[0]
    assert cost.table.columns == ("", "MACs", "parameters", "file", "median", "p90", "p99", "spread")
    assert len(cost.table.rows[0]) == len(cost.table.columns)
    assert "2 rounds. A percentile is told where at least 10 requests lie beyond it." in cost.text


def test_without_rivals_ratios_are_named_by_what_they_refer_to() -> None:
    whole = some_report()
    ours = (some_candidate("collapsed", "Collapsed", 1300, 1.5), some_candidate("bundle", "Bundle", 1300, 1.2))
    cost = sections(replace(whole, baseline="collapsed", candidates=ours))[0]
    assert cost.table.columns[1:3] == ("MACs ÷ collapsed", "latency ÷ collapsed")
    assert "Ratios are taken within a round; " in cost.text
    assert "same compiler" not in cost.text  # nobody else is there
    assert "shared encoder" not in cost.text
    assert "Single-task networks and the shared encoder went through the same compiler" in sections(whole)[0].text


def test_an_interrupted_writing_leaves_the_old_report_and_no_half_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(some_report(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"report.json", "report.md", "report.html"}

    def fails(report: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "render_page", fails)
    with pytest.raises(KeyboardInterrupt):
        write_report(some_report(("changed",)), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_disk_that_is_full_at_any_file_leaves_the_old_report_whole(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(some_report(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = itertools.count()

    def full(handle: int) -> None:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    name = ("json", "md", "html")[number]
    with pytest.raises(GatedeployError, match=f"report.{name}: could not be written: No space left on device"):
        write_report(some_report(("changed",)), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_disk_that_refuses_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GatedeployError, match=r"report.json: could not be written: "):
        write_report(some_report(), tmp_path / "file")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (1234, "1.23 k"), (29_000_000, "29.0 M")),
        *((36292608, "36.3 M"), (99_960_000, "100 M"), (999_499, "999 k"), (999_500, "1.00 M"), (683e9, "683 G")),
        *((2e12, "2,000 G"), (2.3456e12, "2,350 G")),
    ],
)
def test_counts_for_people(number: float, text: str) -> None:
    assert human(number).replace("\u00a0", " ").strip() == text


@pytest.mark.parametrize(
    ("number", "text"), [(0.01234, "0.0123"), (4, "4.00"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1,230")]
)
def test_times_for_people(number: float, text: str) -> None:
    assert three_digits(number) == text
