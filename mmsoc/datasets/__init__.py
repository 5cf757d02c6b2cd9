from . import transforms  # registers them
from .clip_samplers import SparseClipSampler, WindowClipSampler
from .ref_youtube_vos import RefYouTubeVOSDataset
from .samplers import ShortEpochSampler

__all__ = ['RefYouTubeVOSDataset', 'ShortEpochSampler', 'SparseClipSampler', 'WindowClipSampler', 'transforms']
