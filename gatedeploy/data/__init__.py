"""Data sets: pictures with one label per task."""
