from .backbone_pretrainer import BackbonePretrainer
from .backbones import ConvPatchEmbed, FrameBackbone, VideoSwin
from .heads import (
    CategoryMapHead,
    ClipCriterion,
    DynamicMaskHead,
    FPNPixelDecoder,
    FusionMaskHead,
)
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
    'MMF', 'SIM', 'SOC', 'AverageCluster', 'BackbonePretrainer', 'BaseCluster', 'CategoryMapHead', 'ClipCost',
    'ClipCriterion', 'Conv1dCluster', 'ConvPatchEmbed', 'CrossAttentionGate', 'DynamicMaskHead', 'FPNPixelDecoder',
    'FrameBackbone', 'FusionMaskHead', 'HashTokenizer', 'KMeansCluster', 'NoCluster', 'PassThrough', 'RobertaTextEncoder',
    'VLContrastiveLoss', 'VideoObjectCluster', 'VideoSwin'
]
