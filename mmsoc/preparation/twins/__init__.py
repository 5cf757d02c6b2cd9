"""Twins: MovingShapes videos in the layouts of the other data sets, including their quirks, for tests and trials.

The docstring of ``tools/dataset_converters/moving_shapes_twins.py`` describes them.
"""

from .source import Clip, Source
from .writer import LAYOUTS, MANIFEST, write_twin, write_twins

__all__ = ['LAYOUTS', 'MANIFEST', 'Clip', 'Source', 'write_twin', 'write_twins']
