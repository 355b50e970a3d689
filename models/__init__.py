"""Backbones and heads, and a registry of them by name."""
