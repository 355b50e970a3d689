from __future__ import annotations

import copy
import dataclasses
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo, read_checkpoint, read_collapsed
from gatedeploy.program import Program
from tests.graph.small import PICTURE, UNSEEN, Net, assert_equal, conv, gate, norm, prepared

EXAMPLE = PICTURE.float()
TASKS = [gd.Task("shapes", "classification", ("round", "square")), gd.Task("depth", "depth", weight=2.0)]


def gated() -> gd.GatedNetwork:
    backbone = nn.Sequential(conv(), norm(), nn.ReLU(inplace=True), conv(4, 4), nn.ReLU())
    network = gd.gate(backbone, TASKS, example_input=EXAMPLE, heads={"depth": conv(4, 1), "shapes": nn.Identity()})
    network.gate(network.sites[0], "depth").choose([True, False, False, True])
    return network.eval()


def by_hand() -> Net:
    network = Net(lambda n, x: {"only": n.gate(n.a(x), n.b(x))}, a=conv(), b=conv(), gate=gate(1, 0, 0, 1))
    return network.eval()


def same(one: nn.Module, other: nn.Module) -> None:
    """Equal bit for bit, on pictures and a batch size that were never seen."""
    with torch.no_grad():
        got, expected = one(UNSEEN.float()), other(UNSEEN.float())
    assert list(got) == list(expected)
    for task in expected:
        assert torch.equal(got[task], expected[task])


def test_a_gated_network_is_saved_and_loaded(tmp_path: Path) -> None:
    network = gated()
    gd.save(network, tmp_path / "checkpoint.pt")
    same(gd.load(tmp_path / "checkpoint.pt"), network)
    info = read_checkpoint(tmp_path / "checkpoint.pt").info
    assert info.tasks == tuple(TASKS)
    assert info.input == gd.InputSpec(3, 8, 8)
    assert info.form == "gated"


def test_a_network_gated_by_hand_is_saved_and_loaded(tmp_path: Path) -> None:
    network = by_hand()
    gd.save(network, str(tmp_path / "checkpoint.pt"), example_input=EXAMPLE[:1])
    loaded = gd.load(str(tmp_path / "checkpoint.pt"))
    same(loaded, network)
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in network.named_parameters()}


def test_what_was_loaded_is_collapsed_like_what_was_saved(tmp_path: Path) -> None:
    network = gated()
    gd.save(network, tmp_path / "checkpoint.pt")
    loaded = gd.collapse(gd.load(tmp_path / "checkpoint.pt"), example_input=EXAMPLE)
    direct = gd.collapse(network, example_input=EXAMPLE)
    same(loaded, direct)
    assert loaded.report is not None
    assert direct.report is not None
    assert loaded.report.sites == direct.report.sites
    assert loaded.report.collapsed == direct.report.collapsed


def test_a_collapsed_network_is_saved_and_loaded(tmp_path: Path) -> None:
    thin = gd.collapse(gated(), example_input=EXAMPLE)
    gd.save(thin, tmp_path / "collapsed.safetensors")
    loaded = gd.load(tmp_path / "collapsed.safetensors")
    assert isinstance(loaded, gd.Collapsed)
    same(loaded, thin)
    assert loaded.report is None
    assert str(loaded.network) == str(thin.network)
    _, info = read_collapsed(tmp_path / "collapsed.safetensors")
    assert info.form == "collapsed"
    assert thin.report is not None
    assert info.report["collapsed"] == {"macs": thin.report.collapsed.macs, "params": thin.report.collapsed.params}
    assert [site["site"] for site in info.report["sites"]] == [site.site for site in thin.report.sites]


def test_what_was_loaded_is_saved_again(tmp_path: Path) -> None:
    gd.save(by_hand(), tmp_path / "1", example_input=EXAMPLE)
    gd.save(gd.load(tmp_path / "1"), tmp_path / "2", example_input=EXAMPLE)
    same(gd.load(tmp_path / "2"), gd.load(tmp_path / "1"))
    gd.save(gd.collapse(by_hand(), example_input=EXAMPLE), tmp_path / "3")
    gd.save(gd.load(tmp_path / "3"), tmp_path / "4")
    same(gd.load(tmp_path / "4"), gd.load(tmp_path / "3"))
    assert (tmp_path / "4").stat().st_size < (tmp_path / "3").stat().st_size  # the report is not made up


def test_what_travels_with_a_network_is_kept(tmp_path: Path) -> None:
    picture = gd.InputSpec(3, 8, 8, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0), "photo")
    info = ModelInfo((gd.Task("only", "depth"),), picture, "gated", {"epochs": 1}, {"only": {"error": 0.5}})
    gd.save(by_hand(), tmp_path / "g", example_input=EXAMPLE, info=info)
    read = read_checkpoint(tmp_path / "g")
    assert read.info == info
    assert read.program.input == picture
    thin = gd.collapse(read.program)
    gd.save(thin, tmp_path / "c", info=info)
    assert read_collapsed(tmp_path / "c")[1].metrics == info.metrics
    same(gd.load(tmp_path / "c"), thin)


