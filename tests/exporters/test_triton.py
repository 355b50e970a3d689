"""Model repositories for Triton, read back by the parser and held to the rules that Triton itself goes by."""

from __future__ import annotations

import errno
import json
import shutil
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.exporters import Bundle, read_bundle, write_bundle
from gatedeploy.exporters import triton as module
from gatedeploy.exporters.manifest import Engine, Manifest
from gatedeploy.exporters.triton import write_triton
from gatedeploy.exporters.triton_config import Served, config_text, lines, quoted, served_onnx
from gatedeploy.files import sha256
from gatedeploy.runners.base import TensorSpec
from gatedeploy.runners.in_onnxruntime import OnnxRuntimeRunner
from tests.exporters.networks import INPUT, PARTS, SCENE
from tests.exporters.test_reading import admit, edit

REASON = "tritonclient is not installed: pip install 'tritonclient[grpc]'"
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=REASON)
text_format = pytest.importorskip("google.protobuf.text_format", reason=REASON)

IMAGE = TensorSpec("image", ("batch", 3, 8, 8), "float32")


def parsed(text: str | bytes) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def config(folder: Path) -> Any:
    """What Triton reads of a model, once it holds to ValidateModelConfig and ValidateIOShape of Triton's core."""
    said = parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
    assert said.name == folder.name
    assert said.max_batch_size >= 1
    for port in (*said.input, *said.output):
        assert port.name
        assert port.data_type != model_config_pb2.TYPE_INVALID
        assert port.dims
        assert all(size >= 1 or size == -1 for size in port.dims)
    assert all(0 < size <= said.max_batch_size for size in said.dynamic_batching.preferred_batch_size)
    for output in said.output:
        assert not output.label_filename or (folder / output.label_filename).is_file()
    return said


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}


def with_engine(bundle: Bundle, runtime: str = "tensorrt", batches: tuple[int, int, int] = (1, 4, 16)) -> Bundle:
    """The bundle with an engine: bytes, which nothing here opens."""
    name = f"engine/{runtime}.plan"
    (bundle.path / "engine").mkdir()
    (bundle.path / name).write_bytes(b"ftrt a plan")
    engine = Engine(runtime, "10.9.0", ("SM86",), batches, (IMAGE,), bundle.manifest.outputs, {}, {})
    said = {**asdict(engine), "batches": dict(zip(("min", "opt", "max"), batches, strict=True))}
    admit(bundle, name)
    edit(bundle, lambda document: document["engines"].update({name: said}))
    return read_bundle(bundle.path)


def test_the_network_as_a_model(exported: Bundle, tmp_path: Path) -> None:
    model = write_triton(exported, tmp_path / "repository", "rooms")
    assert model == tmp_path / "repository" / "rooms"
    assert files(tmp_path / "repository") == {
        f"rooms/{name}"
        for name in ("config.pbtxt", "gatedeploy.json", "scene_labels.txt", "parts_labels.txt", "1/model.onnx")
    }
    said = config(model)
    assert (said.platform, said.max_batch_size) == ("onnxruntime_onnx", 32)
    assert [(port.name, port.data_type, list(port.dims)) for port in (*said.input, *said.output)] == [
        ("image", model_config_pb2.TYPE_FP32, [3, 8, 8]),
        ("scene", model_config_pb2.TYPE_FP32, [2]),
        ("parts", model_config_pb2.TYPE_FP32, [3, 8, 8]),
    ]
    assert said.HasField("dynamic_batching")
    assert list(said.dynamic_batching.preferred_batch_size) == [], "any size is as good"
    assert said.dynamic_batching.max_queue_delay_microseconds == 100
    assert not said.instance_group, "Triton chooses"


def test_its_files_are_those_of_the_bundle(exported: Bundle, tmp_path: Path) -> None:
    model = write_triton(exported, tmp_path, "rooms")
    assert sha256(model / "1/model.onnx") == exported.manifest.files["model.onnx"].sha256
    assert (model / "parts_labels.txt").read_text() == "sky\nroad\ntree\n"
    picture = {"image": np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)}
    with gd.open(exported.path) as runner, OnnxRuntimeRunner(model / "1/model.onnx") as served:
        for name, expected in runner.infer(picture).items():
            np.testing.assert_array_equal(served.infer(picture)[name], expected)


def test_labels_of_scores_and_of_maps(exported: Bundle, tmp_path: Path) -> None:
    """In a map Triton's classification would take a place for a class: clients are told of the file instead."""
    said = config(write_triton(exported, tmp_path, "rooms"))
    assert [output.label_filename for output in said.output] == ["scene_labels.txt", ""]
    told = {key: value.string_value for key, value in said.parameters.items()}
    assert told["labels.parts"] == "parts_labels.txt"
    assert told["labels.scene"] == "scene_labels.txt"


