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

__all__ = [
    'ForEachFrame',
    'LoadCategoryMaps',
    'LoadReferredMasks',
    'LoadVideoFrames',
    'PackReferringInputs',
    'PhotometricDistort',
    'RandomClipChoice',
    'RandomClipCrop',
    'RandomFrames',
    'ShortSideResize',
    'SwapLeftRight',
]
