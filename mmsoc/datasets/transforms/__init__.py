from .formatting import PackReferringInputs
from .loading import LoadReferredMasks, LoadVideoFrames, RandomFrames
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
