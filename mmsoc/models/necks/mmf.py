from collections.abc import Sequence

from einops import rearrange, repeat
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.models.layers import sine_positional_encoding_1d
from mmsoc.registry import MODELS
from mmsoc.structures import FusedFeatures


@MODELS.register_module()
class CrossAttentionGate(BaseModule):
    """``x * MHA(x, y)``: the tokens of one modality weighed by what they find in the other (paper Eq. 1-3); nothing is added.

    Args:
        embed_dims (int): C.
        num_heads (int): heads.
        dropout (float): of the attention weights.
    """

    def __init__(self, *, embed_dims: int = 256, num_heads: int = 8, dropout: float = 0.,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, dropout=dropout, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor) -> Tensor:
        """
        Args:
            query (Tensor): (M, Q, C), the tokens that are gated.
            key (Tensor): (M, K, C), the other modality's tokens with their positions.
            value (Tensor): (M, K, C), the same without positions.
            key_padding_mask (Tensor): (M, K) bool, True where there is no token.

        Returns:
            Tensor: (M, Q, C).
        """
        return query * self.attn(query, key, value, key_padding_mask=key_padding_mask, need_weights=False)[0]


@MODELS.register_module()
class PassThrough(BaseModule):
    """A slot of MMF that does nothing (paper Table 4: "No Fusion", "V2L", "L2V")."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor) -> Tensor:
        return query


@MODELS.register_module()
class MMF(BaseModule):
    """Two-stream multi-modal fusion (paper section 3.2).

    Language to vision: every token of every level is gated by the words.  Vision to language: the words are gated by the un-fused
    tokens of one level; their mean is the textual guidance (Eq. 5).  Each stream's parameters are shared by the levels.

    Args:
        l2v, v2l (dict): config of the stream's gate: ``CrossAttentionGate``, ``PassThrough``, or a registered module of yours
            with the same `forward`.
        guidance_level (int): which level the words look at (2 is stride 32: "the last stage" of Eq. 5).
    """

    def __init__(self, *, l2v: dict, v2l: dict, guidance_level: int = 2, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.l2v = MODELS.build(l2v)
        self.v2l = MODELS.build(v2l)
        self.guidance_level = guidance_level

    def forward(self, levels: Sequence[Tensor], words: Tensor, word_pad_mask: Tensor, pad_masks: Sequence[Tensor],
                positions: Sequence[Tensor], with_guidance: bool = True) -> FusedFeatures:
        """
        Args:
            levels (Sequence[Tensor]): (M*T, C, h_i, w_i) each.
            words (Tensor): (M, L, C).
            word_pad_mask (Tensor): (M, L) bool, True where there is no word.
            pad_masks (Sequence[Tensor]): (M, h_i, w_i) bool each, True where there is no picture.
            positions (Sequence[Tensor]): (M, C, h_i, w_i) each.
            with_guidance (bool): False leaves out vision to language, which only the contrastive loss reads.

        Returns:
            FusedFeatures: the levels, same shapes, and the guidance (M, C) or None.
        """
        num_sentences, _, channels = words.shape
        word_key = words + sine_positional_encoding_1d(word_pad_mask, channels).to(words.dtype)

        fused = []
        for level in levels:
            tokens_MTPC = rearrange(level, '(m t) c h w -> m (t h w) c', m=num_sentences)
            gated = self.l2v(tokens_MTPC, word_key, words, word_pad_mask)
            fused.append(rearrange(gated, 'm (t h w) c -> (m t) c h w', h=level.shape[-2], w=level.shape[-1]))

        if not with_guidance:
            return FusedFeatures(levels=tuple(fused), guidance=None)
        level, pad_mask = levels[self.guidance_level], pad_masks[self.guidance_level]
        num_frames = level.shape[0] // num_sentences
        tokens = rearrange(level, '(m t) c h w -> m (t h w) c', m=num_sentences)
        position = repeat(positions[self.guidance_level], 'm c h w -> m (t h w) c', t=num_frames).to(tokens.dtype)
        gated_words = self.v2l(words, tokens + position, tokens, repeat(pad_mask, 'm h w -> m (t h w)', t=num_frames))
        present = (~word_pad_mask).to(gated_words.dtype)[..., None]
        guidance = (gated_words * present).sum(1) / present.sum(1)
        return FusedFeatures(levels=tuple(fused), guidance=guidance)
