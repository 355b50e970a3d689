"""Train gated multi-task networks, collapse them into one plain network, deploy and measure it."""

__version__ = "0.1.0"
