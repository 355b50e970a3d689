"""Recipes and the loop that trains single-task, multi-task and gated networks."""
