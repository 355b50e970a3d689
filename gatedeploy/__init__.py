"""Train gated multi-task networks, collapse them into one plain network, deploy and measure it."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gatedeploy.api import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """What `gatedeploy.api` offers, imported when first asked for: PyTorch takes seconds.

        The command line imports this package before anything of its own could answer Ctrl-C.
        """
        if not name.startswith("_") or name == "__all__":
            from importlib import import_module

            api = import_module("gatedeploy.api")
            if name in ("__all__", *api.__all__):
                return getattr(api, name)
        raise AttributeError(f"module 'gatedeploy' has no attribute {name!r}")
