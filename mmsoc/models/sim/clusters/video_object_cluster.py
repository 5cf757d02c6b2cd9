from einops import rearrange, repeat
from torch import Tensor, nn

from mmsoc.models.layers import sine_positional_encoding_1d
from mmsoc.registry import MODELS

from .base_cluster import BaseCluster


@MODELS.register_module()
class VideoObjectCluster(BaseCluster):
    """The paper's VOC (section 3.3, Fig. 3): self-attention across frames, then a decoder that groups objects.

    In the encoder the T*N frame queries of a clip attend to each other, without positions. In the decoder N video
    queries, all initialized with the sentence and distinguished by learned positions, attend to the encoded frame
    queries, whose learned position depends only on their slot, not on the frame.

    Args:
        encoder: a ``DetrTransformerEncoder``; None: skipped (Table 8, "only decoder").
        decoder: a ``Mask2FormerTransformerDecoder``; None: the video queries are the mean over frames (Table 8, "only
            encoder").
        embed_dims: C.
        num_queries: N, of each frame and of the video; the two are added.
        frame_position: add a sine encoding of the frame's position in the video to the encoder's queries and keys and
            the decoder's keys. The paper does not: its cluster sees the frames as an unordered set.
    """

    def __init__(
        self,
        *,
        encoder: dict | None,
        decoder: dict | None,
        embed_dims: int = 256,
        num_queries: int = 20,
        frame_position: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.frame_position = frame_position
        self.encoder = MODELS.build(encoder) if encoder is not None else None
        self.decoder = MODELS.build(decoder) if decoder is not None else None
        if self.decoder is not None:
            self.query_pos = nn.Embedding(num_queries, embed_dims)
            self.frame_query_pos = nn.Embedding(num_queries, embed_dims)

    def forward(self, queries: Tensor, sentence: Tensor, start: Tensor | None = None) -> Tensor:
        """
        Args:
            queries: (M, T, N, C), the frame queries of one decoder layer.
            sentence: (M, C).
            start: (M, N, C), initial video queries, e.g. those of the previous frames. None: the sentence (the paper).

        Returns:
            (M, N, C), the video queries.
        """
        num_sentences, num_frames, num_queries, _ = queries.shape
        tokens = rearrange(queries, 'm t n c -> m (t n) c')
        position = None
        if self.frame_position:
            of_frame_1TC = sine_positional_encoding_1d(None, (1, num_frames, queries.shape[-1]), queries.device)
            position = repeat(of_frame_1TC.to(tokens.dtype), '1 t c -> m (t n) c', m=num_sentences, n=num_queries)
        if self.encoder is not None:
            tokens = self.encoder(query=tokens, query_pos=position, key_padding_mask=None)
        if self.decoder is None:
            return rearrange(tokens, 'm (t n) c -> m t n c', t=num_frames).mean(1)
        key_pos = repeat(self.frame_query_pos.weight, 'n c -> m (t n) c', m=num_sentences, t=num_frames)
        return self.decoder(
            query=repeat(sentence, 'm c -> m n c', n=num_queries) if start is None else start,
            key=tokens,
            value=tokens,
            query_pos=repeat(self.query_pos.weight, 'n c -> m n c', m=num_sentences),
            key_pos=key_pos if position is None else key_pos + position,
            key_padding_mask=None,
        )[-1]
