from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from gatedeploy.assembly import build_parts
from gatedeploy.errors import InputError
from gatedeploy.models.registry import build_backbone
from gatedeploy.training.recipe import Recipe

OWN = """
def raises():
    raise RuntimeError("boom")

def wants_more(width):
    return None

def wants_vectors():
    return __import__("torch").nn.Linear(5, 5)

def wants_a_list():
    class Appending(__import__("torch").nn.Module):
        def forward(self, x):
            return x.append(1)

    return Appending()

def makes_a_number():
    return 3
"""


def recipe(**backbone: object) -> Recipe:
    data = {"name": "scenes", "train": 8, "val": 4, "size": 16}
    model = {"backbone": {"name": "resnet20", "width": 0.25, **backbone}, "head": {"name": "dense"}}
    return Recipe.from_plain({"data": data, "model": model, "train": {"epochs": 1}})


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("raises", "raised RuntimeError: boom; it is called without arguments"),
        ("wants_more", r"raised TypeError: wants_more\(\) missing 1 .*; it is called without arguments"),
        ("makes_a_number", "returned a int; expected a torch.nn.Module"),
    ],
)
def test_a_backbone_of_ones_own_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, told: str
) -> None:
    (tmp_path / "own_backbones.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"own_backbones:{function}: {told}"):
        build_parts(recipe(), "recipe", f"own_backbones:{function}")


def test_a_backbone_reads_the_pictures_that_there_are() -> None:
    with pytest.raises(InputError, match=r"model\.backbone: in_channels: 1, but the pictures have 3; leave it out"):
        build_parts(recipe(in_channels=1), "recipe")
    build_parts(recipe(in_channels=3), "recipe")


def test_a_backbone_that_does_not_run_on_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_backbones.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_backbones", raising=False)
    told = r"model\.backbone: does not run on a picture of \(3, 16, 16\): "
    for own, why in (("wants_vectors", ".*shapes"), ("wants_a_list", "'Tensor' object has no attribute 'append'")):
        with pytest.raises(InputError, match=told + why):
            build_parts(recipe(), "recipe", f"own_backbones:{own}")


def test_what_became_of_pretrained_weights_is_told_once(tmp_path: Path) -> None:
    there = build_backbone("resnet20", width=0.25).state_dict()
    del there["bn1.bias"]
    torch.save({**there, "neck.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    plain = recipe().plain()
    plain["model"]["weights"] = str(tmp_path / "weights.pth")
    told: list[str] = []
    _, parts = build_parts(Recipe.from_plain(plain), "recipe", say=told.append)
    parts.make_backbone()
    count = len(there) + 1
    expected = f"{count - 1} of {count} tensors loaded; not in the file: bn1.bias; unused: neck.weight."
    assert told == [f"{tmp_path / 'weights.pth'}: {expected}"]
