from __future__ import annotations

import pytest

from gatedeploy.errors import InputError
from gatedeploy.sweep.grid import in_words, points, read_over

TASKS = ("segmentation", "depth")


def test_every_combination_is_a_point() -> None:
    over = read_over(["sparsity.weight=1e-2,0.5", "gates.tie=null,residual"], TASKS)
    assert over == {"sparsity.weight": (0.01, 0.5), "gates.tie": (None, "residual")}
    assert points(over) == [
        {"sparsity.weight": 0.01, "gates.tie": None},
        {"sparsity.weight": 0.01, "gates.tie": "residual"},
        {"sparsity.weight": 0.5, "gates.tie": None},
        {"sparsity.weight": 0.5, "gates.tie": "residual"},
    ]
    assert in_words(points(over)[0]) == "sparsity.weight=0.01, gates.tie=null"


def test_the_grid_of_targets_varies_each_task_on_its_own() -> None:
    """InterroGate's supplement, Figs. 5 and 6."""
    over = read_over(["tasks.*.sparsity_target=0,0.25,0.75,1"], TASKS)
    assert list(over) == ["tasks.segmentation.sparsity_target", "tasks.depth.sparsity_target"]
    assert len({tuple(point.values()) for point in points(over)}) == 4**2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sparsity.weight", "--over 'sparsity.weight': expected key=value,value such as sparsity.weight=0.1,0.5"),
        ("sparsity.weight=", "--over sparsity.weight: no values; expected sparsity.weight=value,value"),
        ("sparsity.weight=0.1,0.10", "--over sparsity.weight: 0.1 stands twice; name each value once"),
        ("train.schedule={name: step}", "--over train.schedule: expected numbers, words, true, false or null, got {"),
        ("train.seed=0,1", "--over train.seed: every point is trained with the same seeds; --seeds says how many"),
        ("data.size=16,32", "--over data.size: networks are compared on the same pictures; make one sweep for each"),
        (
            "tasks.dpeth.weight=1,2",
            "--over tasks.dpeth.weight: no such task; the recipe trains segmentation, depth; did you mean 'depth'?",
        ),
    ],
)
def test_what_cannot_be_varied(option: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_over([option], TASKS)
    assert str(caught.value).startswith(message)


def test_a_key_stands_once() -> None:
    with pytest.raises(InputError, match=r"--over tasks\.depth\.weight: stands twice; name all its values at once"):
        read_over(["tasks.*.weight=1,2", "tasks.depth.weight=3"], TASKS)
