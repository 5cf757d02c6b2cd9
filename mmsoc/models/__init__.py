from .backbones import FrameBackbone, VideoSwin
from .heads import ClipCriterion, DynamicMaskHead, FPNPixelDecoder
from .losses import VLContrastiveLoss
from .necks import MMF, CrossAttentionGate, PassThrough
from .sim import (
    SIM,
    AverageCluster,
    BaseCluster,
    Conv1dCluster,
    KMeansCluster,
    NoCluster,
    VideoObjectCluster,
)
from .soc import SOC
from .task_modules import ClipCost
from .text_encoders import HashTokenizer, RobertaTextEncoder

__all__ = [
    'MMF', 'SIM', 'SOC', 'AverageCluster', 'BaseCluster', 'ClipCost', 'ClipCriterion', 'Conv1dCluster', 'CrossAttentionGate',
    'DynamicMaskHead', 'FPNPixelDecoder', 'FrameBackbone', 'HashTokenizer', 'KMeansCluster', 'NoCluster', 'PassThrough',
    'RobertaTextEncoder', 'VLContrastiveLoss', 'VideoObjectCluster', 'VideoSwin'
]
