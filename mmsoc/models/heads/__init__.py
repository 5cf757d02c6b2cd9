from .auxiliary_heads import CategoryMapHead, FusionMaskHead
from .clip_criterion import ClipCriterion
from .cross_modal_fpn import CrossModalFPN
from .dynamic_mask_head import DynamicMaskHead
from .fpn_pixel_decoder import FPNPixelDecoder, SubPixelDecoder
from .referformer_criterion import ReferFormerCriterion

__all__ = [
    'CategoryMapHead',
    'ClipCriterion',
    'CrossModalFPN',
    'DynamicMaskHead',
    'FPNPixelDecoder',
    'FusionMaskHead',
    'ReferFormerCriterion',
    'SubPixelDecoder',
]
