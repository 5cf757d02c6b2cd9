from .backbone_pretrainer import BackbonePretrainer
from .backbones import ConvPatchEmbed, FrameBackbone, FrameVideoSwin, VideoSwin
from .data_preprocessor import ClipDataPreprocessor
from .heads import (
    CategoryMapHead,
    ClipCriterion,
    CrossModalFPN,
    DynamicMaskHead,
    FPNPixelDecoder,
    FusionMaskHead,
    ReferFormerCriterion,
    SubPixelDecoder,
)
from .losses import GIoULoss, VLContrastiveLoss
from .necks import MMF, CrossAttentionGate, PassThrough
from .sim import (
    SIM,
    AverageCluster,
    BaseCluster,
    Conv1dCluster,
    KMeansCluster,
    NoCluster,
    SentenceContent,
    VideoObjectCluster,
    ZeroContent,
)
from .soc import SOC
from .task_modules import (
    BaseClipCost,
    ClipAssigner,
    ClipBoxL1Cost,
    ClipCost,
    ClipDiceCost,
    ClipFocalCost,
    ClipGIoUCost,
    WholeClipDiceCost,
    WholeClipFocalCost,
)
from .text_encoders import BertTextEncoder, HashTokenizer, RobertaTextEncoder, TransformerTextEncoder

__all__ = [
    'MMF',
    'SIM',
    'SOC',
    'AverageCluster',
    'BackbonePretrainer',
    'BaseClipCost',
    'BaseCluster',
    'BertTextEncoder',
    'CategoryMapHead',
    'ClipAssigner',
    'ClipBoxL1Cost',
    'ClipCost',
    'ClipCriterion',
    'ClipDataPreprocessor',
    'ClipDiceCost',
    'ClipFocalCost',
    'ClipGIoUCost',
    'Conv1dCluster',
    'ConvPatchEmbed',
    'CrossAttentionGate',
    'CrossModalFPN',
    'DynamicMaskHead',
    'FPNPixelDecoder',
    'FrameBackbone',
    'FrameVideoSwin',
    'FusionMaskHead',
    'GIoULoss',
    'HashTokenizer',
    'KMeansCluster',
    'NoCluster',
    'PassThrough',
    'ReferFormerCriterion',
    'RobertaTextEncoder',
    'SentenceContent',
    'SubPixelDecoder',
    'TransformerTextEncoder',
    'VLContrastiveLoss',
    'VideoObjectCluster',
    'VideoSwin',
    'WholeClipDiceCost',
    'WholeClipFocalCost',
    'ZeroContent',
]
