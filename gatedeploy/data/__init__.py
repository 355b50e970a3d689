"""Data sets: pictures with one label per task."""

from gatedeploy.data.base import DataSet, Split, load_data
from gatedeploy.data.folder import folder
from gatedeploy.data.multi_fashion import multi_fashion
from gatedeploy.data.scenes import scenes

__all__ = ["DataSet", "Split", "folder", "load_data", "multi_fashion", "scenes"]
