"""Data sets: pictures with one label per task."""

# The modules, not the functions of the same names: importing them is what makes their data sets known.
from gatedeploy.data import folder, multi_fashion, scenes
from gatedeploy.data.base import DataSet, Split, load_data

__all__ = ["DataSet", "Split", "folder", "load_data", "multi_fashion", "scenes"]
