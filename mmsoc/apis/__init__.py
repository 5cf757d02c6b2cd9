"""The user API: `SOCInferencer`, and the lower-level `StreamPredictor` and `LivePredictor`. Imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsoc.inference import LivePredictor, StreamPredictor

    from .inferencer import SOCInferencer
    from .model_loading import load, load_model
    from .video_io import open_frames

_PLACES = dict(
    LivePredictor='mmsoc.inference',
    SOCInferencer='mmsoc.apis.inferencer',
    StreamPredictor='mmsoc.inference',
    load='mmsoc.apis.model_loading',
    load_model='mmsoc.apis.model_loading',
    open_frames='mmsoc.apis.video_io',
)

__all__ = ['LivePredictor', 'SOCInferencer', 'StreamPredictor', 'load', 'load_model', 'open_frames']


def __getattr__(name: str) -> Any:
    # The network's packages take seconds to import, and `import mmsoc.apis` must not.
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_PLACES[name]), name)
