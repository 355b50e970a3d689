from __future__ import annotations

from collections.abc import Iterator

import pytest

from gatedeploy.models import resnet


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """ResNets of one block a stage: what a benchmark prints can be checked on them, in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, depths in resnet.DEPTHS.items():
            patch.setitem(resnet.DEPTHS, name, (1,) * len(depths))
        yield
