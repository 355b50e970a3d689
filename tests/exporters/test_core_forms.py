"""Networks that `torch.onnx` need not trace a second time, and others, for which it has to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import gatedeploy as gd
from gatedeploy.artifact import ModelInfo
from gatedeploy.exporters.to_onnx import export_onnx

INFO = ModelInfo((gd.Task("found"),), gd.InputSpec(4, 7, 6))
IMAGE = torch.randn(3, 4, 7, 6, generator=torch.Generator().manual_seed(2))


class Written(nn.Module):
    """A convolution and what follows it."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 6, 3, padding=1)
        self.then = then

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"found": self.then(self.layer(image))}


def transposed(**options: Any) -> nn.Module:
    return nn.ConvTranspose2d(6, 4, 3, **options)


LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a mean": nn.AdaptiveAvgPool2d(1),
    "a mean for each axis": nn.AdaptiveAvgPool2d((1, 1)),
    "transposed": transposed(),
    "transposed, with everything": transposed(
        stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2, bias=False, dilation=(2, 1)
    ),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "has a form when decomposed": torch.square,
    "writes in place": lambda x: torch.relu_(x[:, 1:]) + x[:, :-1],
}


def written(then: Callable[[Tensor], Tensor], path: Path) -> None:
    """Export, and compare what ONNX Runtime computes."""
    network = Written(then).eval()
    export_onnx(network, INFO, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {INFO.input.name: IMAGE.numpy()})
    expected = network(IMAGE)["found"].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_not_traced_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("it was decomposed")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", again)
    written(LAYERS[name], tmp_path / "model.onnx")


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_to_be_decomposed_is(name: str, tmp_path: Path) -> None:
    written(OTHERS[name], tmp_path / "model.onnx")
