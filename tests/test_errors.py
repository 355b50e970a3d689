from __future__ import annotations

import sys

import pytest

from gatedeploy.errors import CheckError, GatedeployError, InputError, MissingExtraError, closest, located, run_program


def test_the_command_line_tells_them_apart() -> None:
    assert (GatedeployError.exit_code, InputError.exit_code, CheckError.exit_code) == (1, 2, 1)
    assert issubclass(MissingExtraError, InputError)


def test_a_missing_library_names_what_brings_it() -> None:
    message = str(MissingExtraError("training", "lightning_fabric", "train"))
    assert message == "training needs lightning_fabric, which is not installed: pip install 'gatedeploy[train]'"


@pytest.mark.parametrize("kind", [GatedeployError, InputError, CheckError])
def test_the_place_is_added_once_and_the_kind_stays(kind: type[GatedeployError]) -> None:
    with pytest.raises(kind) as caught, located("outer"), located("file"), located("file"):
        raise kind("what")
    assert str(caught.value) == "outer: file: what"
    assert type(caught.value) is kind


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match=r"^what$"), located("file"):
        raise ValueError("what")
    with located("file"):
        pass


@pytest.mark.parametrize(("kind", "code"), [(InputError, 2), (CheckError, 1)])
def test_a_program_ends_with_a_sentence(
    kind: type[GatedeployError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise kind("a.yaml: what")

    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert end.value.code == code
    assert capsys.readouterr() == ("", "error: a.yaml: what\n")
    run_program(lambda: None)


def test_a_program_does_not_hide_its_mistakes() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: sys.exit(1 // 0))


def test_the_nearest_name_is_proposed() -> None:
    assert closest("depht", ["depth", "normals"]) == "; did you mean 'depth'?"
    assert closest("xyz", ["depth", "normals"]) == ""
    assert closest("", ()) == ""
