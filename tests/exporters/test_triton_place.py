"""Where models for Triton are written: nothing of the user's is lost, nothing half-written is left."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.exporters import Bundle, read_bundle
from gatedeploy.exporters import triton as module
from gatedeploy.exporters.triton import write_triton
from tests.exporters.test_reading import edit
from tests.exporters.test_triton import config, files, with_engine


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
