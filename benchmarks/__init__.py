"""Costs, latency, rivals and reports."""
