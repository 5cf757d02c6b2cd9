from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.structures import FrameQueries, ObjectQueries


@MODELS.register_module()
class SIM(BaseModule):
    """Semantic Integration Module (paper section 3.3): frame-level content aggregation, then a cluster across frames.

    The two halves are methods of their own, since all that is long about a long video ends with the first: `aggregate` works on
    each frame alone, `integrate` on N vectors per frame.

    Args:
        encoder (dict): ``DeformableDetrTransformerEncoder`` (Eq. 4).
        decoder (dict): ``DeformableDetrTransformerDecoder`` with ``return_intermediate=True``.
        cluster (dict): a `BaseCluster`.
        embed_dims (int): C.
        num_queries (int): N.
        num_levels (int): feature levels.
        num_memory_levels (int): how many of the finest encoded levels go on to the pixel decoder.
    """

    def __init__(self,
                 *,
                 encoder: dict,
                 decoder: dict,
                 cluster: dict,
                 embed_dims: int = 256,
                 num_queries: int = 20,
                 num_levels: int = 4,
                 num_memory_levels: int = 3,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.encoder = MODELS.build(encoder)
        self.decoder = MODELS.build(decoder)
        self.cluster = MODELS.build(cluster)
        self.level_embed = nn.Parameter(torch.empty(num_levels, embed_dims))
        self.query_embed = nn.Embedding(num_queries, embed_dims)
        self.reference_points = nn.Linear(embed_dims, 2)
        self.num_memory_levels = num_memory_levels
        nn.init.normal_(self.level_embed)

    @property
    def num_layers(self) -> int:
        """D, the decoder's layers."""
        return self.decoder.num_layers

    def init_weights(self) -> None:
        super().init_weights()
        for part in (self.encoder, self.decoder, self.cluster):
            for name, parameter in part.named_parameters():
                if parameter.dim() > 1 and 'query_pos' not in name:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.normal_(self.level_embed)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def aggregate(self, levels: Sequence[Tensor], pad_masks: Sequence[Tensor], positions: Sequence[Tensor],
                  box_branches: nn.ModuleList) -> FrameQueries:
        """Frame-level content aggregation: deformable encoder and decoder on every frame alone.

        Args:
            levels (Sequence[Tensor]): (M*T, C, h_i, w_i) each.
            pad_masks (Sequence[Tensor]): (M, h_i, w_i) bool each, True where there is no picture.
            positions (Sequence[Tensor]): (M, C, h_i, w_i) each.
            box_branches (nn.ModuleList): D modules C -> 4 that refine the reference of each decoder layer (the head's).
        """
        num_sentences = pad_masks[0].shape[0]
        num_frames = levels[0].shape[0] // num_sentences
        shapes = [level.shape[-2:] for level in levels]
        tokens = torch.cat([rearrange(level, 'f c h w -> f (h w) c') for level in levels], 1)
        position = torch.cat([
            rearrange(position, 'm c h w -> m (h w) c') + self.level_embed[index]
            for index, position in enumerate(positions)], 1).to(tokens.dtype)
        padding = torch.cat([rearrange(mask, 'm h w -> m (h w)') for mask in pad_masks], 1)
        valid_ratios = torch.stack([self._valid_ratio(mask) for mask in pad_masks], 1)
        # A clip's frames share their padding and positions.
        position, padding, valid_ratios = (
            repeat(tensor, 'm ... -> (m t) ...', t=num_frames) for tensor in (position, padding, valid_ratios))
        spatial_shapes = torch.tensor(shapes, device=tokens.device)
        sizes = spatial_shapes.prod(1)
        level_start_index = sizes.cumsum(0) - sizes
        common = dict(
            key_padding_mask=padding,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios)

        memory = self.encoder(query=tokens, query_pos=position, **common)

        query_pos = repeat(self.query_embed.weight, 'n c -> f n c', f=len(tokens))
        initial_reference = self.reference_points(query_pos).sigmoid()
        queries, references = self.decoder(
            query=torch.zeros_like(query_pos),
            query_pos=query_pos,
            value=memory,
            reference_points=initial_reference,
            reg_branches=box_branches,
            **common)
        return FrameQueries(
            memory=tuple(
                rearrange(part, 'f (h w) c -> f c h w', h=shape[0])
                for part, shape in zip(memory.split([h * w for h, w in shapes], 1), shapes, strict=True)
            )[:self.num_memory_levels],
            queries=rearrange(queries, 'd (m t) n c -> d m t n c', t=num_frames),
            initial_reference=rearrange(initial_reference, '(m t) n xy -> m t n xy', t=num_frames),
            references=rearrange(references, 'd (m t) n box -> d m t n box', t=num_frames))

    def integrate(self, frame: FrameQueries, sentence: Tensor, layers: Sequence[int],
                  video_layers: Sequence[int]) -> ObjectQueries:
        """The cluster across frames, and its residual to every frame.

        Args:
            frame (FrameQueries): of the whole video.
            sentence (Tensor): (M, C).
            layers (Sequence[int]): S decoder layers whose frame queries are wanted.
            video_layers (Sequence[int]): for each of them, the layer whose frame queries are clustered.  In training both are
                0..D-1.  The released implementation predicts from layer 0 with the video queries of the last layer.
        """
        clustered = {layer: self.cluster(frame.queries[layer], sentence) for layer in sorted(set(video_layers))}
        video = [clustered[layer] for layer in video_layers]
        queries = [self.cluster.enrich(frame.queries[layer], video_queries)
                   for layer, video_queries in zip(layers, video, strict=True)]
        return ObjectQueries(layers=tuple(layers), queries=torch.stack(queries), video_queries=torch.stack(video))

    @staticmethod
    def _valid_ratio(pad_mask: Tensor) -> Tensor:
        """(M, h, w) bool -> (M, 2), the un-padded share of the width and of the height."""
        present = (~pad_mask).float()
        return torch.stack([present[:, 0, :].mean(1), present[:, :, 0].mean(1)], -1)
