from __future__ import annotations

import torch
from torch import Tensor, nn

from gatedeploy.program import evaluate
from gatedeploy.specs import InputSpec
from gatedeploy.training.snapshots import Skeleton


class OddlyNamed(nn.Module):
    """Two weights of one shape whose names cannot be those of a file, one that two layers share, one in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"in": nn.Conv2d(3, 4, 1), "class": nn.Conv2d(4, 4, 1), "not": nn.Conv2d(4, 4, 1)})
        self.layers["again"] = nn.Conv2d(4, 4, 1)
        self.layers["again"].weight = self.layers["not"].weight
        self.scale = torch.full((1, 4, 1, 1), 3.0)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = image
        for layer in self.layers.values():
            x = layer(x)
        return {"out": x * self.scale}


def test_the_weights_of_a_network_that_lies_elsewhere_come_under_the_names_its_program_has_for_them() -> None:
    torch.manual_seed(0)
    network = OddlyNamed()
    skeleton = Skeleton(network, InputSpec(3, 5, 5))
    assert set(skeleton.program.weights) - set(network.state_dict()), "a weight has another name in the program"
    elsewhere = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        elsewhere = {name: tensor + 0.5 * (1 + place // 2) for place, (name, tensor) in enumerate(elsewhere.items())}
        elsewhere["layers.again.weight"] = elsewhere["layers.not.weight"]
    image = torch.randn(2, 3, 5, 5)
    before = evaluate(skeleton.program, image)["out"]
    after = evaluate(skeleton.filled(elsewhere), image)["out"]
    network.load_state_dict(elsewhere)
    network.double().scale = network.scale.double()
    torch.testing.assert_close(after, network(image.double())["out"].detach(), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before, after)
