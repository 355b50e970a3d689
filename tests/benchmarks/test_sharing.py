from __future__ import annotations

import re
from pathlib import Path

import pytest

import gatedeploy as gd
from gatedeploy.benchmarks.sharing import (
    MIX,
    SPECIFIC,
    sharing_figure,
    sharing_table,
    sites_from_plain,
    specific_share,
    write_sharing,
)
from gatedeploy.errors import GatedeployError, InputError
from gatedeploy.graph.capture import capture
from gatedeploy.graph.shares import SiteShare, site_shares
from tests.benchmarks.tiny import EVIL, EXAMPLE, gated

SITES = [
    SiteShare("stem", 8, {"depth": 2, "kind": 8}, {"depth": 0.25, "kind": 0.75}),
    SiteShare(EVIL, 4, {"depth": 0, "kind": 1}, {}),
]


def test_the_table_says_channels_shares_and_means() -> None:
    table = sharing_table(SITES)
    assert table.columns == ("site", "channels", "depth specific", "kind specific", "depth in mix", "kind in mix")
    assert table.rows == (
        ("stem", "8", "2", "8", "0.25", "0.75"),
        (EVIL, "4", "0", "1", "", ""),
        ("mean share over sites", "", "12.5%", "62.5%", "", ""),
    )


def test_a_site_without_a_mix_stands_in_no_picture_of_mixes() -> None:
    drawn = {panel: sharing_figure(SITES, [panel]).axes[0].get_yticklabels() for panel in (SPECIFIC, MIX)}
    assert [len(names) for names in drawn.values()] == [2, 1]
    assert len(sharing_figure(SITES[1:], [MIX]).axes[0].get_yticklabels()) == 1


def test_the_mean_share_is_the_network_s_own() -> None:
    network = gated()
    assert specific_share(site_shares(capture(network, EXAMPLE))) == pytest.approx(network.specific_share())


def test_sites_of_a_collapsed_file_are_those_of_its_checkpoint() -> None:
    program = capture(gated(), EXAMPLE)
    report = gd.collapse(program).report
    assert report is not None
    plain = [
        {"site": site.site, "channels": site.channels, "specific": site.specific, "mix": site.mix}
        for site in report.sites
    ]
    assert sites_from_plain(plain) == site_shares(program)


@pytest.mark.parametrize("items", [[{"site": "a"}], ["text"], [{**SITES[0].__dict__, "specific": 3}], 7])
def test_a_damaged_report_of_sites_is_refused(items: object) -> None:
    with pytest.raises(InputError, match="its report of gate sites is damaged"):
        sites_from_plain(items)  # type: ignore[arg-type]


def test_the_picture_is_a_file_whose_text_is_text(tmp_path: Path) -> None:
    write_sharing(SITES, tmp_path / "sharing.svg")
    first = (tmp_path / "sharing.svg").read_text()
    assert "<script" not in first
    assert "&lt;script&gt;" in first
    assert {"depth", "kind", "stem", "25", "100", "75"} <= set(re.findall(r">([^<>]+)</text>", first))
    write_sharing(SITES, tmp_path / "sharing.svg")
    assert (tmp_path / "sharing.svg").read_text() == first
    write_sharing(SITES, tmp_path / "sharing.png")
    assert (tmp_path / "sharing.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sharing.png", "sharing.svg"]


def test_pictures_that_cannot_be_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sharing.pdf: a picture is written as .svg or .png"):
        write_sharing(SITES, tmp_path / "sharing.pdf")
    with pytest.raises(InputError, match="has no gate sites, so there is nothing to draw"):
        write_sharing([], tmp_path / "sharing.png")
    (tmp_path / "file").touch()
    with pytest.raises(GatedeployError, match="could not be written"):
        write_sharing(SITES, tmp_path / "file" / "sharing.png")
