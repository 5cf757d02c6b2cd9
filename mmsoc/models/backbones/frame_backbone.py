from mmengine.model import BaseModule
from torch import Tensor

from mmsoc.registry import MODELS

from .video_swin import VideoSwin


@MODELS.register_module()
class FrameBackbone(BaseModule):
    """Runs an image backbone on every frame of a clip, as a replacement for a video backbone.

    Args:
        backbone: config of an image backbone that maps (B, 3, H, W) to maps at strides 4, 8, 16, 32, e.g.
            ``dict(type='mmdet.ResNet', depth=50)``.
    """

    def __init__(self, *, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            clip: (B, T, 3, H, W).

        Returns:
            One (B*T, C_i, h_i, w_i) per output level of the image backbone.
        """
        return tuple(self.backbone(clip.flatten(0, 1)))


@MODELS.register_module()
class FrameVideoSwin(VideoSwin):
    """`VideoSwin` on one frame at a time, with the same weights: only later modules combine frames."""

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            clip: (B, T, 3, H, W), or (B, 3, H, W) for single images.

        Returns:
            (B*T, C_i, ceil(H / s), ceil(W / s)) for s = 4, 8, 16, 32.
        """
        return super().forward(clip.flatten(0, -4))
