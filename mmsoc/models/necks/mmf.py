from collections.abc import Sequence

import torch
from einops import repeat
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.models.layers import sine_positional_encoding_1d
from mmsoc.models.layers.attention import multi_head_attention
from mmsoc.registry import MODELS
from mmsoc.structures import FusedFeatures


@MODELS.register_module()
class CrossAttentionGate(BaseModule):
    """``x * MHA(x, y)``: gates one modality's tokens by cross-attention to the other (paper Eq. 1-3), without a
    residual.

    Args:
        embed_dims: C.
        num_heads: number of attention heads.
        dropout: dropout of the attention weights.
    """

    def __init__(
        self, *, embed_dims: int = 256, num_heads: int = 8, dropout: float = 0.0, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, dropout=dropout, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """
        Args:
            query: (M, Q, C), the tokens to gate.
            key: (M, K, C), the other modality's tokens with their positions.
            value: (M, K, C), the same without positions.
            key_padding_mask: (M, K) bool, True for padding; None if there is none.

        Returns:
            (M, Q, C).
        """
        return query * multi_head_attention(self.attn, query, key, value, key_padding_mask)


@MODELS.register_module()
class PassThrough(BaseModule):
    """An MMF stream that does nothing (paper Table 4: "No Fusion", "V2L", "L2V")."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        return query


@MODELS.register_module()
class MMF(BaseModule):
    """Two-stream multi-modal fusion (paper section 3.2).

    Language to vision: every token of every level is gated by the words. Vision to language: the words are gated by the
    unfused tokens of one level; their mean is the textual guidance (Eq. 5). The levels share each stream's parameters.

    Args:
        l2v, v2l: config of the stream's gate: ``CrossAttentionGate``, ``PassThrough``, or a registered user module with
            the same `forward`.
        guidance_level: the level that the words attend to (2 is stride 32: "the last stage" of Eq. 5).
    """

    def __init__(self, *, l2v: dict, v2l: dict, guidance_level: int = 2, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.l2v = MODELS.build(l2v)
        self.v2l = MODELS.build(v2l)
        self.guidance_level = guidance_level

    def forward(
        self,
        levels: Sequence[Tensor],
        words: Tensor,
        word_pad_mask: Tensor | None,
        pad_masks: Sequence[Tensor] | None,
        positions: Sequence[Tensor],
        with_guidance: bool = True,
    ) -> FusedFeatures:
        """
        Args:
            levels: (M*T, C, h_i, w_i) each.
            words: (M, L, C).
            word_pad_mask: (M, L) bool, True for padding; None if there is none.
            pad_masks: (M, h_i, w_i) bool each, True for padding; None if no clip was padded.
            positions: (M, C, h_i, w_i) each, or (1, C, h_i, w_i) if no clip was padded.
            with_guidance: False skips vision to language, which only the contrastive loss uses.

        Returns:
            The levels, same shapes, and the guidance (M, C) or None.
        """
        num_sentences, _, channels = words.shape
        sizes = [level[0, 0].numel() for level in levels]
        # Tokens are gated independently, so all levels are gated in one call.
        tokens_FPC = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        word_key = words + sine_positional_encoding_1d(word_pad_mask, words.shape, words.device).to(words.dtype)
        gated = self.l2v(tokens_FPC.view(num_sentences, -1, channels), word_key, words, word_pad_mask).reshape(
            tokens_FPC.shape
        )
        fused = tuple(
            part.transpose(1, 2).unflatten(2, level.shape[2:])
            for part, level in zip(gated.split(sizes, 1), levels, strict=True)
        )
        if not with_guidance:
            return FusedFeatures(levels=fused, guidance=None)

        index = self.guidance_level
        num_frames = len(tokens_FPC) // num_sentences
        tokens_MTPC = tokens_FPC.split(sizes, 1)[index].unflatten(0, (num_sentences, num_frames))
        position = positions[index].flatten(2).transpose(1, 2)[:, None].to(tokens_MTPC.dtype)
        padding = None if pad_masks is None else repeat(pad_masks[index], 'm h w -> m (t h w)', t=num_frames)
        gated_words = self.v2l(words, (tokens_MTPC + position).flatten(1, 2), tokens_MTPC.flatten(1, 2), padding)
        if word_pad_mask is None:
            return FusedFeatures(levels=fused, guidance=gated_words.mean(1))
        present = (~word_pad_mask).to(gated_words.dtype)[..., None]
        return FusedFeatures(levels=fused, guidance=(gated_words * present).sum(1) / present.sum(1))
