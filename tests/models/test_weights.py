import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gatedeploy.errors import InputError
from gatedeploy.models.resnet import ResNet, resnet20
from gatedeploy.models.vit import ViT, vit_s16
from gatedeploy.models.weights import load_weights


def trunk(seed: int) -> ResNet:
    torch.manual_seed(seed)
    return resnet20(0.25)


def same(ours: nn.Module, theirs: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_torch_files_in_every_wrapping(tmp_path: Path, entry: str | None, prefix: str) -> None:
    there = trunk(1).state_dict()
    content = {prefix + key: value for key, value in there.items()} | {prefix + "fc.weight": torch.zeros(10, 16)}
    torch.save({entry: content, "epoch": 3} if entry else content, tmp_path / "weights.pth")
    net = trunk(2)
    report = load_weights(net, tmp_path / "weights.pth")
    assert same(net, there)
    assert report.matched == tuple(there)
    assert report.missed == report.reshaped == report.unused == ()


def test_safetensors(tmp_path: Path) -> None:
    there = trunk(1).state_dict()
    save_file(there, tmp_path / "weights.safetensors")
    net = trunk(2)
    assert load_weights(net, tmp_path / "weights.safetensors").matched == tuple(there)
    assert same(net, there)


def test_what_does_not_fit_is_reported_and_left_alone(tmp_path: Path) -> None:
    there = trunk(1).state_dict()
    del there["bn1.bias"]
    there["conv1.weight"] = torch.zeros(4, 1, 3, 3)
    there["neck.weight"] = torch.zeros(2)
    torch.save(there, tmp_path / "weights.pth")
    net = trunk(2)
    before = net.state_dict()["conv1.weight"].clone()
    report = load_weights(net, tmp_path / "weights.pth")
    assert report.missed == ("bn1.bias",)
    assert report.reshaped == ("conv1.weight",)
    assert report.unused == ("neck.weight",)
    assert len(report.matched) == len(net.state_dict()) - 2
    assert torch.equal(net.state_dict()["conv1.weight"], before)


def test_the_modules_dtype_stays(tmp_path: Path) -> None:
    torch.save(trunk(1).half().state_dict(), tmp_path / "weights.pth")
    net = trunk(2)
    load_weights(net, tmp_path / "weights.pth")
    assert net.state_dict()["conv1.weight"].dtype == torch.float32


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_does_not_run(tmp_path: Path, zipped: bool) -> None:
    file, marker = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"conv1.weight": Trap(marker)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"weights\.pth: holds .*, which is no tensor .* so it was not loaded; "
    ) as error:
        load_weights(trunk(1), file)
    assert not marker.exists()
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_bare_pickle_does_not_run(tmp_path: Path) -> None:
    file, marker = tmp_path / "weights.pth", tmp_path / "ran"
    file.write_bytes(pickle.dumps({"conv1.weight": Trap(marker)}))
    with pytest.raises(
        InputError, match=r"weights\.pth: not a readable PyTorch file: damaged, cut short or of another"
    ):
        load_weights(trunk(1), file)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_torch_files(tmp_path: Path, zipped: bool, share: float) -> None:
    file = tmp_path / "weights.pth"
    torch.save(trunk(1).state_dict(), file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        InputError, match=r"not a readable PyTorch file: damaged, cut short or of another kind"
    ) as error:
        load_weights(trunk(1), file)
    assert error.value.__suppress_context__
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_safetensors(tmp_path: Path, share: float) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(trunk(1).state_dict(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"weights\.safetensors: not a readable safetensors file: .+"):
        load_weights(trunk(1), file)


def test_files_of_another_content(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"init\.shared: .*weights\.pth: there is no such file of weights"):
        load_weights(trunk(1), file, where="init.shared")
    torch.save([1, 2], file)
    with pytest.raises(InputError, match=r"holds no tensors by name but a list; expected a state_dict"):
        load_weights(trunk(1), file)
    torch.save({"stem.weight": torch.zeros(2)}, file)
    with pytest.raises(
        InputError, match=r"no tensor fits: the file's names begin with stem\.weight; the module's with conv1"
    ):
        load_weights(trunk(1), file)
    torch.save({"epoch": 3}, file)
    with pytest.raises(
        InputError, match=r"no tensor fits: the file's names begin with nothing; the module's with conv1"
    ):
        load_weights(trunk(1), file)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(
        InputError, match=r"no tensor fits: conv1\.weight has shape \(64, 3, 7, 7\) and the module's \(4, 3"
    ):
        load_weights(trunk(1), file)
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3, device="meta")}, file)
    with pytest.raises(InputError, match=r"the tensors cannot be copied: .+"):
        load_weights(trunk(1), file)


def transformer(size: int = 32) -> ViT:
    torch.manual_seed(size)
    return vit_s16(size)


def as_torchvision(key: str) -> str:
    layer = r"blocks\.(\d+)\."
    theirs = r"encoder.layers.encoder_layer_\1."
    for ours, name in {
        "cls_token": "class_token",
        r"patch_embed\.proj": "conv_proj",
        "pos_embed": "encoder.pos_embedding",
        layer + r"norm(\d)": theirs + r"ln_\2",
        layer + r"attn\.qkv\.": theirs + "self_attention.in_proj_",
        layer + r"attn\.proj": theirs + "self_attention.out_proj",
        layer + r"mlp\.fc1": theirs + "mlp.0",
        layer + r"mlp\.fc2": theirs + "mlp.3",
        r"^norm\.": "encoder.ln.",
    }.items():
        key = re.sub(ours, name, key)
    return key


def test_transformers_of_torchvision(tmp_path: Path) -> None:
    there = transformer().state_dict()
    content = {as_torchvision(key): value for key, value in there.items()}
    assert "encoder.layers.encoder_layer_11.self_attention.in_proj_weight" in content
    torch.save({**content, "heads.head.weight": torch.zeros(1000, 384)}, tmp_path / "weights.pth")
    net = vit_s16(32)
    report = load_weights(net, tmp_path / "weights.pth")
    assert same(net, there)
    assert report.unused == ()


def test_positions_of_another_picture_are_interpolated(tmp_path: Path) -> None:
    there = transformer(64).state_dict()
    row = torch.arange(4.0).repeat_interleave(4)
    there["pos_embed"][0, 1:] = row[:, None]  # the position's row, in every dimension
    torch.save(there, tmp_path / "weights.pth")
    net = vit_s16((32, 96))
    report = load_weights(net, tmp_path / "weights.pth")
    assert report.resized == ("pos_embed",)
    assert len(report.matched) == len(there)
    positions = net.pos_embed[0, 1:].reshape(2, 6, 384)
    assert torch.equal(net.pos_embed[0, 0], there["pos_embed"][0, 0])
    torch.testing.assert_close(positions.amax((1, 2)), positions.amin((1, 2)))
    assert 0 < positions[0, 0, 0] < 1.5 < positions[1, 0, 0] < 3


def test_a_report_in_words(tmp_path: Path) -> None:
    there = transformer(64).state_dict()
    del there["norm.weight"]
    there |= {f"neck.{number}": torch.zeros(1) for number in range(5)}
    there["cls_token"] = torch.zeros(1, 1, 8)
    torch.save(there, tmp_path / "weights.pth")
    told = str(load_weights(vit_s16(32), tmp_path / "weights.pth"))
    assert told == (
        "148 of 150 tensors loaded; resized: pos_embed; not in the file: norm.weight; of another shape: cls_token; "
        "unused: neck.0, neck.1, neck.2 and 2 more"
    )
