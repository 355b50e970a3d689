from collections.abc import Callable

import pytest
import torch
from torch import nn

from gatedeploy.errors import InputError
from gatedeploy.models.heads import ASPP, ASPPHead, DenseHead, LinearHead
from tests.models.oracles import parameter_count

HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: LinearHead(16, 5),
    "dense": lambda: DenseHead(16, 5, (32, 48), width=8),
    "aspp": lambda: ASPPHead(16, 5, (32, 48), rates=(1, 2, 3), width=8),
}
heads = pytest.mark.parametrize("name", HEADS)


@heads
def test_predictions_have_the_size_asked_for(name: str) -> None:
    expected = (2, 5) if name == "linear" else (2, 5, 32, 48)
    assert HEADS[name]()(torch.randn(2, 16, 8, 12)).shape == expected


def test_parameters_by_hand() -> None:
    assert parameter_count(LinearHead(64, 10)) == 650
    assert parameter_count(DenseHead(64, 7, (64, 64))) == 9 * 64 * 32 + 2 * 32 + 32 * 7 + 7
    pyramid = (1 + 3 * 9 + 1) * 512 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    assert parameter_count(ASPPHead(512, 21, (512, 512))) == pyramid + 9 * 256 * 256 + 2 * 256 + 256 * 21 + 21


def test_linear_head_reads_the_average() -> None:
    head = LinearHead(4, 3)
    x = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(head(x), head.linear(x.mean((2, 3))))


def test_the_pyramid_keeps_the_size_and_looks_at_the_rates() -> None:
    pyramid = ASPP(16, 8, (6, 12, 18)).eval()
    assert pyramid(torch.randn(1, 16, 9, 11)).shape == (1, 8, 9, 11)
    dilations = [part.dilation[0] for part in pyramid.modules() if isinstance(part, nn.Conv2d)]
    assert sorted(dilations) == [1, 1, 1, 6, 12, 18]


def test_the_pyramid_sees_the_whole_picture() -> None:
    x = torch.zeros(1, 4, 40, 40, requires_grad=True)
    pyramid = ASPP(4, 8, (1, 1, 1)).eval()
    pyramid(x + 1)[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0, :, -1, -1].abs().sum() > 0


@heads
@pytest.mark.parametrize("training", [True, False])
def test_traces_and_exports_with_a_dynamic_batch(name: str, training: bool) -> None:
    head = HEADS[name]().train(training)
    x = torch.randn(3, 16, 8, 12)
    traced = torch.fx.symbolic_trace(head)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(head, (x[:2],), dynamic_shapes=shapes).module()
    if training:  # dropout draws anew
        assert traced(x).shape == exported(x).shape == head(x).shape
    else:
        torch.testing.assert_close(traced(x), head(x))
        torch.testing.assert_close(exported(x), head(x))


def test_impossible_options_are_explained() -> None:
    with pytest.raises(InputError, match=r"linear head: out_channels must be an integer of at least 1, got 0"):
        LinearHead(64, 0)
    with pytest.raises(InputError, match=r"dense head: width must be an integer of at least 1, got 0\.5"):
        DenseHead(64, 1, (64, 64), width=0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"dense head: size must be \(height, width\), got 64"):
        DenseHead(64, 1, 64)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"aspp head: height must be an integer of at least 1, got -1"):
        ASPPHead(64, 1, (-1, 64))
    with pytest.raises(
        InputError, match=r"aspp head: rates must be three dilations such as \(12, 24, 36\), got \[6, 12\]"
    ):
        ASPPHead(64, 1, (64, 64), rates=[6, 12])
    with pytest.raises(InputError, match=r"aspp head: rates must be an integer of at least 1, got 0"):
        ASPPHead(64, 1, (64, 64), rates=(0, 12, 24))
