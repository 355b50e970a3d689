"""Which operators draw random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def draws(target: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether the operator `target` draws random numbers when it is called like this.

    Those that may do not when they are told to drop out nothing, or not to train.
    """
    told_not_to = arguments.get("dropout_p") == 0 or False in (arguments.get("training"), arguments.get("train"))
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()) and not told_not_to
