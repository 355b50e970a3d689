from pathlib import Path

from gatedeploy.graph.rules import RULES
from gatedeploy.operator_reference import reference

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"


def test_the_page_says_what_the_table_does() -> None:
    """Else run `python -m gatedeploy.operator_reference docs/operators.md`."""
    assert PAGE.read_text() == reference()


def test_every_operator_stands_in_one_place() -> None:
    rows, whole = reference().split("## Correct, and taken whole")
    for packet in RULES:
        name = f"`{str(packet).removeprefix('aten.')}`"
        assert rows.count(f" {name}") >= 1
        assert name not in whole
    assert "`cumprod`" in whole