PHOTO = gd.InputSpec(3, 8, 8, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0), "photo")
KNOWN = ModelInfo(tuple(TASKS), PHOTO, "gated", {"epochs": 1}, {"depth": {"error": 0.5}})


def told(info: ModelInfo | None) -> tuple[object, ...]:
    assert info is not None
    return info.tasks, info.input, info.recipe, info.metrics


@pytest.mark.parametrize(
    "part",
    [
        lambda loaded: loaded,
        lambda loaded: loaded.network,
        lambda loaded: copy.deepcopy(loaded),
        lambda loaded: copy.deepcopy(loaded.network),
    ],
    ids=["all of it", "its network", "a copy", "a copy of its network"],
)
def test_what_was_loaded_keeps_its_tasks_and_preprocessing_through_training(
    part: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    gd.save(gd.collapse(gated(), example_input=EXAMPLE), tmp_path / "1", info=KNOWN)
    network = part(gd.load(tmp_path / "1"))
    loss = network(EXAMPLE)["depth"].square().sum()
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    gd.save(network, tmp_path / "2")
    program, info = read_collapsed(tmp_path / "2")
    # What was measured was measured with other weights.
    assert told(info) == (KNOWN.tasks, PHOTO, KNOWN.recipe, {})
    assert (info.form, info.report, program.input) == ("collapsed", {}, PHOTO)
    same(gd.load(tmp_path / "2"), network)


def test_a_loaded_checkpoint_keeps_them_too(tmp_path: Path) -> None:
    gd.save(gated(), tmp_path / "1", info=KNOWN)
    loaded = gd.load(tmp_path / "1")
    gd.save(loaded, tmp_path / "2")
    info = read_checkpoint(tmp_path / "2").info
    assert (*told(info), info.form) == (KNOWN.tasks, PHOTO, KNOWN.recipe, {}, "gated")
    assert gd.collapse(loaded, example_input=EXAMPLE, tasks=["depth"]).info == ModelInfo(
        (TASKS[1],), PHOTO, "collapsed", KNOWN.recipe
    )


def test_a_collapsed_network_knows_what_the_gated_one_knew(tmp_path: Path) -> None:
    thin = gd.collapse(gated(), example_input=EXAMPLE, tasks=["depth", "shapes"])
    assert thin.info == ModelInfo((TASKS[1], TASKS[0]), gd.InputSpec(3, 8, 8), "collapsed")
    gd.save(thin, tmp_path / "c")
    assert read_collapsed(tmp_path / "c")[1].tasks == (TASKS[1], TASKS[0])
    assert gd.collapse(by_hand(), example_input=EXAMPLE).info is None


def program_and_info(path: Path) -> tuple[Program, ModelInfo]:
    read = read_checkpoint(path)
    return read.program, read.info


def test_preprocessing_is_kept_at_another_size(tmp_path: Path) -> None:
    gd.save(gated(), tmp_path / "1", info=KNOWN)
    larger = torch.randn(2, 3, 12, 10)
    expected = dataclasses.replace(PHOTO, height=12, width=10)
    loaded = gd.load(tmp_path / "1")
    gd.save(gd.collapse(loaded, example_input=larger), tmp_path / "2")
    gd.save(loaded, tmp_path / "3", example_input=larger)
    for program, info in (read_collapsed(tmp_path / "2"), program_and_info(tmp_path / "3")):
        assert (program.input, info.input) == (expected, expected)


def test_what_is_said_counts_more_than_what_is_known(tmp_path: Path) -> None:
    gd.save(gd.collapse(gated(), example_input=EXAMPLE), tmp_path / "1", info=KNOWN)
    loaded = gd.load(tmp_path / "1")
    assert isinstance(loaded, gd.Collapsed)
    assert loaded.info is not None
    said = dataclasses.replace(loaded.info, metrics={"depth": {"error": 0.25}})
    for network in (loaded, loaded.network):
        gd.save(network, tmp_path / "2", info=said)
        assert read_collapsed(tmp_path / "2")[1].metrics == {"depth": {"error": 0.25}}


def test_training_further_and_saving_keeps_the_weights_of_now(tmp_path: Path) -> None:
    thin = gd.collapse(gated(), example_input=EXAMPLE)
    with torch.no_grad():
        for parameter in thin.parameters():
            parameter.mul_(1.5)
    gd.save(thin, tmp_path / "c")
    same(gd.load(tmp_path / "c"), thin)


def test_a_network_in_training_mode_is_saved_in_evaluation_mode(tmp_path: Path) -> None:
    network = gated().train()
    gd.save(network, tmp_path / "g")
    assert network.training
    loaded = gd.load(tmp_path / "g")
    assert not loaded.training
    same(loaded, network.eval())


def test_a_network_that_gate_did_not_make_needs_an_example(tmp_path: Path) -> None:
    with pytest.raises(gd.InputError, match="saving a Net needs an example_input to see how it runs"):
        gd.save(by_hand(), tmp_path / "g")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_leaves_nothing_behind(tmp_path: Path) -> None:
    network = Net(lambda n, x: {"only": torch.fft.fft2(n.a(x)).abs()}, a=conv())
    with pytest.raises(gd.InputError, match=r"its graph calls 'aten\.fft_fft2\.default'"):
        gd.save(network, tmp_path / "g", example_input=EXAMPLE)
    with pytest.raises(gd.InputError, match=r"its graph calls 'aten\.fft_fft2\.default'"):
        gd.save(gd.collapse(network, example_input=EXAMPLE), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_predictions_are_called_as_tasks_are(tmp_path: Path) -> None:
    network = Net(lambda n, x: {"my task": n.a(x)}, a=conv())
    with pytest.raises(gd.InputError, match="task name 'my task': expected an identifier"):
        gd.save(network, tmp_path / "g", example_input=EXAMPLE)


def test_predictions_with_numbers_for_names_are_refused(tmp_path: Path) -> None:
    network = Net(lambda n, x: {0: n.a(x)}, a=conv())
    with pytest.raises(gd.InputError, match="task name 0"):
        gd.save(network, tmp_path / "g", example_input=EXAMPLE)


@pytest.mark.parametrize("path", [".", ""])
def test_a_folder_is_no_place_for_a_network(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gd.InputError, match=r"\.: could not be written: a folder; name a file"):
        gd.save(by_hand(), path, example_input=EXAMPLE)


def test_a_file_is_no_folder_to_save_in(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(gd.GatedeployError, match=r"could not be written: .*; nothing was changed under this name"):
        gd.save(by_hand(), tmp_path / "file" / "g", example_input=EXAMPLE)
    assert (tmp_path / "file").read_text() == "mine"


def test_norms_without_statistics_are_saved_and_loaded(tmp_path: Path) -> None:
    """Such a network cannot be collapsed, but it can be saved."""
    network = Net(lambda n, x: {"y": n.norm(x)}, norm=norm(3, track_running_stats=False)).eval()
    gd.save(network, tmp_path / "g", example_input=EXAMPLE)
    same(gd.load(tmp_path / "g"), network)


def test_float64_is_kept(tmp_path: Path) -> None:
    thin = gd.collapse(prepared(by_hand()), example_input=PICTURE)
    gd.save(thin, tmp_path / "c")
    with torch.no_grad():
        expected: dict[str, Tensor] = thin(UNSEEN)
        assert_equal(gd.load(tmp_path / "c")(UNSEEN), expected, 0.0)


def test_a_collapsed_network_is_pickled_without_a_type_of_gatedeploys() -> None:
    thin = gd.collapse(gated(), example_input=EXAMPLE)
    assert thin.info is not None
    parts = pickletools.genops(pickle.dumps(thin.network))
    texts = {argument for _, argument, _ in parts if isinstance(argument, str)}
    assert {text for text in texts if text.startswith("gatedeploy")} == {"gatedeploy.info"}


def test_what_is_said_must_fit(tmp_path: Path) -> None:
    network = gated()
    thin = gd.collapse(network, example_input=EXAMPLE)
    other_task = ModelInfo((gd.Task("colour"),), gd.InputSpec(3, 8, 8))
    for net, info, message in (
        (thin, {"a": 1}, r"info: expected ModelInfo or None, got {'a': 1} \(dict\)"),
        (thin, other_task, "the network predicts '.*', of which its description knows nothing: colour"),
        (
            thin,
            dataclasses.replace(other_task, tasks=tuple(TASKS), input=gd.InputSpec(3, 9, 8)),
            "its description says",
        ),
        (network, other_task, "the network predicts '.*', of which its description knows nothing: colour"),
        (network, dataclasses.replace(other_task, tasks=tuple(TASKS), input=gd.InputSpec(3, 9, 8)), "the description"),
    ):
        with pytest.raises(gd.InputError, match=message):
            gd.save(net, tmp_path / "file", info=info)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_collapsed_network_takes_batches() -> None:
    thin = gd.collapse(gated(), example_input=EXAMPLE)
    with pytest.raises(gd.InputError, match=r"the picture: expected a tensor \(batch, channels, height, width\), got"):
        thin(EXAMPLE[0])
