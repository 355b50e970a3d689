"""Figures as they are told in tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from gatedeploy.benchmarks.latency import Ratio

NBSP = "\u00a0"
"""Keeps a figure and its unit in one line."""

NOISY = "too noisy to tell"


def human(count: float) -> str:
    """A count with three digits and a unit: 29.0 M."""
    count = float(f"{count:.3g}")  # before the unit is chosen: 999,999 is 1.00 M
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{three_digits(count / factor)}{NBSP}{unit}"
    return f"{count:g}{NBSP}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row are its headings."""
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in ruled)


def sizes(options: Mapping[str, object]) -> str:
    """Those options of a data set that are whole numbers: how many pictures, and how large."""
    return ", ".join(f"{name} {value}" for name, value in options.items() if isinstance(value, int))


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, in this format; the mean alone of one value, nothing of none."""
    if not values:
        return ""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(statistics.stdev(values), form.removeprefix('+'))}" if len(values) > 1 else mean


def three_digits(number: float) -> str:
    """A number with three digits, so that those in one column say equally much: 4.00, 29.0, 2,000."""
    number = float(f"{number:.3g}")
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}"


def interval(ratio: Ratio) -> str:
    """A ratio with its interval, or the interval alone where the machine was too noisy."""
    return f"{told(ratio)} ({ratio.low:.2f}{NBSP}to{NBSP}{ratio.high:.2f})"


def told(ratio: Ratio) -> str:
    """A ratio, or that the machine was too noisy to tell one."""
    return f"{ratio.value:.2f}" if ratio.told else NOISY


def ms(milliseconds: float | None) -> str:
    """Milliseconds with three digits and their unit."""
    return "–" if milliseconds is None else f"{three_digits(milliseconds)}{NBSP}ms"


def ms_told(milliseconds: float | None) -> str:
    """Milliseconds, or that the machine was too noisy to tell them."""
    return NOISY if milliseconds is None else ms(milliseconds)


def in_bytes(count: int | None) -> str:
    """Bytes with three digits and their unit."""
    return "–" if count is None else f"{human(count)}B"


def times(ratio: float | None) -> str:
    """How many times as much."""
    return "–" if ratio is None else f"{ratio:.2f}{NBSP}×"


def times_told(ratio: Ratio) -> str:
    """How many times as much, or a question mark where the machine was too noisy to tell."""
    return times(ratio.value) if ratio.told else "?"


def figure(value: float | None, digits: str = ".4g") -> str:
    """A number in this format; a dash where there is none."""
    return "–" if value is None else format(value, digits)


def lower(title: str) -> str:
    """A title as it stands in the middle of a sentence."""
    return title[:1].lower() + title[1:]
