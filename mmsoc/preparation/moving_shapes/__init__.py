"""MovingShapes: generated videos of moving shapes with sentences, in the layout of Ref-YouTube-VOS.

In order: ``scene`` (the model of a scene), ``predicates`` (claims about it), ``sentences`` (their wording),
``families`` (generation of scenes), ``render`` (pixels), ``writer`` (files).
"""

from .families import draw_scene, order_tracks
from .predicates import fulfils, names_exactly_its_target
from .render import Video, render
from .scene import DIFFICULTIES, EVENT_AT, FAMILIES, Expression, Noun, Scene, Settings, Thing
from .writer import MANIFEST, TenthLines, draw_video, generate

__all__ = [
    'DIFFICULTIES',
    'EVENT_AT',
    'FAMILIES',
    'MANIFEST',
    'Expression',
    'Noun',
    'Scene',
    'Settings',
    'TenthLines',
    'Thing',
    'Video',
    'draw_scene',
    'draw_video',
    'fulfils',
    'generate',
    'names_exactly_its_target',
    'order_tracks',
    'render',
]
