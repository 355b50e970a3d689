"""Whatever is wrong with the input: one clear sentence, the right exit code, no traceback, nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from gatedeploy.cli.app import run
from gatedeploy.exporters.manifest_json import sealed
from gatedeploy.files import sha256

SCENES = """
data: {name: scenes, train: 8, val: 4, size: 16}
model: {backbone: {name: resnet20, width: 0.25}, head: {name: dense}}
train: {epochs: 1, batch_size: 4}
"""

BACKBONE = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU())
"""

pytestmark = pytest.mark.usefixtures("shallow")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one sentence on standard error with which the command line ends."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in said.err
    return lines[0].removeprefix("error: ")


def within(limit: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, in which no file may grow beyond `limit` bytes."""

    def set_limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file that grows too large is an error of write()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-m", "gatedeploy", *arguments]
    return subprocess.run(words, cwd=folder, preexec_fn=set_limit, capture_output=True, text=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


class TestCheckpoints:
    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "prune", str(tmp_path / "none.pt")) == f"{tmp_path / 'none.pt'}: no such file"

    @pytest.mark.parametrize("number", [torch.nan, torch.inf])
    def test_weights_that_are_no_numbers(self, copy: Path, number: float, capsys: pytest.CaptureFixture[str]) -> None:
        file, out = copy / "checkpoint.pt", copy / "new.safetensors"
        document = torch.load(file, weights_only=True)
        document["weights"]["heads.depth.bias"].fill_(number)
        torch.save(document, file)
        for command in (["prune", str(file), "--out", str(out)], ["flops", str(file)], ["bench", str(file)]):
            sentence = refused(capsys, *command, code=1)
            assert sentence.startswith(f"{file}: weight 'heads.depth.bias': 1 of 1 numbers are NaN or infinite")
        assert not out.exists()

    def test_unknown_task(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "new.safetensors"
        sentence = refused(capsys, "prune", str(folder / "checkpoint.pt"), "--tasks", "depht", "--out", str(out))
        assert sentence.endswith("no task 'depht' in this network; it has kind, depth; did you mean 'depth'?")
        assert not out.exists()

    def test_unknown_level_target_and_runtime(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "new.safetensors"
        prune = ("prune", str(folder / "checkpoint.pt"), "--out", str(out))
        sentence = refused(capsys, *prune, "--optimize", "defalt")
        assert sentence == "--optimize defalt: expected none or default or max; did you mean 'default'?"
        assert refused(capsys, *prune, "--target", "tpu").startswith(
            "--target tpu: expected cpu or openvino or gpu or tensorrt"
        )
        assert refused(capsys, "tune", "--runtime", "onnx").startswith(
            "--runtime onnx: expected onnxruntime or openvino"
        )
        assert not out.exists()

    def test_nothing_that_is_no_result_is_replaced(
        self, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        checkpoint, pipe = copy / "checkpoint.pt", tmp_path / "pipe"
        before = checkpoint.read_bytes()
        for other in (checkpoint, tmp_path / "another.pt"):
            other.write_bytes(before)
            sentence = refused(capsys, "prune", str(checkpoint), "--out", str(other))
            assert "exists and is no collapsed network, so it would be lost; name another" in sentence
            assert other.read_bytes() == before
        os.mkfifo(pipe)
        assert "a device or pipe" in refused(capsys, "prune", str(checkpoint), "--out", str(pipe))
        assert pipe.is_fifo()


class TestRecipes:
    def write(self, folder: Path, text: str = SCENES) -> str:
        file = folder / "recipe.yaml"
        file.write_text(text)
        return str(file)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ("train.epochz=3", "train.epochz"),
            ("train.epochs=-1", "train.epochs"),
            ("train.learning_rate=.nan", "train.learning_rate"),
            ("sparsity.weight=-1", "sparsity.weight"),
            ("gates.group=0", "gates.group"),
            ("model.backbone.name=resnet21", "resnet21"),
            ("model.head.name=aspq", "aspq"),
            ("data.name=scene", "scene"),
            ("data.size=0", "size"),
        ],
    )
    def test_unknown_keys_and_impossible_values(
        self, tmp_path: Path, change: str, sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = refused(capsys, "train", self.write(tmp_path), "--set", change, "--out", str(tmp_path / "run"))
        assert sentence in said
        assert not (tmp_path / "run").exists()

    def test_missing_data_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = self.write(
            tmp_path, SCENES.replace("name: scenes, train: 8, val: 4, size: 16", "name: multi_fashion, root: nowhere")
        )
        said = refused(capsys, "train", recipe, "--out", str(tmp_path / "run"))
        assert "nowhere" in said
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_a_loss_that_is_no_number(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run_folder = tmp_path / "run"
        said = refused(
            capsys,
            *("train", self.write(tmp_path), "--set", "train.learning_rate=1e38", "--set", "train.epochs=4"),
            *("--out", str(run_folder)),
            code=1,
        )
        assert "epoch" in said
        assert not (run_folder / "checkpoint.pt").exists()

    @pytest.mark.slow
    def test_a_label_out_of_range(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "pictures").mkdir()
        (tmp_path / "masks").mkdir()
        for name in ("a", "b", "c", "d"):
            Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / f"{name}.png")
            Image.new("L", (16, 16), 7 if name == "c" else 1).save(tmp_path / "masks" / f"{name}.png")
        data = (
            f"name: folder, root: {tmp_path}, pictures: pictures, size: 16, val_fraction: 0.25, "
            "tasks: {parts: {kind: segmentation, classes: [no, yes], labels: masks}}"
        )
        recipe = self.write(tmp_path, SCENES.replace("name: scenes, train: 8, val: 4, size: 16", data))
        said = refused(capsys, "train", recipe, "--set", "train.batch_size=2", "--out", str(tmp_path / "run"))
        assert "c.png" in said
        assert "7" in said

    def test_missing_recipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "demo" in refused(capsys, "train", "demmo")

    def test_backbones_that_cannot_be_imported(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = self.write(tmp_path)
        assert "expected module:function" in refused(capsys, "train", recipe, "--backbone", "thing")
        assert "No module named 'no_such'" in refused(capsys, "train", recipe, "--backbone", "no_such:f")
        assert "has no function f" in refused(capsys, "train", recipe, "--backbone", "json:f")

    @pytest.mark.parametrize(
        ("forward", "told"),
        [
            ("x if x.mean() > 0 else -x", "depends on what the picture shows"),
            ("torch.nn.functional.batch_norm(x, None, None, training=True)", "uses the statistics of the batch"),
            ("x.flatten(1)", "the head of 'segmentation' does not take what the backbone returns, (2, 2048)"),
            ("{'map': x}", "model.backbone: returns a dict"),
            ("x.reshape(-1)", "model.backbone: returns a Tensor"),
        ],
    )
    def test_backbones_that_could_not_be_collapsed(
        self,
        forward: str,
        told: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """They are refused before anything is trained."""
        lines = ["import torch", "class Net(torch.nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += ["        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)", "    def forward(self, x):"]
        lines += ["        x = self.conv(x)", f"        return {forward}"]
        name = f"net_{abs(hash(forward))}"  # a module is imported once
        (tmp_path / f"{name}.py").write_text("\n".join(lines))
        monkeypatch.chdir(tmp_path)
        out = tmp_path / "run"
        said = refused(capsys, "train", self.write(tmp_path), "--backbone", f"{name}:Net", "--out", str(out))
        assert told in said
        assert not list(out.rglob("*.pt"))

    def test_weights_that_do_not_fit(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file, out = tmp_path / "weights.pt", tmp_path / "run"
        torch.save({"stem.weight": torch.zeros(3, 3)}, file)
        said = refused(capsys, "train", self.write(tmp_path), "--set", f"model.weights={file}", "--out", str(out))
        assert f"{file}: no tensor fits: the file's names begin with stem.weight" in said
        assert not out.exists()

    def test_a_task_that_stands_twice(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        recipe = self.write(tmp_path, SCENES + "tasks: {depth: {weight: 1}, depth: {weight: 2}}\n")
        assert "the key 'depth' stands twice" in refused(capsys, "train", recipe)


class TestBundles:
    def test_a_changed_file(self, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model = copy / "bundle" / "model.onnx"
        bytes_ = bytearray(model.read_bytes())
        bytes_[len(bytes_) // 2] ^= 1
        model.write_bytes(bytes_)
        said = refused(capsys, "verify", str(copy / "bundle"), code=1)
        assert "model.onnx was changed or damaged: its SHA-256 is " in said

    def test_a_changed_manifest(self, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        manifest = copy / "bundle" / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"macs": ', '"macs": 1'))
        for command in ("verify", "inspect", "flops", "bench"):
            said = refused(capsys, command, str(copy / "bundle"), code=1)
            assert said.startswith(f"{manifest}: was changed, formatted anew or damaged")

    @pytest.mark.parametrize("command", ["verify", "bench"])
    def test_a_network_that_was_never_valid(self, copy: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Its hash is right, and so is the manifest's."""
        model, manifest = copy / "bundle" / "model.onnx", copy / "bundle" / "manifest.json"
        model.write_bytes(b"no ONNX")
        said = json.loads(manifest.read_text())
        said["files"]["model.onnx"] = {"size_bytes": 7, "sha256": sha256(model)}
        manifest.write_text(sealed(said))
        sentence = refused(capsys, command, str(copy / "bundle"), code=1)
        assert sentence.startswith(f"{model}: not valid ONNX: ")
        assert sentence.endswith("so it was not damaged on its way but written like this: export the network again")

    def test_not_a_bundle(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "manifest.json" in refused(capsys, "verify", str(tmp_path))

    def test_no_format(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "no format was asked for" in refused(capsys, "export", str(folder / "collapsed.safetensors"))


class TestMeasuring:
    def test_more_threads_than_cores(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(capsys, "bench", str(folder / "bundle"), "--threads", "1000000")
        assert said.startswith("threads: 1000000 for one request; expected 1 to ")

    def test_a_report_over_the_one_that_it_is_compared_with(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "report.json"
        file.write_text("kept")
        said = refused(capsys, "bench", "nothing.pt", "--out", str(tmp_path), "--against", str(file))
        assert said == f"{file}: would replace the file that is read; name another place"
        assert file.read_text() == "kept"

    def test_pictures_of_no_recipe(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(capsys, "bench", str(folder / "checkpoint.pt"), "--data", "nope")
        assert said.startswith("--data: nope: no such recipe")

    def test_no_name_for_a_runtime(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(capsys, "bench", str(folder / "bundle"), "--runtime", "")
        assert said == "the runtime '': expected onnxruntime or openvino"

    def test_a_report_where_a_file_is(self, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = refused(capsys, "bench", str(copy / "bundle"), "--out", str(copy / "checkpoint.pt"))
        assert said.endswith("checkpoint.pt: Not a directory; name another place")


class TestWriting:
    """A full disk, and Ctrl-C in the middle."""

    COMMANDS = (
        ("prune", "checkpoint.pt", "--out", "new/thin.safetensors"),
        ("export", "collapsed.safetensors", "--onnx", "--out", "new/bundle"),
        ("inspect", "checkpoint.pt", "--picture", "new/sharing.svg"),
    )
    NAMES = ("new/thin.safetensors", "new/bundle/model.onnx", "new/sharing.svg")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("command", "name"), list(zip(COMMANDS, NAMES, strict=True)), ids=[command[0] for command in COMMANDS]
    )
    def test_a_disk_that_takes_no_more(self, copy: Path, command: tuple[str, ...], name: str) -> None:
        done = within(1000, copy, *command)
        assert done.returncode == 1, done.stderr
        assert f"error: {name}: could not be written: " in done.stderr
        assert "File too large" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((copy / "new").rglob("*")) if (copy / "new").exists() else True

    @pytest.mark.slow
    @pytest.mark.parametrize("limit", [20, 30_000], ids="from the start|at the first checkpoint".split("|"))
    def test_a_training_on_a_disk_that_takes_no_more(self, tmp_path: Path, limit: int) -> None:
        (tmp_path / "recipe.yaml").write_text(SCENES)
        (tmp_path / "mine.py").write_text(BACKBONE)
        done = within(limit, tmp_path, "train", "recipe.yaml", "--backbone", "mine:make", "--out", "run")
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1] == (
            "error: run/gated/checkpoint.pt: could not be written: File too large; nothing was changed under this "
            "name. Next: make room, and go on with --resume"
        )
        assert "Traceback" not in done.stderr
        assert ("TensorBoard's file cannot be written (File too large)" in done.stderr) == (limit == 20)
        assert not list((tmp_path / "run").rglob("*.pt*"))

    @pytest.mark.parametrize("command", COMMANDS[:2], ids=lambda command: command[0])
    def test_ctrl_c(
        self, copy: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.chdir(copy)
        monkeypatch.setattr("gatedeploy.files._to_disk", interrupted)
        capsys.readouterr()
        assert run(list(command)) == 130
        said = capsys.readouterr().err.splitlines()
        assert said[-1] == "error: interrupted; what stands under a final name is complete"
        assert not any("Traceback" in line for line in said)
        assert not list((copy / "new").rglob("*"))


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["train", "demo", "--out", "new"], ". The training goes on with --resume"),
        (["--debug", "train", "demo"], ". The training goes on with --resume"),
        (["demo"], ". The same command goes on with it"),
    ],
    ids=["train", "an option first", "demo"],
)
def test_a_training_that_was_interrupted_goes_on(
    command: list[str],
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for module in ("train", "demo"):  # the commands of these names hide the modules
        monkeypatch.setattr(sys.modules[f"gatedeploy.cli.{module}"], "train_recipe", interrupted)
    assert run(command) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"error: interrupted; what stands under a final name is complete{hint}"


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["prune", "none.pt", "--debug"], 2, "error: none.pt: no such file"),
        (["--debug", "verify", "bundle"], 1, "error: bundle: README.md is missing; copy or export the bundle again"),
        (["inspect", "--debug", "checkpoint.pt"], 1, "error: unexpected ZeroDivisionError: by zero. This is a mistake"),
    ],
    ids=["wrong input", "a check failed", "a mistake"],
)
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    copy: Path,
    command: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mistaken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.chdir(copy)
    (copy / "bundle" / "README.md").unlink()
    monkeypatch.setattr(sys.modules["gatedeploy.cli.inspect"], "cost", mistaken)
    assert run(command) == code
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1].startswith(message)


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prun"]) == 2
    assert "prun" in capsys.readouterr().err
