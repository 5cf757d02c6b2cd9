from .conv_patch_embed import ConvPatchEmbed
from .frame_backbone import FrameBackbone
from .video_swin import VideoSwin

__all__ = ['ConvPatchEmbed', 'FrameBackbone', 'VideoSwin']
