from .frame_backbone import FrameBackbone
from .video_swin import VideoSwin

__all__ = ['FrameBackbone', 'VideoSwin']
