"""What `import gatedeploy as gd` offers."""

from __future__ import annotations

from gatedeploy.artifact import ModelInfo
from gatedeploy.compiler import Collapsed, CollapseReport, collapse
from gatedeploy.errors import CheckError, GatedeployError, InputError
from gatedeploy.exporters.bundle import export
from gatedeploy.exporters.engine_options import EngineOptions
from gatedeploy.exporters.opening import open_runner as open  # noqa: A004  `gd.open`, as one says it
from gatedeploy.exporters.precision.reduction import PrecisionOptions
from gatedeploy.exporters.precision.samples import Headline, Samples
from gatedeploy.gating.layers import ChannelGate, Mix, TensorGate
from gatedeploy.gating.network import GatedNetwork, gate
from gatedeploy.gating.sparsity import sparsity_penalty
from gatedeploy.gating.whole_gates import GumbelGate, SoftGate
from gatedeploy.graph.budget import Budget
from gatedeploy.milliseconds import Milliseconds
from gatedeploy.specs import InputSpec, Task
from gatedeploy.storage import load, save

__all__ = [
    "Budget",
    "ChannelGate",
    "CheckError",
    "CollapseReport",
    "Collapsed",
    "EngineOptions",
    "GatedNetwork",
    "GatedeployError",
    "GumbelGate",
    "Headline",
    "InputError",
    "InputSpec",
    "Milliseconds",
    "Mix",
    "ModelInfo",
    "PrecisionOptions",
    "Samples",
    "SoftGate",
    "Task",
    "TensorGate",
    "collapse",
    "export",
    "gate",
    "load",
    "open",
    "save",
    "sparsity_penalty",
]
