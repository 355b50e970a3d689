"""Which operators the compiler takes apart, as Markdown, from the table of rules.

python -m gatedeploy.operator_reference docs/operators.md        # writes the page anew
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gatedeploy.files import write_text
from gatedeploy.graph import build  # noqa: F401  it fills the tables
from gatedeploy.graph.rules import RULES, SPREAD_RULES, Rule
from gatedeploy.program_json import OPERATORS

HEAD = """# Operators

<!-- Written by `python -m gatedeploy.operator_reference docs/operators.md`. -->

A network may call any ATen operator that computes and does nothing else; the names are those that `torch.export` gives
(`torch.nn.functional` and modules of `torch.nn` become these). All of them collapse correctly. They differ in how much
of a network falls away around them.

## Taken apart

These are followed channel by channel: what no output needs is not computed, and what tasks share is computed once.

| operators | how, or when |
| --- | --- |
"""
MOVED = """
## Followed without computing

Where a reshape has laid channels along several dimensions (q, k and v of one layer, heads, groups that are shuffled),
these move them, and nothing is copied until something computes with them: {}.

## Correct, and taken whole

Any other operator reads its operands whole, in the original order of their channels, and all that it makes is needed
as soon as one channel is. It is done once for tasks that agree in all that it reads. So is a call of an operator above
that does not fit its rule. `gatedeploy prune` and `gatedeploy inspect` name those that a network has. These are known
besides:
"""


def reference() -> str:
    """The page."""
    by_rule: dict[Rule, list[Any]] = {}
    for packet, rule in RULES.items():
        by_rule.setdefault(rule, []).append(packet)
    in_code = sorted(by_rule, key=lambda rule: (rule.__module__, rule.__code__.co_firstlineno))
    rows = [f"| {_names(by_rule[rule])} | {_told(rule)} |" for rule in in_code]
    ruled = {_name(packet) for packet in RULES}
    moved = sorted({_name(packet) for packet in SPREAD_RULES})
    whole = sorted(OPERATORS - ruled)
    listed = ", ".join(f"`{name}`" for name in whole)
    return HEAD + "\n".join(rows) + "\n" + MOVED.format(", ".join(f"`{name}`" for name in moved)) + f"\n{listed}.\n"


def _names(packets: Iterable[Any]) -> str:
    return ", ".join(f"`{_name(packet)}`" for packet in packets)


def _name(packet: Any) -> str:
    """`relu` of ATen's, `gatedeploy.select` of our own."""
    return str(packet).removeprefix("aten.")


def _told(rule: Rule) -> str:
    paragraph = (inspect.getdoc(rule) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def main() -> None:
    """Write the page."""
    (page,) = sys.argv[1:]
    write_text(Path(page), reference())


if __name__ == "__main__":
    main()
