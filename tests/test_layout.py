"""The house keeps its floor plan: who may import whom, and what the wheel holds."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = ("benchmarks", "exporters", "models")

# From the ground up. A file imports only from floors below its own; names on one floor do not import each other.
FLOORS: list[set[str]] = [
    {
        "errors",
        "specs",
        "files",
        "program",
        "shapes",
        "modes",
        "randomness",
        "program_json",
        "parity",
        "questions",
        "artifact",
        "runners",
        "containers",
        "options",
    },
    {"gating"},
    {"graph"},
    {"passes", "gpu_estimate"},
    {"price_tables"},
    {"lowering"},
    {"milliseconds"},
    {"compiler"},
    {"storage"},
    {"exporters", "models", "training", "data"},
    {"assembly", "judging", "doctor", "recipe_reference", "operator_reference", "api"},
    {"benchmarks"},
    {"sweep"},
    {"cli"},
]
GROUND = FLOORS[0]  # single files, which may build on each other
FLOOR_OF = {name: height for height, names in enumerate(FLOORS) for name in names}


def _sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package: the floor's name and the file."""
    for path in sorted((ROOT / "gatedeploy").rglob("*.py")):
        parts = path.relative_to(ROOT / "gatedeploy").parts
        if parts[0] not in TOP_LEVEL and parts[0] not in ("__init__.py", "__main__.py"):
            yield parts[0].removesuffix(".py"), path
    for folder in TOP_LEVEL:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor plan"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "gatedeploy" else []
            names = names or [node.module or ""]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "gatedeploy" and rest:
                yield rest.partition(".")[0]


@pytest.mark.parametrize(("floor", "path"), list(_sources()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_imports_go_downstairs(floor: str, path: Path) -> None:
    assert floor in FLOOR_OF, f"{path}: {floor!r} has no place in the floor plan (tests/test_layout.py)"
    for other in _imports(path):
        if other == floor or other == "__version__":
            continue
        below = FLOOR_OF[other] < FLOOR_OF[floor] or (floor in GROUND and other in GROUND)
        assert below, f"{path.relative_to(ROOT)} imports {other!r}, which is not on a floor below {floor!r}"


def test_the_wheel_holds_every_package_of_the_tree() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        setuptools = tomllib.load(file)["tool"]["setuptools"]
    found = {"gatedeploy"}
    for path in (ROOT / "gatedeploy").rglob("__init__.py"):
        found.add(".".join(path.parent.relative_to(ROOT).parts))
    for folder in TOP_LEVEL:
        found |= {
            f"gatedeploy.{'.'.join(p.parent.relative_to(ROOT).parts)}" for p in (ROOT / folder).rglob("__init__.py")
        }
    assert set(setuptools["packages"]) == found
    assert setuptools["package-dir"] == {
        "gatedeploy": "gatedeploy",
        **{f"gatedeploy.{folder}": folder for folder in TOP_LEVEL},
    }


@pytest.mark.parametrize("folder", TOP_LEVEL)
def test_top_level_folders_are_linked_into_the_package(folder: str) -> None:
    link = ROOT / "gatedeploy" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder


def test_no_module_shadows_a_library() -> None:
    for _, path in _sources():
        assert path.stem not in ("onnx", "torch", "numpy", "collapse"), f"{path} hides a library or a function"
