from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.structures import TextFeatures, VisualFeatures
from mmsoc.utils.errors import UserError


@MODELS.register_module()
class FPNPixelDecoder(BaseModule):
    """The FPN of paper section 3.5: fuses the encoded maps, coarse to fine, then the backbone's stride-4 map, to F_seg.

    Args:
        in_channels: C of the encoded maps.
        fine_channels: C_0 of the backbone's stride-4 map.
        channels: channels after each of the five 3x3 convolutions, multiples of ``num_groups``.
        out_channels: channels of F_seg (D in the paper; the released implementation uses 8, like CondInst).
        num_groups: groups of the GroupNorms.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        fine_channels: int = 96,
        channels: Sequence[int] = (256, 128, 64, 32, 16),
        out_channels: int = 8,
        num_groups: int = 8,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(channels) != 5 or any(channel % num_groups for channel in channels):
            raise UserError(
                f'FPNPixelDecoder: `channels` must be five multiples of num_groups={num_groups}, '
                f'found {tuple(channels)}'
            )
        first, second, third, fourth, fifth = channels
        conv = dict(kernel_size=3, padding=1, bias=True, norm_cfg=dict(type='GN', num_groups=num_groups))
        self.stem = ConvModule(in_channels, first, **conv)
        self.convs = nn.ModuleList(
            ConvModule(source, target, **conv)
            for source, target in ((first, second), (second, third), (third, fourth), (fourth, fifth))
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(source, target, 1)
            for source, target in ((in_channels, second), (in_channels, third), (fine_channels, fourth))
        )
        self.out_conv = nn.Conv2d(fifth, out_channels, 3, padding=1)

    def forward(self, memory: Sequence[Tensor], visual: VisualFeatures, text: TextFeatures) -> Tensor:
        """
        Args:
            memory: (M*T, C, h, w) at strides 8, 16, 32.
            visual: of the M sentences' clips; this decoder uses only ``fine``.
            text: not used by this decoder.

        Returns:
            (M*T, out_channels, h, w) at stride 4.
        """
        x = self.stem(memory[2])
        skips = memory[1], memory[0], visual.fine
        for conv, lateral, skip in zip(self.convs, self.laterals, skips, strict=False):
            x = lateral(skip) + F.interpolate(conv(x), size=skip.shape[-2:], mode='nearest')
        return self.out_conv(self.convs[-1](x))


@MODELS.register_module()
class SubPixelDecoder(FPNPixelDecoder):
    """`FPNPixelDecoder` whose cells at stride 4 predict four at stride 2 each, for ``DynamicMaskHead(mask_stride=2)``.

    Logits at stride 4 cannot describe objects of a few cells: in 64x96, shapes with corners have an IoU of at most 0.9.

    Args:
        out_channels: channels of F_seg.
        kwargs: of `FPNPixelDecoder`.
    """

    def __init__(self, *, out_channels: int = 8, **kwargs: Any) -> None:
        super().__init__(out_channels=4 * out_channels, **kwargs)

    def forward(self, memory: Sequence[Tensor], visual: VisualFeatures, text: TextFeatures) -> Tensor:
        """As in `FPNPixelDecoder`, but returns (M*T, out_channels, 2h, 2w) at stride 2."""
        return F.pixel_shuffle(super().forward(memory, visual, text), 2)
