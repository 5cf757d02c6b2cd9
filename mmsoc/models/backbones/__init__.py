from .conv_patch_embed import ConvPatchEmbed
from .frame_backbone import FrameBackbone, FrameVideoSwin
from .video_swin import VideoSwin

__all__ = ['ConvPatchEmbed', 'FrameBackbone', 'FrameVideoSwin', 'VideoSwin']
