"""Data sets: pictures with one label per task."""

# The modules, not the functions of the same names: importing them is what makes their data sets known.
from gatedeploy.data import (
    celeba,
    cityscapes,
    folder,
    multi_fashion,
    nyud,
    pascal_context,
    scenes,
    taskonomy,
)
from gatedeploy.data.base import DataSet, Described, Split, describe_data, load_data

__all__ = [
    "DataSet",
    "Described",
    "Split",
    "celeba",
    "cityscapes",
    "describe_data",
    "folder",
    "load_data",
    "multi_fashion",
    "nyud",
    "pascal_context",
    "scenes",
    "taskonomy",
]
