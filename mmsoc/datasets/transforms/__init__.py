from .formatting import PackReferringInputs
from .loading import LoadCategoryMaps, LoadReferredMasks, LoadVideoFrames, RandomFrames
from .mevis import LoadMeViSMasks
from .processing import (
    ForEachFrame,
    PhotometricDistort,
    RandomClipChoice,
    RandomClipCrop,
    RandomShortSideResize,
    ShortSideResize,
    SwapLeftRight,
)
from .refcoco import LoadRefCOCOMasks, PseudoClip
from .video_loading import LoadA2DMasks, LoadJHMDBMask, LoadVideoWindow

__all__ = [
    'ForEachFrame',
    'LoadA2DMasks',
    'LoadCategoryMaps',
    'LoadJHMDBMask',
    'LoadMeViSMasks',
    'LoadRefCOCOMasks',
    'LoadReferredMasks',
    'LoadVideoFrames',
    'LoadVideoWindow',
    'PackReferringInputs',
    'PhotometricDistort',
    'PseudoClip',
    'RandomClipChoice',
    'RandomClipCrop',
    'RandomFrames',
    'RandomShortSideResize',
    'ShortSideResize',
    'SwapLeftRight',
]