def test_clients_are_told_how_to_prepare_pictures(exported: Bundle, tmp_path: Path) -> None:
    told = config(write_triton(exported, tmp_path, "rooms")).parameters
    assert tuple(json.loads(told["mean"].string_value)) == INPUT.mean
    assert tuple(json.loads(told["std"].string_value)) == INPUT.std


def test_the_name_is_the_bundles(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_triton(bundle, tmp_path / "out").name == "bundle"
    monkeypatch.chdir(bundle.path)
    assert write_triton(Bundle(Path(), bundle.manifest), tmp_path / "other").name == "bundle"


def test_an_engine_is_a_model_of_its_own(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle), tmp_path / "out", "rooms")
    engine = tmp_path / "out" / "rooms_trt"
    assert files(engine) == {
        "config.pbtxt",
        "gatedeploy.json",
        "scene_labels.txt",
        "parts_labels.txt",
        "1/model.plan",
    }
    assert (engine / "1/model.plan").read_bytes() == b"ftrt a plan"
    said = config(engine)
    assert (said.platform, said.max_batch_size) == ("tensorrt_plan", 16)
    assert list(said.dynamic_batching.preferred_batch_size) == [4, 16]
    assert "engine of TensorRT 10.9.0 for SM86: Triton has to have the same" in (engine / "config.pbtxt").read_text()
    assert config(tmp_path / "out" / "rooms").platform == "onnxruntime_onnx"


def test_an_engine_for_single_pictures_is_not_batched(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle, batches=(1, 1, 1)), tmp_path / "out", "rooms")
    said = config(tmp_path / "out" / "rooms_trt")
    assert said.max_batch_size == 1
    assert not said.HasField("dynamic_batching")


def test_engines_of_tensorrt_for_rtx_are_left_out(bundle: Bundle, tmp_path: Path) -> None:
    write_triton(with_engine(bundle, "tensorrt-rtx"), tmp_path / "out", "rooms")
    assert [model.name for model in (tmp_path / "out").iterdir()] == ["rooms"]


def test_an_engine_that_takes_no_single_picture(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="takes batches from 2 on, and Triton also sends single pictures; export it wi"
    ):
        write_triton(with_engine(bundle, batches=(2, 4, 16)), tmp_path / "out", "rooms")
    assert not (tmp_path / "out").exists()


def test_weights_beside_the_network_lie_with_it(bundle: Bundle, tmp_path: Path) -> None:
    """In a folder of the file's name, "ONNX Models" in Triton's docs/user_guide/model_repository.md."""
    onnx.save(
        onnx.load(bundle.model),
        bundle.model,
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=200,
    )
    for name in ("model.onnx", "model.onnx.data"):
        admit(bundle, name)
    model = write_triton(read_bundle(bundle.path), tmp_path / "out", "rooms")
    assert {"1/model.onnx/model.onnx", "1/model.onnx/model.onnx.data"} < files(model)
    with OnnxRuntimeRunner(model / "1/model.onnx/model.onnx") as runner:
        assert set(runner.infer({"image": np.zeros((1, 3, 8, 8), np.float32)})) == {"scene", "parts"}


