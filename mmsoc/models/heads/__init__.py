from .clip_criterion import ClipCriterion
from .dynamic_mask_head import DynamicMaskHead
from .fpn_pixel_decoder import FPNPixelDecoder

__all__ = ['ClipCriterion', 'DynamicMaskHead', 'FPNPixelDecoder']
