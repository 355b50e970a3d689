from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import (
    VERSION,
    ModelInfo,
    is_checkpoint,
    read_checkpoint,
    read_collapsed,
    write_checkpoint,
    write_collapsed,
)
from gatedeploy.program import Program, evaluate
from gatedeploy.specs import InputSpec, Task
from tests.graph.small import UNSEEN, Net, conv, gate, norm, program_of

INFO = ModelInfo(
    (Task("shapes", "classification", ("round", "square"), weight=0.5, sparsity_target=0.25), Task("depth")),
    InputSpec(3, 8, 8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "photo"),
    "gated",
    {"epochs": 3, "optimiser": {"name": "sgd", "lr": 1e-3}, "notes": ["ä", None, True]},
    {"shapes": {"accuracy": 0.75}, "depth": {"error": 1e-12}},
    {"seconds": 1.5},
)
TRAINING: dict[str, Any] = {
    "epoch": 3,
    "optimiser": {"state": {0: {"momentum": torch.arange(3.0)}}, "groups": [{"lr": 0.1, "params": [0]}]},
    "random": torch.get_rng_state(),
    "tuple": (1, "two", 3.0, None, True),
}


@cache
def program() -> Program:
    torch.manual_seed(0)

    def run(n: Net, x: Tensor) -> dict[str, Tensor]:
        feature = n.gate(n.norm(n.a(x)), n.b(x))
        return {"shapes": feature.mean((2, 3)), "depth": feature}

    return program_of(Net(run, a=conv(), b=conv(), norm=norm(), gate=gate(1, 0, 0, 1)))


def equal_outputs(one: Program, other: Program) -> None:
    got, expected = evaluate(one, UNSEEN), evaluate(other, UNSEEN)
    assert list(got) == list(expected)
    assert all(torch.equal(got[task], expected[task]) for task in expected)


# ---------------------------------------------------------------- what was written is read