def test_bfloat16_is_for_gpus(exported: Bundle) -> None:
    manifest = replace(exported.manifest, precision="bf16")
    (group,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


class TestPlace:
    """Where it is written, and what is there already."""

    def test_other_models_stay(self, exported: Bundle, tmp_path: Path) -> None:
        other = tmp_path / "other" / "config.pbtxt"
        other.parent.mkdir()
        other.write_text("mine")
        write_triton(exported, tmp_path, "rooms")
        assert other.read_text() == "mine"
        assert {folder.name for folder in tmp_path.iterdir()} == {"other", "rooms"}

    def test_its_own_is_replaced(self, bundle: Bundle, tmp_path: Path) -> None:
        write_triton(with_engine(bundle), tmp_path / "out", "rooms")
        (tmp_path / "out" / "rooms" / "scene_labels.txt").unlink()
        write_triton(bundle, tmp_path / "out", "rooms")
        assert "scene_labels.txt" in files(tmp_path / "out" / "rooms")
        assert {folder.name for folder in (tmp_path / "out").iterdir()} == {"rooms", "rooms_trt"}

    @pytest.mark.parametrize(
        ("found", "message"),
        [
            (
                {"config.pbtxt": "mine"},
                "rooms: exists and was not written by gatedeploy as a model of Triton's; choose",
            ),
            ({"gatedeploy.json": '{"format": "a web app", "files": {}}'}, "was not written by gatedeploy"),
            ({"gatedeploy.json": "[" * 100_000}, "was not written by gatedeploy"),
            ({"gatedeploy.json": '{"format": "gatedeploy.triton", "files": 7}'}, "was not written by gatedeploy"),
        ],
    )
    def test_somebody_elses_model_is_left_alone(
        self, exported: Bundle, tmp_path: Path, found: dict[str, str], message: str
    ) -> None:
        (tmp_path / "rooms").mkdir()
        for name, text in found.items():
            (tmp_path / "rooms" / name).write_text(text)
        with pytest.raises(InputError, match=message):
            write_triton(exported, tmp_path, "rooms")
        assert {name: (tmp_path / "rooms" / name).read_text() for name in files(tmp_path / "rooms")} == found

    def test_what_was_changed_or_added_by_hand_is_not_lost(self, exported: Bundle, tmp_path: Path) -> None:
        model = write_triton(exported, tmp_path, "rooms")
        (model / "2").mkdir()
        (model / "2" / "model.onnx").write_bytes(b"the next one")
        with pytest.raises(
            InputError, match=r"rooms: holds 2/model.onnx besides what gatedeploy wrote; move it, or cho"
        ):
            write_triton(exported, tmp_path, "rooms")
        shutil.rmtree(model / "2")
        with (model / "config.pbtxt").open("a") as file:
            file.write("version_policy { all { } }\n")
        with pytest.raises(InputError, match=r"rooms: config.pbtxt was changed since gatedeploy wrote it; move it, or"):
            write_triton(exported, tmp_path, "rooms")
        assert "version_policy" in (model / "config.pbtxt").read_text()

    def test_an_engine_of_an_earlier_bundle_is_told_of(self, bundle: Bundle, exported: Bundle, tmp_path: Path) -> None:
        out = tmp_path / "out"
        write_triton(with_engine(bundle), out, "rooms")
        with pytest.raises(
            InputError, match="rooms_trt: is the TensorRT engine of an earlier bundle, and this one has no"
        ):
            write_triton(exported, out, "rooms")
        write_triton(exported, out, "a")
        write_triton(exported, out, "a_trt")
        write_triton(exported, out, "a")  # what is called like an engine is none

    def test_links_are_refused(self, exported: Bundle, tmp_path: Path) -> None:
        model = write_triton(exported, tmp_path / "real", "rooms")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        with pytest.raises(InputError, match="link: is a link; name the folder itself"):
            write_triton(exported, tmp_path / "link", "rooms")
        (tmp_path / "real" / "doors").symlink_to(model)
        with pytest.raises(InputError, match="doors: is a link; choose another name or repository"):
            write_triton(exported, tmp_path / "real", "doors")
        (model / "1/model.onnx").unlink()
        (model / "1/model.onnx").symlink_to(exported.model)
        with pytest.raises(InputError, match=r"rooms: 1/model.onnx was changed since gatedeploy wrote it"):
            write_triton(exported, tmp_path / "real", "rooms")
        (model / "gatedeploy.json").rename(tmp_path / "elsewhere.json")
        (model / "gatedeploy.json").symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(InputError, match="rooms: exists and was not written by gatedeploy"):
            write_triton(exported, tmp_path / "real", "rooms")

    def test_a_file_is_no_repository(self, exported: Bundle, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(
            InputError, match="file: is a file; expected the folder of a model repository, or a name tha"
        ):
            write_triton(exported, tmp_path / "file")
        (tmp_path / "rooms").write_text("mine")
        with pytest.raises(InputError, match="rooms: exists and was not written by gatedeploy"):
            write_triton(exported, tmp_path, "rooms")

    def test_neither_in_the_bundle_nor_over_it(self, bundle: Bundle) -> None:
        with pytest.raises(
            InputError, match="triton: lies in the bundle, which holds its own files alone; choose another"
        ):
            write_triton(bundle, bundle.path / "triton", "rooms")
        with pytest.raises(InputError, match="bundle: exists and was not written by gatedeploy as a model of Triton's"):
            write_triton(bundle, bundle.path.parent)
        assert read_bundle(bundle.path) == bundle

    @pytest.mark.parametrize("name", ["", "two words", "a/b", "..", ".hidden", "-x", "größe", "a\nb", "50%"])
    def test_names_that_no_address_holds(self, exported: Bundle, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            InputError, match=r"cannot be the name of a model: Triton's addresses hold it; take ASCII let"
        ):
            write_triton(exported, tmp_path / "out", name)
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("existing", [False, True])
    @pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_stopped_half_way_nothing_changes(
        self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, stop: BaseException
    ) -> None:
        """The network is written already when its engine does not fit any more."""
        out = tmp_path / "out"
        bundle = with_engine(bundle)
        if existing:
            write_triton(bundle, out, "rooms")
        before = {name: (out / name).read_bytes() for name in files(out)}
        copyfile = shutil.copyfile

        def copy(source: Path, target: Path) -> None:
            copyfile(source, target)
            if target.name == "model.plan":
                raise stop

        monkeypatch.setattr("gatedeploy.exporters.triton.shutil.copyfile", copy)
        with pytest.raises((GatedeployError, KeyboardInterrupt)) as raised:
            write_triton(bundle, out, "rooms")
        if isinstance(stop, OSError):
            assert str(raised.value) == (
                f"{out / 'rooms_trt'}: could not be written: No space left on device; nothing was changed under this "
                "name. Next: make room"
            )
        assert {name: (out / name).read_bytes() for name in files(out)} == before


class TestBundle:
    """What is served has to be whole."""

    def test_a_damaged_one(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.model.write_bytes(bundle.model.read_bytes()[:-1] + b"x")
        with pytest.raises(CheckError, match=r"model.onnx was changed or damaged: its SHA-256 is"):
            write_triton(bundle, tmp_path / "out", "rooms")
        assert not (tmp_path / "out").exists()

    def test_one_that_changes_meanwhile(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "read_bundle", lambda path: bundle)
        bundle.model.write_bytes(b"half a network")
        with pytest.raises(
            CheckError, match=r"model.onnx: changed while it was copied; nothing was written. Try again"
        ):
            write_triton(bundle, tmp_path / "out", "rooms")
        assert not any((tmp_path / "out").iterdir())

    def test_one_without_onnx(self, bundle: Bundle, tmp_path: Path) -> None:
        bundle.model.unlink()
        edit(bundle, lambda document: document["files"].pop("model.onnx"))
        with pytest.raises(InputError, match=r"bundle: holds no model.onnx; it holds onnx"):
            write_triton(bundle, tmp_path / "out", "rooms")

    def test_one_without_its_class_names(self, bundle: Bundle, tmp_path: Path) -> None:
        (bundle.path / "labels/parts.txt").unlink()
        edit(bundle, lambda document: document["files"].pop("labels/parts.txt"))
        with pytest.raises(
            InputError, match=r"bundle: holds no labels/parts.txt, though its task has classes; export it"
        ):
            write_triton(bundle, tmp_path / "out", "rooms")

    def test_an_engine_with_other_outputs(self, bundle: Bundle, tmp_path: Path) -> None:
        with_engine(bundle)
        edit(bundle, lambda document: document["engines"]["engine/tensorrt.plan"]["outputs"][0].update(name="x"))
        with pytest.raises(InputError, match="rooms_trt returns 'x', of which the bundle's manifest knows nothing"):
            write_triton(bundle, tmp_path / "out", "rooms")

    def test_a_stranger_cannot_write_settings(self, bundle: Bundle, tmp_path: Path) -> None:
        with_engine(bundle)
        version = '10\nparameters { key: "EXECUTION_ENV_PATH" }\u2028'
        edit(bundle, lambda document: document["engines"]["engine/tensorrt.plan"].update(version=version))
        write_triton(bundle, tmp_path / "out", "rooms")
        assert "EXECUTION_ENV_PATH" not in config(tmp_path / "out" / "rooms_trt").parameters


def manifest_of(manifest: Manifest, output: TensorSpec, task: gd.Task) -> Manifest:
    return replace(manifest, outputs=(output,), tasks=(task,), task_of={output.name: task.name})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            TensorSpec("y", ("batch", 2), "bfloat16"),
            r"'y' is bfloat16 \(batch, 2\), a type that Triton does not have; it",
        ),
        (TensorSpec("y", (7, 2), "float32"), "Triton makes batches along the first axis, which is not free here"),
        (TensorSpec("y", (), "float32"), "Triton makes batches along the first axis"),
        (TensorSpec("y", ("batch", 0), "float32"), "Triton takes tensors with a name, and none without content"),
        (TensorSpec("", ("batch", 1), "float32"), "Triton takes tensors with a name"),
        (TensorSpec("y\ud800", ("batch", 1), "float32"), "is no text that UTF-8 can hold, and Triton has no other"),
    ],
)
def test_tensors_that_triton_does_not_have(exported: Bundle, output: TensorSpec, message: str) -> None:
    manifest = manifest_of(exported.manifest, output, gd.Task("t"))
    with pytest.raises(InputError, match=message):
        config_text(served_onnx(manifest, "x"), manifest)


