"""How much each task keeps for itself at each gate site, and how much of the shared feature it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatedeploy.benchmarks.look import write_picture
from gatedeploy.benchmarks.plots import Shares, heat
from gatedeploy.errors import InputError
from gatedeploy.graph.shares import SiteShare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPECIFIC = "task-specific channels, %"
MIX = "share in the mix, %"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        columns: the heading of each column.
        rows: the cells, row by row.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sites_from_plain(items: Sequence[Mapping[str, Any]]) -> list[SiteShare]:
    """The sites in the report of a collapsed network, which may come from a stranger.

    Raises:
        InputError: they are something else.
    """
    try:
        return [
            SiteShare(
                str(item["site"]),
                int(item["channels"]),
                *(
                    {str(task): float(value) for task, value in values.items()}
                    for values in (item["specific"], item["mix"], item.get("public", {}))
                ),
            )
            for item in items
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"its report of gate sites is damaged ({type(error).__name__}: {error})") from None


def specific_share(sites: Sequence[SiteShare]) -> dict[str, float]:
    """Share of task-specific channels per task, the mean over sites of the mean over channels, in [0, 1]."""
    shares: dict[str, float] = {}
    for task in _tasks(sites):
        at = [site.specific[task] / site.channels for site in sites if task in site.specific and site.channels]
        shares[task] = sum(at) / len(at) if at else 0.0
    return shares


def sharing_table(sites: Sequence[SiteShare]) -> Table:
    """Site by site and task by task: specific channels of all channels, and the share in the mix; at the end means."""
    tasks = _tasks(sites)
    rows = []
    for site in sites:
        specific = [f"{site.specific[task]:.4g}" if task in site.specific else "" for task in tasks]
        mix = [f"{site.mix[task]:.2f}" if task in site.mix else "" for task in tasks]
        rows.append((site.site, str(site.channels), *specific, *mix))
    means = specific_share(sites)
    rows.append(("mean share over sites", "", *(f"{means[task]:.1%}" for task in tasks), *("" for _ in tasks)))
    headings = (*(f"{task} specific" for task in tasks), *(f"{task} in mix" for task in tasks))
    return Table(("site", "channels", *headings), tuple(rows))


def sharing_figure(sites: Sequence[SiteShare], panels: Sequence[str] = (SPECIFIC, MIX)) -> Figure:
    """A picture of the sites, from the input at the top to the output at the bottom.

    Args:
        sites: in the order in which the network reaches them; at least one.
        panels: `SPECIFIC`, `MIX` or both; of the mix alone, sites without one (the last) are left out.
    """
    tasks = _tasks(sites)
    if panels == [MIX]:
        sites = [site for site in sites if site.mix] or sites
    shares: dict[str, Shares] = {
        SPECIFIC: [
            [site.specific[task] / site.channels if task in site.specific and site.channels else None for task in tasks]
            for site in sites
        ],
        MIX: [[site.mix.get(task) for task in tasks] for site in sites],
    }
    return heat([site.site for site in sites], tasks, {panel: shares[panel] for panel in panels})


def write_sharing(sites: Sequence[SiteShare], path: Path) -> None:
    """Write the picture of `sites` as an SVG or PNG file.

    Raises:
        InputError: there are no sites, or the name ends otherwise.
        GatedeployError: the file cannot be written; nothing is left behind then.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{path}: a picture is written as .svg or .png")
    if not sites:
        raise InputError(f"{path}: this network has no gate sites, so there is nothing to draw")
    write_picture(sharing_figure(sites), path)


def _tasks(sites: Sequence[SiteShare]) -> list[str]:
    return list(dict.fromkeys(task for site in sites for task in site.specific))