def test_a_checkpoint_survives(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "checkpoint.pt"
    write_checkpoint(path, program(), INFO, TRAINING)
    read = read_checkpoint(path)
    assert read.info == INFO
    equal_outputs(read.program, program())
    assert read.program.trainable == program().trainable
    for name, tensor in program().weights.items():
        assert torch.equal(read.program.weights[name], tensor)
    assert read.training is not None
    assert torch.equal(read.training["optimiser"]["state"][0]["momentum"], torch.arange(3.0))
    assert read.training["tuple"] == TRAINING["tuple"]
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_needs_nothing_to_resume(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint.pt", program(), INFO)
    assert read_checkpoint(tmp_path / "checkpoint.pt").training is None


def test_a_checkpoint_is_read_by_torch_with_weights_only(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint.pt", program(), INFO, TRAINING)
    document = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(document) == {"format", "version", "info", "graph", "weights", "training"}


def test_a_collapsed_network_survives(tmp_path: Path) -> None:
    path = tmp_path / "collapsed.safetensors"
    thin = gd.collapse(program()).program
    info = dataclasses.replace(INFO, form="collapsed")
    write_collapsed(path, thin, info)
    read, read_info = read_collapsed(path)
    assert read_info == info
    equal_outputs(read, thin)
    assert read.trainable == thin.trainable


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_keep_their_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    halved = dataclasses.replace(
        program(), weights={name: weight.to(dtype) for name, weight in program().weights.items()}
    )
    write_collapsed(tmp_path / "c", halved, INFO)
    write_checkpoint(tmp_path / "g", halved, INFO)
    for read in (read_collapsed(tmp_path / "c")[0], read_checkpoint(tmp_path / "g").program):
        for name, weight in halved.weights.items():
            assert read.weights[name].dtype == dtype
            assert torch.equal(read.weights[name], weight)


def test_weights_may_share_memory_and_lie_in_any_order(tmp_path: Path) -> None:
    """Safetensors refuses both; what is read is equal and apart."""
    base = torch.randn(3, 1, 1).double()
    network = Net(lambda n, x: (x * n.p + n.q) * n.r.permute(2, 0, 1) + n.s.sum(), p=base, q=base[:])
    network.register_buffer("r", torch.randn(1, 3, 8).double().expand(8, 3, 8).permute(0, 2, 1)[:, :8, :3])
    network.register_buffer("s", torch.zeros(0))
    shared = program_of(network)
    assert shared.weights["p"].data_ptr() == shared.weights["q"].data_ptr()
    write_collapsed(tmp_path / "c", shared, INFO)
    equal_outputs(read_collapsed(tmp_path / "c")[0], shared)


def test_files_are_told_apart_by_their_beginning(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "g", program(), INFO)
    write_collapsed(tmp_path / "c", program(), INFO)
    assert is_checkpoint(tmp_path / "g")
    assert not is_checkpoint(tmp_path / "c")


def test_writing_over_a_file_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, program(), INFO)
    write_checkpoint(path, program(), dataclasses.replace(INFO, form="shared"))
    assert read_checkpoint(path).info.form == "shared"


# ---------------------------------------------------------------- what somebody else wrote


Reader = Callable[[Path], Any]
READERS: list[Reader] = [read_checkpoint, read_collapsed, gd.load]


def refused(path: Path, content: bytes, message: str, reader: Reader | None = None) -> None:
    """What is no file of ours is refused by those who read such files, and the file is named."""
    path.write_bytes(content)
    for read in READERS if reader is None else [reader]:
        with pytest.raises(gd.InputError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(str(path)) == 1


@cache
def ours(kind: str) -> bytes:
    """A checkpoint ("g") or a collapsed network ("c")."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if kind == "g":
            write_checkpoint(path, program(), INFO, {"epoch": 1})
        else:
            write_collapsed(path, gd.collapse(program()).program, INFO)
        return path.read_bytes()


@pytest.mark.parametrize("kind", ["g", "c"])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 8, 9, 40, 0.1, 0.5, 0.9, -100, -22, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kind: str, length: float) -> None:
    content = ours(kind)
    end = int(length * len(content)) if isinstance(length, float) else length
    refused(tmp_path / "file", content[:end], "truncated|an empty file|a text file|a file of another kind")


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["g", "c"]))
def test_a_file_with_changed_bytes_is_refused_or_read(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content = bytearray(ours(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "file").write_bytes(content)
    for read in (read_checkpoint, read_collapsed):
        with contextlib.suppress(gd.InputError):
            read(tmp_path / "file")


def test_a_foreign_zip_is_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    refused(tmp_path / "file", archive.getvalue(), "a zip archive, but no PyTorch file; expected", read_checkpoint)
    refused(tmp_path / "file", archive.getvalue(), "a zip archive, but no PyTorch file; expected", gd.load)


def torch_file(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", [{"layer.weight": torch.ones(3)}, torch.ones(3), [1, 2], "text", None, {}])
def test_a_plain_torch_file_is_refused(tmp_path: Path, content: Any, zipped: bool) -> None:
    file = torch_file(content, _use_new_zipfile_serialization=zipped)
    for reader in (read_checkpoint, gd.load):
        refused(
            tmp_path / "file",
            file,
            r"not a gatedeploy checkpoint \(no format version\).* name it in the recipe",
            reader,
        )


class Malicious:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["torch", "torch in a checkpoint", "legacy torch", "pickle 2", "pickle 4"])
def test_code_in_a_file_does_not_run(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "mark"
    content = {
        "torch": lambda: torch_file(Malicious(mark)),
        "torch in a checkpoint": lambda: torch_file(
            {"format": "gatedeploy.checkpoint", "version": 1, "training": Malicious(mark)}
        ),
        "legacy torch": lambda: torch_file(Malicious(mark), _use_new_zipfile_serialization=False),
        "pickle 2": lambda: pickle.dumps(Malicious(mark), protocol=2),
        "pickle 4": lambda: pickle.dumps(Malicious(mark), protocol=4),
    }[form]()
    refused(tmp_path / "file", content, "holds Python objects")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists()  # it would have


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    message = "holds Python objects other than tensors and plain values, which could run code; refused"
    refused(tmp_path / "file", torch_file(nn.Linear(2, 2)), message, read_checkpoint)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"format": "gatedeploy.checkpoint"}])
def test_safetensors_of_somebody_else_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    content = as_safetensors({"weight": torch.ones(3)}, metadata)
    for reader in (read_collapsed, gd.load):
        refused(tmp_path / "file", content, r"not a collapsed network of gatedeploy \(no format version\)", reader)


@pytest.mark.parametrize("read", READERS)
def test_what_is_not_there_is_named(tmp_path: Path, read: Reader) -> None:
    with pytest.raises(gd.InputError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(gd.InputError, match="a folder; expected a file"):
        read(tmp_path)


# ---------------------------------------------------------------- our own form, filled by somebody else


def checkpoint(**changed: Any) -> bytes:
    document = torch.load(io.BytesIO(ours("g")), weights_only=True)
    document.update(changed)
    return torch_file({key: value for key, value in document.items() if value is not ...})


def info_of() -> dict[str, Any]:
    info: dict[str, Any] = json.loads(torch.load(io.BytesIO(ours("g")), weights_only=True)["info"])
    return info


def metadata(tmp_path: Path, **changed: Any) -> bytes:
    (tmp_path / "c").write_bytes(ours("c"))
    with safe_open(tmp_path / "c", "pt") as file:
        document = {**file.metadata(), **changed}
    return as_safetensors(
        {"weight": torch.ones(3)}, {key: value for key, value in document.items() if value is not ...}
    )


@pytest.mark.parametrize("version", [VERSION + 1, 0, None, "1", -1])
def test_another_version_is_named(tmp_path: Path, version: Any) -> None:
    message = rf"format version {version}; this gatedeploy reads version {VERSION}: install the one that wrote it"
    refused(tmp_path / "file", checkpoint(version=version), message, read_checkpoint)


@pytest.mark.parametrize("version", ["2", "", "x", "-1", " 1", "1.0", "²", "1" * 5000, ...], ids=lambda it: str(it)[:5])
def test_another_version_of_a_collapsed_network_is_named(tmp_path: Path, version: Any) -> None:
    refused(tmp_path / "file", metadata(tmp_path, version=version), "format version", read_collapsed)


def test_a_version_that_is_a_tensor_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "file", checkpoint(version=torch.ones(2)), "format version", read_checkpoint)


@pytest.mark.parametrize(
    "changed",
    [
        *({key: ...} for key in ("weights", "info", "graph", "training")),
        {"info": "{"},
        {"info": "[]"},
        {"info": "null"},
        {"info": 5},
        {"graph": "[]"},
        {"graph": "5"},
        {"graph": 5},
        {"weights": {}},
        {"weights": {"a": 1}},
        {"weights": {1: torch.ones(2)}},
    ],
    ids=str,
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    refused(tmp_path / "file", checkpoint(**changed), ".", read_checkpoint)


@pytest.mark.parametrize("weights", [None, [1], torch.ones(2)], ids=["none", "list", "tensor"])
def test_weights_that_are_no_dict_are_refused(tmp_path: Path, weights: Any) -> None:
    refused(tmp_path / "file", checkpoint(weights=weights), "damaged", read_checkpoint)


def test_what_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    deep = "[" * 100_000
    for content in (checkpoint(info=deep), checkpoint(graph=deep)):
        message = r"a damaged checkpoint \(nested too deep\); train or copy it again"
        refused(tmp_path / "file", content, message, read_checkpoint)
    message = r"a damaged network \(nested too deep\); write or copy it again"
    refused(tmp_path / "file", metadata(tmp_path, document=deep), message, read_collapsed)


@pytest.mark.parametrize("document", ["{}", "[]", "null", "1", "", "{", '{"info": {}}', "1" * 5000, ...])
def test_a_damaged_network_is_refused(tmp_path: Path, document: Any) -> None:
    content = metadata(tmp_path, document=document)
    refused(tmp_path / "file", content, "a damaged network .*; write or copy it again", read_collapsed)


def test_a_network_without_its_weights_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "file", metadata(tmp_path), "reads a weight .* that is not in the file", read_collapsed)


def several(key: str, *values: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(key, {key: value}) for value in values]


WRONG_INFO = [
    *several("tasks", None, 5, [], [5], ["a"], [{}], [{"name": "a b"}], [{"name": "a", "weight": True}]),
    *several("input", None, [], {}, {"channels": 3}, {"channels": 3, "height": 2.5, "width": 1}),
    *several("form", None, []),
    *(pair for key in ("recipe", "metrics", "report") for pair in several(key, None, [])),
    *several("metrics", {"shapes": 5}, {"shapes": {"accuracy": "high"}}),
]


@pytest.mark.parametrize(("what", "changed"), WRONG_INFO, ids=str)
def test_a_description_of_the_wrong_form_is_refused(tmp_path: Path, what: str, changed: dict[str, Any]) -> None:
    content = checkpoint(info=json.dumps({**info_of(), **changed}))
    refused(tmp_path / "file", content, ".", read_checkpoint)


def test_nothing_of_a_description_is_imported(tmp_path: Path) -> None:
    info = {**info_of(), "recipe": {"model": {"backbone": "os:abort"}}}
    (tmp_path / "file").write_bytes(checkpoint(info=json.dumps(info)))
    assert read_checkpoint(tmp_path / "file").info.recipe == info["recipe"]


def test_an_old_torch_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    content = torch_file({f"layer{i}": torch.ones(3) for i in range(8)}, _use_new_zipfile_serialization=False)
    for length in range(0, len(content), 7):
        refused(tmp_path / "file", content[:length], ".", read_checkpoint)
