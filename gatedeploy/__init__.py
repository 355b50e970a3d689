"""Train gated multi-task networks, collapse them into one plain network, deploy and measure it."""

from gatedeploy.compiler import Collapsed, CollapseReport, collapse
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.gating.layers import ChannelGate, Mix, TensorGate
from gatedeploy.gating.network import GatedNetwork, gate
from gatedeploy.gating.sparsity import sparsity_penalty
from gatedeploy.specs import InputSpec, Task
from gatedeploy.storage import load, save

__version__ = "0.1.0"

__all__ = [
    "ChannelGate",
    "CheckError",
    "CollapseReport",
    "Collapsed",
    "GatedNetwork",
    "GatedeployError",
    "InputError",
    "InputSpec",
    "Mix",
    "Task",
    "TensorGate",
    "collapse",
    "gate",
    "load",
    "save",
    "sparsity_penalty",
]
