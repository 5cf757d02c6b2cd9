from .formatting import PackReferringInputs
from .loading import LoadCategoryMaps, LoadReferredMasks, LoadVideoFrames, RandomFrames
from .processing import (
    ForEachFrame,
    PhotometricDistort,
    RandomClipChoice,
    RandomClipCrop,
    ShortSideResize,
    SwapLeftRight,
)
from .video_loading import LoadA2DMasks, LoadJHMDBMask, LoadVideoWindow

__all__ = [
    'ForEachFrame',
    'LoadA2DMasks',
    'LoadCategoryMaps',
    'LoadJHMDBMask',
    'LoadReferredMasks',
    'LoadVideoFrames',
    'LoadVideoWindow',
    'PackReferringInputs',
    'PhotometricDistort',
    'RandomClipChoice',
    'RandomClipCrop',
    'RandomFrames',
    'ShortSideResize',
    'SwapLeftRight',
]