@pytest.mark.parametrize(
    ("shape", "dims", "reshape"),
    [(("batch",), [1], True), (("batch", 5), [5], False), (("batch", 5, "axis_2"), [5, -1], False)],
)
def test_sizes(exported: Bundle, shape: tuple[Any, ...], dims: list[int], reshape: bool) -> None:
    """One number per picture has no sizes left: Triton wants them written otherwise, "Reshape" in its docs."""
    manifest = manifest_of(exported.manifest, TensorSpec("t", shape, "int64"), gd.Task("t"))
    (output,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).output
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == (dims, reshape, [])
    assert output.data_type == model_config_pb2.TYPE_INT64


@pytest.mark.parametrize(
    ("kind", "sizes", "labels"),
    [
        ("classification", (2,), "scene_labels.txt"),
        ("classification", (6,), ""),
        ("classification", (2, 1), ""),
        ("segmentation", (2,), ""),
        (None, (2,), ""),
    ],
)
def test_only_one_score_per_class_has_labels(exported: Bundle, kind: Any, sizes: tuple[int, ...], labels: str) -> None:
    """Of a task that predicts several tensors, or of one that is no classification, Triton could not count classes."""
    output = TensorSpec("scene_0", ("batch", *sizes), "float32")
    manifest = manifest_of(exported.manifest, output, replace(SCENE, kind=kind))
    said = parsed(config_text(served_onnx(manifest, "x"), manifest))
    assert said.output[0].label_filename == labels
    assert said.parameters["labels.scene_0"].string_value == "scene_labels.txt"


