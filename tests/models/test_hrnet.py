import pytest
import torch

from gatedeploy.errors import InputError
from gatedeploy.models.heads import HRNetHead
from gatedeploy.models.hrnet import hrnet18
from tests.models.oracles import parameter_count


def test_four_maps_of_falling_size() -> None:
    maps = hrnet18()(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 18, 16, 24), (2, 36, 8, 12), (2, 72, 4, 6), (2, 144, 2, 3)]


def test_sizes_that_do_not_halve_evenly() -> None:
    """A map is enlarged to the size of the one it is added to, whatever that is."""
    maps = hrnet18().eval()(torch.randn(1, 3, 72, 104))
    assert [tuple(x.shape[2:]) for x in maps] == [(18, 26), (9, 13), (5, 7), (3, 4)]


def test_every_map_sees_the_whole_picture() -> None:
    picture = torch.zeros(1, 3, 64, 64, requires_grad=True)
    for x in hrnet18().eval()(picture + 1):
        (gradient,) = torch.autograd.grad(x[0, :, -1, -1].sum(), picture, retain_graph=True)
        assert gradient[0, :, :4, :4].abs().sum() > 0


def test_parameters_have_the_names_of_timm() -> None:
    names = set(hrnet18().state_dict())
    assert {
        "conv2.weight",
        "layer1.0.downsample.1.running_var",
        "transition1.0.0.weight",
        "transition1.1.0.0.weight",
        "stage2.0.branches.1.3.conv2.weight",
        "stage3.3.fuse_layers.0.2.0.weight",
        "stage3.0.fuse_layers.2.0.0.0.weight",
        "stage3.0.fuse_layers.2.0.1.1.bias",
        "transition3.3.0.0.weight",
        "stage4.2.branches.3.0.bn1.weight",
    } <= names
    # Of the last exchange timm's classifier reads all four maps too, so all of its layers are there.
    assert "stage4.2.fuse_layers.3.0.2.0.weight" in names


def test_the_head_reads_all_maps() -> None:
    head = HRNetHead((4, 8), 5, (32, 48)).eval()
    maps = [torch.randn(2, 4, 8, 12), torch.randn(2, 8, 4, 6)]
    prediction = head(maps)
    assert prediction.shape == (2, 5, 32, 48)
    assert not torch.equal(prediction, head([maps[0], maps[1] + 1]))
    assert parameter_count(head) == 12 * 12 + 2 * 12 + 12 * 5 + 5


@pytest.mark.parametrize("channels", [8, (8,), (8, 0), "88"])
def test_channels_that_are_none(channels: object) -> None:
    with pytest.raises(InputError, match=r"hrnet head: .*in_channels"):
        HRNetHead(channels, 5, (32, 32))  # type: ignore[arg-type]


def test_pictures_have_channels() -> None:
    with pytest.raises(InputError, match="hrnet18: in_channels must be an integer of at least 1, got 0"):
        hrnet18(in_channels=0)
