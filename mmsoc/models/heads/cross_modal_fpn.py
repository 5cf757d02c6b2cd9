from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from mmcv.cnn import ConvModule
from mmdet.models.layers import DetrTransformerDecoderLayer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.models.layers import sine_positional_encoding_1d
from mmsoc.models.layers.positional_encoding import MapPositions
from mmsoc.models.layers.transformer import use_lean_layers
from mmsoc.registry import MODELS
from mmsoc.structures import TextFeatures, VisualFeatures


class VisionLanguageBlock(DetrTransformerDecoderLayer):
    """Self-attention over a whole clip's pixels, cross-attention to the words, feed-forward network; post-norm."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        position: Tensor,
        pad_mask: Tensor | None,
        words: Tensor,
        word_key: Tensor,
        word_pad_mask: Tensor | None,
        stride: int,
    ) -> Tensor:
        """
        Args:
            x: (M, T, C, h, w).
            position: (M, C, h, w) or (1, C, h, w).
            pad_mask: (M, h, w) bool, True for padding; None if no clip was padded.
            words: (M, L, C).
            word_key: (M, L, C), with positions.
            word_pad_mask: (M, L) bool; None if there is no padding.
            stride: the self-attention sees every ``stride``-th pixel of each axis (nearest neighbour), and its result is
                resized bilinearly.

        Returns:
            (M, T, C, h, w).
        """
        num_frames, size = x.shape[1], x.shape[-2:]
        position = position[:, None].to(x.dtype)
        tokens = rearrange(x, 'm t c h w -> m (t h w) c')
        attended = self._attend(x, x + position, pad_mask, [side // stride for side in size])
        tokens = self.norms[0](tokens + rearrange(attended, 'm t c h w -> m (t h w) c'))
        place = repeat(position, 'm 1 c h w -> m (t h w) c', t=num_frames)
        tokens = self.cross_attn(
            query=tokens + place, key=word_key, value=words, identity=tokens, key_padding_mask=word_pad_mask
        )
        tokens = self.norms[2](self.ffn(self.norms[1](tokens)))
        return rearrange(tokens, 'm (t h w) c -> m t c h w', t=num_frames, h=size[0])

    def _attend(self, value: Tensor, query: Tensor, pad_mask: Tensor | None, size: Sequence[int]) -> Tensor:
        """Self-attention at a smaller size, its result at the size of ``value``."""
        num_frames, full = value.shape[1], value.shape[-2:]
        query, value = (_shrink(x, size) for x in (query, value))
        padding = None
        if pad_mask is not None:
            padding = repeat(
                _shrink(pad_mask[:, None, None].float(), size).bool(), 'm 1 1 h w -> m (t h w)', t=num_frames
            )
        q, v = (rearrange(x, 'm t c h w -> m (t h w) c') for x in (query, value))
        found = self.self_attn(query=q, key=q, value=v, identity=torch.zeros_like(q), key_padding_mask=padding)
        found = rearrange(found, 'm (t h w) c -> (m t) c h w', t=num_frames, h=size[0])
        if found.shape[-2:] != full:
            found = F.interpolate(found, size=full, mode='bilinear', align_corners=False)
        return found.unflatten(0, (-1, num_frames))


def _shrink(x: Tensor, size: Sequence[int]) -> Tensor:
    """(M, T, C, H, W) -> (M, T, C, h, w) by nearest neighbour."""
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x.flatten(0, 1), size=tuple(size), mode='nearest').unflatten(0, x.shape[:2])


@MODELS.register_module()
class CrossModalFPN(BaseModule):
    """ReferFormer's cross-modal FPN (its section 3.3): every level of the FPN attends to the whole clip and to the words.

    The only place behind the backbone where ReferFormer's frames meet, so a stream that cuts a video into chunks predicts
    other masks than the whole video does.

    Args:
        positional_encoding: of the stride-4 map, e.g. ``mmdet.SinePositionalEncoding``.
        layer_cfg: of the `VisionLanguageBlock`, as for mmdet's ``DetrTransformerDecoderLayer``.
        in_channels: C of the encoded maps.
        fine_channels: C_0 of the backbone's stride-4 map.
        channels: of all convolutions, and of the mask features.
        strides: of the self-attention at strides 4, 8, 16 and 32.
        num_groups: groups of the GroupNorms.
    """

    def __init__(
        self,
        *,
        positional_encoding: dict,
        layer_cfg: dict,
        in_channels: int = 256,
        fine_channels: int = 96,
        channels: int = 256,
        strides: Sequence[int] = (8, 4, 2, 1),
        num_groups: int = 8,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.positional_encoding = MODELS.build(positional_encoding)
        self.strides = tuple(strides)
        norm = dict(type='GN', num_groups=num_groups)
        # Finest first.
        self.laterals = nn.ModuleList(
            ConvModule(source, channels, 1, bias=False, norm_cfg=norm, act_cfg=None)
            for source in (fine_channels, *[in_channels] * 3)
        )
        self.blocks = nn.ModuleList(VisionLanguageBlock(**layer_cfg) for _ in self.strides)
        use_lean_layers(self.blocks, 'self_attn', 'cross_attn')
        self.convs = nn.ModuleList(
            ConvModule(channels, channels, 3, padding=1, bias=False, norm_cfg=norm) for _ in self.strides
        )
        self.out_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self._positions = MapPositions()

    def init_weights(self) -> None:
        super().init_weights()
        for parameter in self.blocks.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, memory: Sequence[Tensor], visual: VisualFeatures, text: TextFeatures) -> Tensor:
        """
        Args:
            memory: (M*T, C, h, w) at strides 8, 16, 32.
            visual: of the M sentences' clips.
            text: of the M sentences.

        Returns:
            (M*T, channels, h, w) at stride 4.
        """
        word_key = text.words + sine_positional_encoding_1d(text.pad_mask, text.words.shape, text.words.device).to(
            text.words.dtype
        )
        padding = None if visual.fine_pad_mask is None else [visual.fine_pad_mask]
        (fine_position,) = self._positions(self.positional_encoding, [visual.fine], padding)
        positions = [fine_position, *visual.positions[:3]]
        masks = [None] * 4 if visual.pad_masks is None else [visual.fine_pad_mask, *visual.pad_masks[:3]]
        above: Tensor | None = None
        for level in (3, 2, 1, 0):
            x = self.laterals[level]((visual.fine, *memory)[level])
            x = self.blocks[level](
                x.unflatten(0, (-1, visual.num_frames)),
                positions[level],
                masks[level],
                text.words,
                word_key,
                text.pad_mask,
                self.strides[level],
            ).flatten(0, 1)
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[-2:], mode='nearest')
            above = self.convs[level](x)
        return self.out_conv(above)
