"""Networks compiled for OpenVINO, AOTInductor and ExecuTorch: built, run, compared, and refused where wrong."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatedeploy as gd
from gatedeploy.errors import CheckError, GatedeployError, InputError, MissingExtraError
from gatedeploy.exporters import Bundle, engines, export, read_bundle, trust, verify_bundle
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.engines import open_engine
from gatedeploy.exporters.manifest import Engine
from gatedeploy.exporters.opening import open_runner
from gatedeploy.files import sha256
from tests.exporters.networks import INPUT
from tests.exporters.test_reading import admit, edit, put

BATCHES = (1, 2, 20)  # beyond 16, where ExecuTorch's programs are traced otherwise
HAVE = [name for name in ("openvino", "executorch") if importlib.util.find_spec(name) is not None]
KINDS = [*HAVE, "aoti"]
FILES = {"openvino": "engine/openvino.xml", "aoti": "engine/aoti.pt2", "executorch": "engine/executorch.pte"}

each = pytest.mark.parametrize("kind", KINDS)
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("engines")]  # AOTInductor calls a C++ compiler


@pytest.fixture(scope="module")
def built(thin: gd.Collapsed, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    options = EngineOptions(shapes=tuple((size,) for size in BATCHES))  # type: ignore[arg-type]
    return export(thin, tmp_path_factory.mktemp("built") / "bundle", formats=KINDS, engine=options)


@pytest.fixture
def copy(built: Bundle, tmp_path: Path) -> Bundle:
    """One that a test may spoil; its files are still those that were built here."""
    shutil.copytree(built.path, tmp_path / "bundle")
    return Bundle(tmp_path / "bundle", built.manifest)


def pictures(batch: int) -> dict[str, Any]:
    return {"image": np.random.default_rng(batch).standard_normal((batch, *INPUT.shape)).astype(np.float32)}


@each
def test_it_is_run_before_anybody_gets_it(built: Bundle, kind: str) -> None:
    engine = built.manifest.engines[FILES[kind]]
    assert engine.runtime == kind
    assert [port.name for port in engine.inputs] == ["image"]
    assert engine.outputs == built.manifest.outputs
    assert engine.batches == (None if kind == "openvino" else BATCHES)
    assert list(engine.error) == (["1", "3"] if kind == "openvino" else ["1", "3", "20"])
    assert all(0 <= error < 1e-5 for outputs in engine.error.values() for error in outputs.values())
    assert FILES[kind] in (built.path / "README.md").read_text()
    assert read_bundle(built.path) == built


@each
@pytest.mark.parametrize("batch", [1, 5, 20])
def test_it_answers_as_onnx_runtime_does(built: Bundle, kind: str, batch: int) -> None:
    with open_runner(built.path) as exact, open_runner(built.path, kind, threads=1) as runner:
        assert (runner.name, runner.inputs, runner.outputs) == (kind, exact.inputs, exact.outputs)
        first, feed = runner.infer(pictures(batch)), pictures(batch)
        expected = exact.infer(feed)
        runner.infer({"image": feed["image"] + 1})
        for name, values in expected.items():
            np.testing.assert_allclose(first[name], values, rtol=0, atol=1e-5 * np.abs(values).max())


@each
def test_it_can_be_closed(built: Bundle, kind: str) -> None:
    threads = torch.get_num_threads()
    runner = open_runner(built.path, kind, threads=1)
    runner.close()
    runner.close()
    with pytest.raises(InputError, match=f"this {kind} runner is closed; open another"):
        runner.infer(pictures(1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "openvino"])
class TestPrograms:
    """Machine code: it is opened where this user built it, or trusts who did."""

    def test_a_batch_that_it_was_not_made_for(self, built: Bundle, kind: str) -> None:
        message = "input 'image': a batch of 21; this engine takes 1 to 20: ask in parts, or export with other"
        with open_runner(built.path, kind) as runner, pytest.raises(InputError, match=message):
            runner.infer(pictures(21))

    def test_a_strangers_is_refused(
        self, built: Bundle, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trust, "user_state_path", lambda name: tmp_path / name)
        message = f"{FILES[kind]}: is a program, and it was not built by you on this machine: .* say --trust"
        with pytest.raises(InputError, match=message):
            open_runner(built.path, kind)
        with pytest.raises(InputError, match="trust='no': expected True or False"):
            open_runner(built.path, kind, trust="no")  # type: ignore[arg-type]
        with open_runner(built.path, kind, trust=True) as runner:
            assert set(runner.infer(pictures(1))) == {"scene", "parts"}

    def test_one_that_was_changed_is_a_strangers(self, copy: Bundle, kind: str) -> None:
        file = copy.path / FILES[kind]
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        with pytest.raises(CheckError, match="was changed or damaged: its SHA-256 is"):
            open_runner(copy.path, kind)
        admit(copy, FILES[kind])
        with pytest.raises(InputError, match="was not built by you on this machine"):
            open_runner(copy.path, kind)

    @pytest.mark.parametrize("content", [b"", b"no program", b"PK\x03\x04" + bytes(400)])
    def test_one_that_is_none(self, copy: Bundle, kind: str, content: bytes) -> None:
        (copy.path / FILES[kind]).write_bytes(content)
        admit(copy, FILES[kind])
        made = "; it was made by executorch [0-9]" if kind == "executorch" else ""
        message = f"{FILES[kind]}: (PyTorch .*|executorch) cannot load it .*; export it again{made}"
        with pytest.raises(InputError, match=message):
            open_runner(copy.path, kind, trust=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2.0.0"}, r"was made by PyTorch 2.0.0, and here is 2\..*; install that one, or export again"),
        (
            {"targets": ("vax", "avx2")},
            "was compiled for vax with avx2; this machine is .*: export on",
        ),
        ({"runtime": "abacus"}, "there is no runtime 'abacus'; install the gatedeploy that wrote the bundle"),
    ],
)
def test_an_engine_of_another_version_or_chip(built: Bundle, change: dict[str, Any], message: str) -> None:
    engine = replace(built.manifest.engines[FILES["aoti"]], **change)
    with pytest.raises(InputError, match=f"{FILES['aoti']}: {message}"):
        open_engine(built.path / FILES["aoti"], engine)


def test_instructions_that_this_processor_lacks(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
    engine = replace(built.manifest.engines[FILES["aoti"]], targets=(platform.machine(), "avx2", "unheard_of"))
    with pytest.raises(InputError, match=r"was compiled for .* with avx2, unheard_of; this machine is without avx2"):
        open_engine(built.path / FILES["aoti"], engine)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batches.max", 0), ("batches", {"min": 2, "opt": 1, "max": 3}), ("targets", "x86"), ("error", {"1": {"a": "b"}})],
)
def test_an_engine_told_wrongly(copy: Bundle, key: str, value: Any) -> None:
    edit(copy, lambda said: put(key, value)(said["engines"][FILES["aoti"]]))
    with pytest.raises(
        InputError, match=rf"manifest.json: engines.{FILES['aoti']}.{key.split('.')[0]}.*: (batch sizes|expected) "
    ):
        read_bundle(copy.path)


@pytest.mark.parametrize("kind", HAVE)
def test_a_library_that_is_missing(
    kind: str, thin: gd.Collapsed, built: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == kind]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, kind, None)
    find_spec: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == kind else find_spec(name))
    with pytest.raises(MissingExtraError, match=rf"the format {kind} needs {kind}, .*'gatedeploy\[{kind}\]'"):
        export(thin, tmp_path / "out", formats=[kind])
    assert not any(tmp_path.iterdir())
    with pytest.raises(MissingExtraError, match=rf"pip install 'gatedeploy\[{kind}\]'"):
        open_runner(built.path, kind)


@each
def test_a_network_that_is_compiled_wrongly_is_not_written(
    kind: str, thin: gd.Collapsed, built: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def __init__(self, runner: Any) -> None:
            self.runner = runner

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self.runner.close()

        def infer(self, feed: Any) -> Any:
            return {name: values * 1.001 for name, values in self.runner.infer(feed).items()}

    def copied(network: Any, path: Path, *rest: Any) -> Engine:
        """Compiling takes half a minute, and the package is there already."""
        shutil.copy(built.path / FILES["aoti"], path)
        return built.manifest.engines[FILES["aoti"]]

    monkeypatch.setattr(engines, "build_aoti", copied)
    open_ = engines.open_engine
    monkeypatch.setattr("gatedeploy.exporters.bundle.open_engine", lambda *args: Wrong(open_(*args)))
    with pytest.raises(CheckError, match=f"the network in {kind} at batch size 1 differs in task '.*' by 1.0"):
        export(thin, tmp_path / "out", formats=[kind])
    assert not any(tmp_path.iterdir())


def test_without_a_compiler_it_is_told(thin: gd.Collapsed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch._inductor, "aoti_compile_and_package", lambda *_, **__: (_ for _ in ()).throw(OSError("no g++\nat all"))
    )
    with pytest.raises(CheckError, match=r"AOTInductor cannot compile the network here: no g\+\+; it needs a C\+\+"):
        export(thin, tmp_path / "out", formats=["aoti"])
    assert not any(tmp_path.iterdir())


def test_what_is_built_is_remembered(built: Bundle) -> None:
    found = {file.name for file in (trust._folder()).iterdir()}
    for kind in KINDS:
        assert sha256(built.path / FILES[kind]) in found


def test_where_nothing_can_be_noted_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trust, "user_state_path", lambda name: tmp_path / "file")
    trust.remember("00")
    with pytest.raises(GatedeployError, match="x: is a program"):
        trust.check_trusted(Path("x"), "00", trust=False)


def test_the_manifest_says_it_in_json(built: Bundle) -> None:
    said = json.loads((built.path / "manifest.json").read_text())
    assert said["formats"] == ["onnx", *KINDS]
    assert said["engines"][FILES["aoti"]]["batches"] == {"min": 1, "opt": 2, "max": 20}
    assert said["engines"][FILES["openvino"]]["batches"] is None


@pytest.mark.skipif("openvino" not in HAVE, reason="openvino is not installed")
def test_verify_names_the_engine_that_computes_something_else(copy: Bundle) -> None:
    file = copy.path / "engine/openvino.bin"
    weights = np.frombuffer(file.read_bytes(), np.float32)
    trained = (np.abs(weights) > 1e-6) & (weights != weights.round())  # sizes, read so, are tiny, whole or no numbers
    weights = np.where(trained, 2 * weights, weights)
    file.write_bytes(weights.tobytes())
    admit(copy, "engine/openvino.bin")
    with pytest.raises(
        CheckError, match=r"engine/openvino.xml: on this machine the network in openvino at batch size 1 d"
    ):
        verify_bundle(copy.path, runtime="openvino")
    assert verify_bundle(copy.path).parity.holds
