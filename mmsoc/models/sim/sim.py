from collections.abc import Sequence

import torch
from einops import repeat
from mmcv.ops import MultiScaleDeformableAttention
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.structures import FrameQueries, ObjectQueries
from mmsoc.utils.device import to_device


@MODELS.register_module()
class SIM(BaseModule):
    """Semantic Integration Module (paper section 3.3): frame-level content aggregation, then a cluster across frames.

    The two halves are separate methods, so that a long video's maps need not be kept: `aggregate` processes each frame
    independently, `integrate` needs only N vectors per frame.

    Args:
        encoder: ``DeformableDetrTransformerEncoder`` (Eq. 4).
        decoder: ``DeformableDetrTransformerDecoder`` with ``return_intermediate=True``.
        cluster: a `BaseCluster`.
        embed_dims: C.
        num_queries: N.
        num_levels: feature levels.
        num_memory_levels: number of encoded levels, finest first, that the pixel decoder gets.
        query_content: what the decoder's queries hold before its first layer: `ZeroContent` or `SentenceContent`.
    """

    def __init__(
        self,
        *,
        encoder: dict,
        decoder: dict,
        cluster: dict,
        embed_dims: int = 256,
        num_queries: int = 20,
        num_levels: int = 4,
        num_memory_levels: int = 3,
        query_content: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.encoder = MODELS.build(encoder)
        self.decoder = MODELS.build(decoder)
        self.cluster = MODELS.build(cluster)
        self.query_content = MODELS.build(query_content or dict(type='mmsoc.ZeroContent'))
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

    def aggregate(
        self,
        levels: Sequence[Tensor],
        pad_masks: Sequence[Tensor] | None,
        positions: Sequence[Tensor],
        box_branches: nn.ModuleList,
        num_frames: int,
        sentence: Tensor,
    ) -> FrameQueries:
        """Frame-level content aggregation: deformable encoder and decoder on every frame independently.

        Args:
            levels: (M*T, C, h_i, w_i) each.
            pad_masks: (M, h_i, w_i) bool each, True for padding; None if no clip was padded.
            positions: (M, C, h_i, w_i) each, or (1, C, h_i, w_i) if no clip was padded.
            box_branches: D modules C -> 4 that refine the reference of each decoder layer (the head's).
            num_frames: T.
            sentence: (M, C).
        """
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        sizes = [height * width for height, width in shapes]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        device = tokens.device
        level_embed = torch.cat([embed.expand(size, -1) for embed, size in zip(self.level_embed, sizes, strict=True)])
        position = torch.cat([position.flatten(2) for position in positions], 2).transpose(1, 2) + level_embed
        position = position.to(tokens.dtype)
        padding = valid_ratios = None
        if pad_masks is not None:
            padding = torch.cat([mask.flatten(1) for mask in pad_masks], 1)
            valid_ratios = torch.stack([self._valid_ratio(mask) for mask in pad_masks], 1)
            # A clip's frames share their padding and positions.
            position, padding, valid_ratios = (
                repeat(tensor, 'm ... -> (m t) ...', t=num_frames) for tensor in (position, padding, valid_ratios)
            )
        starts = [sum(sizes[:level]) for level in range(len(sizes))]
        common = dict(
            key_padding_mask=padding,
            shapes=shapes,
            spatial_shapes=to_device(torch.tensor(shapes), device),
            level_start_index=to_device(torch.tensor(starts), device),
            valid_ratios=valid_ratios,
        )

        memory = self.encoder(query=tokens, query_pos=position, **common)

        # The same for every frame until the first layer.
        num_folded, num_queries = len(tokens), len(self.query_embed.weight)
        with torch.autocast(device.type, enabled=False):
            initial_reference = self.reference_points(self.query_embed.weight).sigmoid().expand(num_folded, -1, -1)
        queries, references = self.decoder(
            query=self.query_content(sentence, num_frames, num_queries).to(memory.dtype),
            query_pos=self.query_embed.weight.expand(num_folded, -1, -1),
            value=memory,
            reference_points=initial_reference,
            reg_branches=box_branches,
            **common,
        )
        maps = [
            part.transpose(1, 2).unflatten(2, shape)
            for part, shape in zip(memory.split(sizes, 1)[: self.num_memory_levels], shapes, strict=False)
        ]
        return FrameQueries(
            memory=tuple(maps),
            queries=queries.unflatten(1, (-1, num_frames)),
            initial_reference=initial_reference.unflatten(0, (-1, num_frames)),
            references=references.unflatten(1, (-1, num_frames)),
        )

    def integrate(
        self,
        frame: FrameQueries,
        sentence: Tensor,
        layers: Sequence[int],
        video_layers: Sequence[int],
        seen: Tensor | None = None,
    ) -> ObjectQueries:
        """The cluster across frames, and its residual to every frame.

        Args:
            frame: of the whole video.
            sentence: (M, C).
            layers: the S decoder layers whose frame queries are returned.
            video_layers: for each of them, the layer whose frame queries are clustered. In training both are
                0..D-1. The released implementation predicts from layer 0 with the video queries of the last layer.
            seen: (M, F, N, C), frame queries of one layer to cluster instead of those of ``frame``, e.g. including
                earlier frames.
        """
        # All layers in one call, as clips of a batch do not interact.
        clustered = sorted(set(video_layers))
        folded = _of_layers(frame.queries, clustered) if seen is None else seen[None]
        found = self.cluster(folded.flatten(0, 1), sentence.repeat(len(clustered), 1)).unflatten(0, folded.shape[:2])
        video = _of_layers(found, [clustered.index(layer) for layer in video_layers])
        queries = _of_layers(frame.queries, layers)
        enriched = self.cluster.enrich(queries.flatten(0, 1), video.flatten(0, 1)).unflatten(0, queries.shape[:2])
        return ObjectQueries(layers=tuple(layers), queries=enriched, video_queries=video)

    @staticmethod
    def _valid_ratio(pad_mask: Tensor) -> Tensor:
        """(M, h, w) bool -> (M, 2), the un-padded share of the width and of the height."""
        present = (~pad_mask).float()
        return torch.stack([present[:, 0, :].mean(1), present[:, :, 0].mean(1)], -1)


def _of_layers(tensors: Tensor | Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """Selects entries of (D, ...), without a copy if all are selected."""
    if isinstance(tensors, Tensor) and list(layers) == list(range(len(tensors))):
        return tensors
    return torch.stack([tensors[layer] for layer in layers])
