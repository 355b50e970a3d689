"""Files of the wrong kind: every command that reads a network says in one short sentence what it was given."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save as as_safetensors
from torch import nn

from tests.cli.test_bad_input import refused

EITHER = ("inspect", "flops", "bench")
"""Commands that read checkpoints and collapsed networks alike."""

LONGEST = 250
"""Letters of a sentence, without the file's name."""


def torch_bytes(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("readme.txt", "hello")
    return buffer.getvalue()


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


Make = Callable[[Path, Path], bytes]
"""The content of the wrong file, from the folder with the right ones and the place of the mark."""

Said = dict[tuple[str, ...], str]
"""What is said by which commands."""


def cut(name: str, share: float) -> Make:
    """The beginning of a right file."""

    def make(right: Path, mark: Path) -> bytes:
        whole = (right / name).read_bytes()
        return whole[: int(share * len(whole))]

    return make


def expected(what: str) -> Said:
    """Of what holds no network at all."""
    return {
        ("prune",): f"{what}; expected a checkpoint: name one that gatedeploy train wrote",
        ("export",): f"{what}; expected a collapsed network: name one that gatedeploy prune wrote",
        EITHER: f"{what}; expected a network: name a file that gatedeploy train or gatedeploy prune wrote",
    }


def always(sentence: str) -> Said:
    return {("prune", "export", *EITHER): sentence}


SHORT_TORCH = always("a truncated PyTorch file: its end is missing; copy it again, or train it again")
SHORT_SAFETENSORS = always(
    "a truncated or damaged safetensors file; copy it again, or make it again with gatedeploy prune"
)
WEIGHTS: Said = {
    ("export",): "a PyTorch file; expected a collapsed network: name one that gatedeploy prune wrote",
    ("prune", *EITHER): "a PyTorch file, but not a gatedeploy checkpoint (no format version). If it holds the weights "
    "of a backbone, name it in the recipe as model.weights",
}
FOREIGN: Said = {
    ("prune",): "a safetensors file; expected a checkpoint: name one that gatedeploy train wrote",
    ("export", *EITHER): "a safetensors file, but not a collapsed network of gatedeploy (no format version); "
    "gatedeploy prune makes one of a checkpoint",
}
CODE = always("holds Python objects other than tensors and plain values, which could run code; refused")
NOT_YET: Said = {
    ("export",): "a checkpoint, whose branches are all still there; collapse it first: gatedeploy prune '{path}'"
}
ALREADY: Said = {("prune",): "is collapsed already; next: gatedeploy export '{path}' --onnx"}

TABLE: list[tuple[str, Make, Said]] = [
    ("empty", lambda right, mark: b"", expected("an empty file")),
    ("picture", lambda right, mark: picture(), expected("a PNG picture")),
    ("text", lambda right, mark: "Grüße, {…}\n".encode() * 99, expected("a text file")),
    ("bytes", lambda right, mark: bytes(range(256)), expected("a file of another kind")),
    ("onnx", lambda right, mark: (right / "bundle/model.onnx").read_bytes(), expected("a file of another kind")),
    ("zip", lambda right, mark: archive(), expected("a zip archive, but no PyTorch file")),
    *((f"checkpoint cut at {share}", cut("checkpoint.pt", share), SHORT_TORCH) for share in (0.01, 0.5, 0.99)),
    *((f"collapsed cut at {share}", cut("collapsed.safetensors", share), SHORT_SAFETENSORS) for share in (0.01, 0.99)),
    ("weights", lambda right, mark: torch_bytes({"weight": torch.ones(3)}), WEIGHTS),
    ("old weights", lambda right, mark: torch_bytes({"weight": torch.ones(3)}, zipped=False), WEIGHTS),
    ("safetensors", lambda right, mark: as_safetensors({"weight": torch.ones(3)}, {"format": "pt"}), FOREIGN),
    ("pickle with code", lambda right, mark: pickle.dumps(Payload(mark)), CODE),
    ("torch with code", lambda right, mark: torch_bytes(Payload(mark)), CODE),
    (
        "checkpoint with code",
        lambda right, mark: torch_bytes({"format": "gatedeploy.checkpoint", 1: Payload(mark)}),
        CODE,
    ),
    ("module", lambda right, mark: torch_bytes(nn.Linear(2, 2)), CODE),
    ("checkpoint", lambda right, mark: (right / "checkpoint.pt").read_bytes(), NOT_YET),
    ("collapsed", lambda right, mark: (right / "collapsed.safetensors").read_bytes(), ALREADY),
]
ROWS = [
    pytest.param(command, make, said, id=f"{command} {name}")
    for name, make, sentences in TABLE
    for commands, said in sentences.items()
    for command in commands
]


@pytest.mark.parametrize(("command", "make", "said"), ROWS)
def test_it_is_said_what_the_file_is(
    folder: Path,
    tmp_path: Path,
    command: str,
    make: Make,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, mark, out = tmp_path / "the file", tmp_path / "mark", tmp_path / "out"
    file.write_bytes(make(folder, mark))
    monkeypatch.chdir(tmp_path)
    options = {"export": ["--onnx", "--out", str(out)], "prune": ["--out", str(out)], "bench": ["--out", str(out)]}
    sentence = refused(capsys, command, str(file), *options.get(command, []))
    assert sentence.startswith(f"{file}: {said.format(path=file)}")
    assert len(sentence) < len(str(file)) + LONGEST
    assert not re.search(r"Error|archive/|torch\.|pickle", sentence.replace(str(file), ""))
    assert not mark.exists()
    assert not out.exists()


def test_the_code_would_have_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_names_say_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file holds decides, whatever it is called."""
    from gatedeploy.cli.app import run

    shutil.copy(folder / "checkpoint.pt", tmp_path / "a.safetensors")
    shutil.copy(folder / "collapsed.safetensors", tmp_path / "b.pt")
    for name in ("a.safetensors", "b.pt"):
        assert run(["inspect", str(tmp_path / name)]) == 0
    assert "form" not in capsys.readouterr().err
