from .auxiliary_heads import CategoryMapHead, FusionMaskHead
from .clip_criterion import ClipCriterion
from .dynamic_mask_head import DynamicMaskHead
from .fpn_pixel_decoder import FPNPixelDecoder, SubPixelDecoder

__all__ = [
    'CategoryMapHead',
    'ClipCriterion',
    'DynamicMaskHead',
    'FPNPixelDecoder',
    'FusionMaskHead',
    'SubPixelDecoder',
]
