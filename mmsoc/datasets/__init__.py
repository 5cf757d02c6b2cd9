from . import transforms  # registers them
from .a2d_sentences import A2DSentencesDataset
from .clip_samplers import SparseClipSampler, WindowClipSampler
from .jhmdb_sentences import JHMDBSentencesDataset
from .mevis import MeViSDataset
from .ref_youtube_vos import RefYouTubeVOSDataset
from .refcoco import RefCOCODataset
from .samplers import ShortEpochSampler

__all__ = [
    'A2DSentencesDataset',
    'JHMDBSentencesDataset',
    'MeViSDataset',
    'RefCOCODataset',
    'RefYouTubeVOSDataset',
    'ShortEpochSampler',
    'SparseClipSampler',
    'WindowClipSampler',
    'transforms',
]
