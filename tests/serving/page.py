"""What docs/serving.md shows, pictures to ask about, and what is to be answered."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import gatedeploy as gd
from gatedeploy.exporters import Bundle
from gatedeploy.runners.base import Array
from tests.exporters.networks import INPUT, SCENE

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "serving"
PAGE = (ROOT / "docs" / "serving.md").read_text()
SHAPE = INPUT.shape
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WRITING, ASKING_TRITON, ASKING_RAY = BLOCKS


def pictures(count: int) -> Array:
    return np.random.default_rng(count).standard_normal((count, *SHAPE)).astype(np.float32)


def answers(bundle: Bundle, batch: Array) -> dict[str, Array]:
    """What is to be answered, picture by picture, with the names of the winning classes."""
    with gd.open(bundle.path) as runner:
        each = [runner.infer({"image": picture[None]}) for picture in batch]
    outputs = {name: np.concatenate([one[name] for one in each]) for name in each[0]}
    return outputs | {"scene.class": np.array(SCENE.classes)[outputs["scene"].argmax(1)]}


def assert_same(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Sums are put together otherwise in a batch of another size."""
    assert set(got) - {"parts.classes"} == set(expected)
    for name, values in expected.items():
        if name == "scene.class":
            assert np.array_equal(got[name].astype(str).reshape(values.shape), values)
        else:
            assert (got[name].shape, got[name].dtype) == (values.shape, values.dtype)
            np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-5)


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module