@given(text=st.text())
def test_any_text_is_read_back(text: str) -> None:
    message = "".join(f"{line}\n" for line in lines((("name", text),)))
    assert message.count("\n") == 1
    assert parsed(message).name == text
    assert parsed(message.encode()).name == text


def identifier(text: str) -> bool:
    """What a task may be called, see `gd.Task`; half characters are no identifiers."""
    return text.isidentifier() and unicodedata.normalize("NFKC", text) == text and not text.startswith("_")


@given(name=st.text(min_size=1, max_size=12).filter(identifier), classes=st.lists(st.text(), min_size=2, unique=True))
def test_any_task_is_read_back(exported: Bundle, name: str, classes: list[str]) -> None:
    """Names of tasks may be in any script; names of classes may be anything: the file alone holds them."""
    try:
        task = gd.Task(name, "classification", tuple(classes))
    except InputError:  # a keyword, or "shared"
        return
    output = TensorSpec(name, ("batch", len(classes)), "float32")
    manifest = manifest_of(exported.manifest, output, task)
    (said,) = parsed(config_text(served_onnx(manifest, "x"), manifest)).output
    assert (said.name, list(said.dims), said.label_filename) == (name, [len(classes)], f"{name}_labels.txt")


@pytest.mark.usefixtures("quick_export")
def test_class_names_are_handed_on_as_they_are(thin: gd.Collapsed, tmp_path: Path) -> None:
    """Triton takes the file line by line (src/label_provider.cc of its core) and splits at nothing but line feeds."""
    scene = replace(SCENE, classes=('"quoted"', "back\\slash"))
    parts = replace(PARTS, classes=(" spaces ", "größe 𝄞 #", "{"))
    bundle = write_bundle(thin, ModelInfo((scene, parts), INPUT), tmp_path / "bundle")
    model = write_triton(bundle, tmp_path / "out", "rooms")
    for task in (scene, parts):
        read = (model / f"{task.name}_labels.txt").read_bytes().decode().split("\n")
        assert tuple(read[:-1]) == task.classes
        assert read[-1] == ""


def test_what_stands_between_quotes() -> None:
    assert quoted('a"b\\c\n\x85é') == '"a\\"b\\\\c\\012\\302\\205é"'


def test_notes_are_comments(exported: Bundle) -> None:
    served = Served("x", "onnxruntime_onnx", (8, 8), (IMAGE,), exported.manifest.outputs, notes=("Two\nlines",))
    text = config_text(served, exported.manifest)
    assert text.startswith('# Written by gatedeploy.\n# Two lines\nname: "x"\n')
    assert list(parsed(text).dynamic_batching.preferred_batch_size) == [8]
