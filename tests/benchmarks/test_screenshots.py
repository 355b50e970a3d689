"""Reports in a real browser, where there is one: nothing is complained of, and every plot holds data."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from gatedeploy.benchmarks.look import COLOURS
from gatedeploy.benchmarks.page import render_page
from tests.benchmarks.tiny import some_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt install chromium"),
]
LEAST = 40
"""Pixels of a mark's colour; a dot has half as many again, a bar of nothing fewer."""


def screenshot(page: Path, width: int, height: int, *more: str) -> tuple[npt.NDArray[np.float64], str]:
    """What a browser shows, `(height, width, 3)` in [0, 1], and what it complains of."""
    assert BROWSER is not None
    file = page.with_suffix(".png")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", *more]
    done = subprocess.run(
        [BROWSER, *words, f"--screenshot={file}", f"--window-size={width},{height}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert file.is_file(), done.stderr
    return np.asarray(imread(file), np.float64)[..., :3], "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


def count(shown: npt.NDArray[np.float64], colour: str) -> int:
    """Pixels of about this colour, `#rrggbb`."""
    wanted = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return int((np.abs(shown - wanted).max(2) < 0.03).sum())


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_is_shown_without_a_complaint(width: int, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render_page(some_report(("noisy",))), encoding="utf-8")
    shown, complaints = screenshot(tmp_path / "report.html", width, 3000)
    assert complaints == ""
    assert count(shown, COLOURS["ours"]) > 20 * LEAST


def test_every_plot_holds_data(tmp_path: Path) -> None:
    text = render_page(some_report())
    head, figures = text[: text.index("<body>")], re.findall(r"<figure>.*?</figure>", text, re.DOTALL)
    assert len(figures) == 9
    for figure in figures:
        name = re.findall(r'<svg id="(plot-[\w-]+)"', figure)[0]
        (tmp_path / f"{name}.html").write_text(f"{head}<body><main>{figure}</main></body></html>", encoding="utf-8")
        shown, complaints = screenshot(tmp_path / f"{name}.html", 480, 800)
        assert complaints == "", name
        # The heat maps' cells are see-through, and so of no colour that is known.
        marks = count(shown, COLOURS["ours"]) if "specific" not in name and "mix" not in name else colourful(shown)
        assert marks > LEAST, name


def colourful(shown: npt.NDArray[np.float64]) -> int:
    """Pixels that are not grey."""
    return int((shown.max(2) - shown.min(2) > 0.1).sum())
