import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.registry import MODELS


@MODELS.register_module()
class ConvPatchEmbed(BaseModule):
    """Overlapping patches of one frame at stride 4, by three 3x3 convolutions instead of one non-overlapping 4x4.

    A transformer that starts from random weights on few images learns outlines much sooner after a convolutional stem
    ("Early Convolutions Help Transformers See Better", NeurIPS 2021). `VideoSwin` takes it as ``patch_embed``; no
    published weights include it.

    Args:
        embed_dims: channels of a patch, C_0 of the backbone.
        in_channels: channels of a frame.
        channels: channels after the first two convolutions, multiples of ``num_groups``.
        num_groups: groups of the GroupNorms.
        temporal_channels: hidden channels of a residual 3x3x3 convolution over neighbouring frames. Video Swin tells earlier
            from later frames only by its relative position biases, which start, and stay, symmetric in time; the weights of a
            convolution are not symmetric, so that the direction of a change is learned (docs/moving_shapes.md). None: patches
            see one frame.
    """

    def __init__(
        self,
        *,
        embed_dims: int = 32,
        in_channels: int = 3,
        channels: tuple[int, int] = (24, 32),
        num_groups: int = 4,
        temporal_channels: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        common = dict(
            kernel_size=3, padding=1, norm_cfg=dict(type='GN', num_groups=num_groups), act_cfg=dict(type='GELU')
        )
        first, second = channels
        self.convs = nn.Sequential(
            ConvModule(in_channels, first, stride=2, **common),
            ConvModule(first, second, stride=2, **common),
            ConvModule(second, second, **common),
            nn.Conv2d(second, embed_dims, 1),
        )
        self.norm = nn.LayerNorm(embed_dims)
        self.temporal: nn.Sequential | None = None
        if temporal_channels is not None:
            self.temporal = nn.Sequential(
                nn.Conv3d(embed_dims, temporal_channels, 3, padding=1),
                nn.GELU(),
                nn.Conv3d(temporal_channels, embed_dims, 1),
            )

    def forward(self, clip: Tensor) -> Tensor:
        """
        Args:
            clip: (B, 3, T, H, W).

        Returns:
            (B, embed_dims, T, ceil(H / 4), ceil(W / 4)).
        """
        frames = clip.transpose(1, 2).flatten(0, 1)
        patches = self.convs(frames.contiguous(memory_format=torch.channels_last))
        patches = self.norm(patches.permute(0, 2, 3, 1))
        patches = patches.unflatten(0, (clip.shape[0], clip.shape[2])).permute(0, 4, 1, 2, 3)
        return patches if self.temporal is None else patches + self.temporal(patches)
