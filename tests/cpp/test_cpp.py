"""The C++ library: built, and held to the numbers that Python computes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import gatedeploy as gd
from tests.cpp import bundles
from tests.exporters.networks import INPUT, SCENE, SIZE

CPP = Path(__file__).parents[2] / "exporters/cpp"
SHIPPED = ("CMakeLists.txt", "README.md", "cmake", "examples", "include", "src")
"""What a user gets; the tests stay here."""

ROUNDS = 100
"""How often each of eight threads calls; the sanitizer makes each call slower."""

NEEDED = ("cmake", "ctest", "c++")
MISSING = [name for name in NEEDED if shutil.which(name) is None]

# One after the other on one worker: two compilers at once would fill two cores and the memory.
pytestmark = pytest.mark.xdist_group("cpp")
compiled = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}, which is not installed")


def run(*command: object, folder: Path | None = None, fails: int = 0) -> str:
    """Run a command; returns what it printed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == fails, f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}"
    return done.stdout


def places() -> list[str]:
    """Where CMake finds the runtimes of this environment."""
    openvino = pytest.importorskip("openvino.utils", reason="needs openvino: pip install 'gatedeploy[openvino]'")
    return [f"-DOpenVINO_DIR={openvino.get_cmake_path()}", f"-DTorch_DIR={torch.utils.cmake_prefix_path}/Torch"]


def build(source: Path, out: Path, *settings: str) -> str:
    """Configure and build; returns what configuring printed."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    told = run("cmake", "-S", source, "-B", out, *generator, *settings)
    run("cmake", "--build", out, "-j2")
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, and what Python answers: see `bundles.make`."""
    folder = tmp_path_factory.mktemp("cpp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))  # where what was built here is remembered
        bundles.make(folder)
    return folder


@compiled
@pytest.mark.slow
def test_the_tests_pass_under_address_sanitizer(folder: Path, tmp_path: Path) -> None:
    """They are built once, not optimised, for it is the compiler that takes the time; what is shipped is optimised."""
    out = tmp_path / "build"
    told = build(
        CPP,
        out,
        *places(),
        *("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS=-Werror", "-DGATEDEPLOY_SANITIZE=address"),
        *("-DGATEDEPLOY_TESTS=ON", "-DGATEDEPLOY_EXAMPLES=OFF", "-DGATEDEPLOY_BACKENDS=openvino;aoti"),
        *(f"-DGATEDEPLOY_TEST_FOLDER={folder}", f"-DGATEDEPLOY_TEST_ROUNDS={ROUNDS}"),
    )
    assert "gatedeploy: openvino: found" in told
    assert "gatedeploy: aoti: found" in told
    listed = run("ctest", "-N", folder=out)
    assert re.findall(r"Test +#\d: (\w+)", listed) == ["core", "openvino", "aoti"]
    print(run("ctest", "--output-on-failure", "--no-tests=error", "-j2", folder=out))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user gets, installed: a folder with `project`, `build`, `install` and what configuring printed."""
    here = tmp_path_factory.mktemp("shipped")
    (here / "project").mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (CPP / name).is_dir() else shutil.copy
        copy(CPP / name, here / "project" / name)
    settings = "-DGATEDEPLOY_BACKENDS=openvino", "-DCMAKE_CXX_FLAGS=-Werror"
    told = build(here / "project", here / "build", *places()[:1], *settings)
    (here / "configured.txt").write_text(told)
    assert "aoti" not in told
    run("cmake", "--install", here / "build", "--prefix", here / "install")
    return here


@compiled
@pytest.mark.slow
def test_the_readmes_program_builds_with_what_was_installed(folder: Path, shipped: Path, tmp_path: Path) -> None:
    readme = (CPP / "README.md").read_text()
    program, commands = (re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL)[0] for language in ("cpp", "cmake"))
    (tmp_path / "my_program.cpp").write_text(program)
    project = "cmake_minimum_required(VERSION 3.18)\nproject(mine CXX)\nadd_executable(my_program my_program.cpp)\n"
    (tmp_path / "CMakeLists.txt").write_text(project + commands)
    build(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={shipped / 'install'}")
    told = run(tmp_path / "build/my_program", folder / "bundle")
    names = re.findall(r"^(\w+) of task (\w+): ", told, re.MULTILINE)
    assert names[:2] == [("scene", "scene"), ("parts", "parts")]
    assert names[-1] == ("extra_1", "extra")
    told = run(tmp_path / "build/my_program", folder / "expected", fails=1)
    assert "not a bundle (no manifest.json in it)" in told


def predict(shipped: Path, *words: object, fails: int = 0) -> str:
    return run(shipped / "build/examples/predict", *words, fails=fails)


@compiled
@pytest.mark.slow
def test_the_example_predicts_what_python_does(folder: Path, shipped: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    pictures = _pictures(pixels, tmp_path, shipped)
    mean, std = (np.array(values) for values in INPUT.moments)
    image = ((pixels / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
    with gd.open(folder / "onnx") as runner:
        expected = runner.infer({"image": image})
    for picture in pictures:
        out = tmp_path / f"out{picture.suffix}"
        told = predict(shipped, folder / "bundle", picture, out)
        assert f"scene: {SCENE.classes[int(expected['scene'].argmax())]}\n" in told
        for name, values in expected.items():
            got = np.fromfile(out / f"{name}.raw", np.float32).reshape(values.shape)
            assert f"{name}.raw: float32 ({', '.join(map(str, values.shape))})" in told
            assert abs(got - values).max() <= 1e-5 * abs(values).max()
        assert (out / "parts.pgm").read_bytes().startswith(b"P5\n8 8\n255\n")
        assert (out / "normals.ppm").read_bytes().startswith(b"P6\n4 4\n255\n")


def _pictures(pixels: np.ndarray, folder: Path, shipped: Path) -> list[Path]:
    """The pixels as a file of each kind that the example reads."""
    from PIL import Image

    pixels.tofile(folder / "picture.raw")
    Image.fromarray(pixels).save(folder / "picture.png")
    png = "the example reads PNG\n" in (shipped / "configured.txt").read_text()
    return [folder / "picture.raw", *([folder / "picture.png"] if png else [])]


@compiled
@pytest.mark.slow
def test_the_example_says_what_is_wrong(folder: Path, shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "small.raw").write_bytes(bytes(100))
    bundle, picture, out = folder / "bundle", tmp_path / "small.raw", tmp_path / "out"
    assert "usage: predict BUNDLE" in predict(shipped, fails=2)
    assert "there is no option --fast" in predict(shipped, "--fast", fails=2)
    assert "small.raw: has 100 bytes; 3 channels of 8 × 8 (width × height) have 192" in predict(
        shipped, bundle, picture, out, fails=2
    )
    assert "the backend 'aoti' is not in this build of gatedeploy, which has openvino" in predict(
        shipped, bundle, picture, out, "--backend", "aoti", "--trust", fails=2
    )
    assert "nowhere: no such folder" in predict(shipped, "nowhere", picture, out, fails=2)
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    with (damaged / "engine/openvino.bin").open("r+b") as file:
        file.write(b"x")
    assert "engine/openvino.bin was changed or damaged" in predict(shipped, damaged, picture, out, fails=1)


def test_the_version_is_pythons() -> None:
    assert f"project(gatedeploy VERSION {gd.__version__} " in (CPP / "CMakeLists.txt").read_text()


def test_every_file_is_short() -> None:
    for path in CPP.rglob("*"):
        if path.suffix in (".cpp", ".hpp", ".cmake"):
            lines = path.read_text().splitlines()
            assert len(lines) <= 300, path
            assert max(map(len, lines)) <= 120, path
