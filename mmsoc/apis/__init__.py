"""Inference: `SOCInferencer` for people, `StreamPredictor` below it. Imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inferencer import SOCInferencer
    from .stream import StreamPredictor
    from .video_io import open_frames

_PLACES = dict(SOCInferencer='inferencer', StreamPredictor='stream', open_frames='video_io')

__all__ = ['SOCInferencer', 'StreamPredictor', 'open_frames']


def __getattr__(name: str) -> Any:
    # The network's packages take seconds to import, and `import mmsoc.apis` must not.
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_PLACES[name]}'), name)
