"""Prediction: one engine for whole clips, streams and live sources, and the types that its config slots take.

`SOC` provides the steps; this package decides which frames they see and what happens to the masks.
"""

from .clips import predict_clips
from .config import PRECISIONS, PredictionConfig
from .engine import Engine
from .inspection import Inspection, inspect_clips
from .live import LivePredictor
from .memory import FrameMemory, RecentFrames, ThinnedFrames
from .outputs import A2DMasks, Masks, MasksAndLogits, MaskSizes, ThresholdedMasks
from .selectors import AllQueries, QueryByLength, QueryPerFrame, QueryPerVideo, QuerySelector, RunningScores, Selection
from .stream import StreamPredictor, StreamScores

__all__ = [
    'A2DMasks',
    'AllQueries',
    'Engine',
    'FrameMemory',
    'Inspection',
    'LivePredictor',
    'MaskSizes',
    'Masks',
    'MasksAndLogits',
    'PRECISIONS',
    'PredictionConfig',
    'QueryByLength',
    'QueryPerFrame',
    'QueryPerVideo',
    'QuerySelector',
    'RecentFrames',
    'RunningScores',
    'Selection',
    'StreamPredictor',
    'StreamScores',
    'ThinnedFrames',
    'ThresholdedMasks',
    'inspect_clips',
    'predict_clips',
]
