from . import transforms  # registers them
from .clip_samplers import SparseClipSampler, WindowClipSampler
from .ref_youtube_vos import RefYouTubeVOSDataset

__all__ = ['RefYouTubeVOSDataset', 'SparseClipSampler', 'WindowClipSampler', 'transforms']
