import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gatedeploy.errors import InputError
from gatedeploy.models.dpt import DPTHead, Fusion
from gatedeploy.models.vit import Attention, ViT, vit_b16, vit_s16
from tests.models.oracles import gradient_is_felt, parameter_count


def test_parameters_are_those_of_the_papers_nets() -> None:
    """timm's `vit_small_patch16_224` and `vit_base_patch16_224`, without their classifiers (385,000 and 769,000)."""
    with torch.device("meta"):
        assert parameter_count(vit_s16()) == 22_050_664 - 385_000
        assert parameter_count(vit_b16()) == 86_567_656 - 769_000


def test_parameters_have_the_names_of_timm() -> None:
    with torch.device("meta"):
        names = set(vit_s16().state_dict())
    assert {"cls_token", "pos_embed", "patch_embed.proj.bias", "blocks.11.norm2.bias", "norm.weight"} <= names
    assert {"blocks.0.attn.qkv.bias", "blocks.0.attn.proj.weight", "blocks.0.mlp.fc2.bias"} <= names


def test_a_map_for_every_tap_or_the_last_or_the_class_token() -> None:
    picture = torch.randn(2, 3, 32, 48)
    assert vit_s16((32, 48))(picture).shape == (2, 384, 2, 3)
    assert vit_s16((32, 48), class_token=True)(picture).shape == (2, 384, 1, 1)
    tapped = vit_s16((32, 48), taps=(3, 6))
    assert [tuple(x.shape) for x in tapped(picture)] == [(2, 384, 2, 3)] * 2
    assert tapped.out_channels == (384, 384)
    assert len(tapped.blocks) == 6  # nobody reads the others


def test_attention_by_hand() -> None:
    block = Attention(384, 6).double()
    x = torch.randn(2, 5, 384, dtype=torch.float64)
    q, k, v = (block.qkv(x)[..., part * 384 : (part + 1) * 384] for part in range(3))
    heads = []
    for head in range(6):
        own = slice(head * 64, (head + 1) * 64)
        weights = (q[..., own] @ k[..., own].transpose(1, 2) / 8).softmax(-1)
        heads.append(weights @ v[..., own])
    torch.testing.assert_close(block(x), block.proj(torch.cat(heads, -1)))


def test_pixels_of_a_patch_come_to_its_place_in_the_map() -> None:
    trunk = vit_s16((32, 48)).eval()
    nn.init.zeros_(trunk.pos_embed)
    trunk.blocks, trunk.norm = nn.ModuleList(), nn.Identity()
    picture = torch.zeros(1, 3, 32, 48)
    picture[..., 16:, 32:] = 1
    seen = (trunk(picture) - trunk(torch.zeros_like(picture))).abs().sum(1)[0]
    assert (seen > 0).tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, "vit_s16: pictures of 40×40 have no whole patches of 16×16 pixels"),
        ({"size": (32, 0)}, "vit_s16: width must be an integer of at least 1, got 0"),
        ({"taps": ()}, "taps must be numbers of blocks"),
        ({"taps": (3,), "class_token": True}, "taps must be numbers of blocks, and without class_token"),
        ({"taps": (3, 13)}, r"taps must rise and be at most 12, got \[3, 13\]"),
        ({"taps": (6, 3)}, "taps must rise"),
        ({"taps": (0, 3)}, r"taps\[0\] must be an integer of at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        vit_s16(**options)  # type: ignore[arg-type]


def test_dpt_gives_a_map_of_the_size_asked_for_and_reads_every_depth() -> None:
    head = DPTHead((16, 16, 16, 16), 5, (48, 80), features=8)
    maps = [torch.randn(2, 16, 3, 5, requires_grad=True) for _ in range(4)]
    prediction = head(maps)
    assert prediction.shape == (2, 5, 48, 80)
    prediction.square().sum().backward()
    assert gradient_is_felt(maps)
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_dpt_has_the_authors_pyramid() -> None:
    """1/8 to all of the channels: 96, 192, 384 and 768 for ViT-B; at 4, 2, 1 and ½ times the size."""
    head = DPTHead((768,) * 4, 5, (224, 224))
    x = torch.randn(1, 768, 14, 14)
    convolutions = (part for part in head.reassemble.modules() if isinstance(part, nn.Conv2d))
    assert [conv.out_channels for conv in convolutions if conv.in_channels == 768] == [96, 192, 384, 768, 768, 64]
    assert [tuple(part(x).shape) for part in head.reassemble] == [(1, 64, side, side) for side in (56, 28, 14, 7)]


def test_dpt_enlarges_by_two_with_corners_aligned() -> None:
    fusion = Fusion(8, first=True)
    x = torch.randn(1, 8, 4, 4)
    enlarged = F.interpolate(fusion.after(x), scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(fusion(x, None, (8, 8)), fusion.project(enlarged))


@pytest.mark.parametrize("channels", [16, (16,) * 3, (16, 16, 16, 0)])
def test_dpt_reads_four_maps(channels: object) -> None:
    with pytest.raises(InputError, match="dpt head: "):
        DPTHead(channels, 5, (32, 32))  # type: ignore[arg-type]


def test_trunks_export_with_a_free_batch() -> None:
    trunk = vit_s16(32, taps=(1, 2)).eval()
    assert isinstance(trunk, ViT)
    x = torch.randn(3, 3, 32, 32)
    exported = torch.export.export(trunk, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for ours, theirs in zip(exported(x), trunk(x), strict=True):
        torch.testing.assert_close(ours, theirs)
