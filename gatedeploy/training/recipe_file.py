"""Reading recipes: YAML files, the bundled ones by name, and `key=value` overrides from the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gatedeploy.errors import InputError, closest, located
from gatedeploy.training.recipe import Recipe

BUNDLED = Path(__file__).parent / "recipes"


def bundled_recipes() -> tuple[str, ...]:
    """The names of the recipes that come with gatedeploy."""
    return tuple(sorted(path.stem for path in BUNDLED.glob("*.yaml")))


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: a YAML file, or the name of a bundled recipe; a file that is called like one is named ./demo.
        overrides: `dotted.key=value`, the value in YAML; applied in order, over what the file says.

    Raises:
        InputError: no such file or recipe, no YAML, an unknown key, a value that cannot stand where it stands. The
            message begins with the file, and for a value with its dotted key.
    """
    path = _find(str(source))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    where = str(path) if path.parent != BUNDLED else f"recipe {path.stem}"
    plain = parse_yaml(text, where)
    with located(where):
        if not isinstance(plain, Mapping):
            raise InputError(f"expected the keys {_top_level()}, got {plain!r}")
        for override in overrides:
            plain = _overridden(plain, override)
        return Recipe.from_plain(plain)


def _find(source: str) -> Path:
    if source in bundled_recipes():
        return BUNDLED / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"{source}: no such recipe file")
    known = bundled_recipes()
    raise InputError(
        f"{source}: no such recipe; there are {', '.join(known)}{closest(source, known)}. "
        "Your own is named by its file, such as my_recipe.yaml"
    )


def _overridden(plain: Mapping[str, Any], override: str) -> dict[str, Any]:
    """`plain` with one `dotted.key=value` put into it; missing mappings on the way are made."""
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {override!r}: expected key=value such as train.epochs=4")
    value = parse_yaml(text, f"--set {key.strip()}")
    changed = dict(plain)
    level: dict[str, Any] = changed
    for depth, part in enumerate(keys[:-1], start=1):
        below = level.get(part)
        if below is not None and not isinstance(below, Mapping):
            raise InputError(f"--set {override!r}: {'.'.join(keys[:depth])} is {below!r} and has no keys")
        level[part] = dict(below or {})
        level = level[part]
    level[keys[-1]] = value
    return changed


def _top_level() -> str:
    return ", ".join(item.name for item in dataclasses.fields(Recipe))


def parse_yaml(text: str, where: str) -> Any:
    """YAML as plain values, without its surprises: see `_Loader`.

    Raises:
        InputError: a syntax error, a key given twice or an anchor; the message begins with `where:line`.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise InputError(f"{where}{line}: not YAML as recipes use it: {problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{where}: not YAML as recipes use it: {type(error).__name__}") from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader; `1e-3` is a number, `no` is text, no key stands twice and nothing is anchored.

    Anchors are refused because a file of a few lines can grow with them into gigabytes.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not supported", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", re.ASCII),
    list("-+.0123456789"),
)
