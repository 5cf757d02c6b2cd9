"""mmdet's transformer layers, made available to configs, with deformable attention in bounded memory.

No mmdet registry has them, so ``type='mmdet.DeformableDetrTransformerEncoder'`` cannot be built. Here they are
registered under their own names: those of DETR and Mask2Former without the attention map, those of Deformable DETR with
`MultiScaleDeformableAttention` instead of mmcv's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models import layers as mmdet_layers
from mmengine.model import ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsoc.registry import MODELS
from mmsoc.utils.device import to_device

from .attention import MultiheadAttention
from .deformable_attention import MultiScaleDeformableAttention
from .dropout import Dropout, ReLUDropout
from .recompute import map_chunks


class _BoundedSequential(nn.Sequential):
    """The layers of a feed-forward network; without a gradient some rows at a time.

    The hidden rows are eight times as long as the input: 0.3 GB for the deformable encoder of a clip of 8 frames, and
    as much for the cluster's encoder of 2,000 frames.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, width = x.flatten(0, -2), self[0][0].out_features
        if torch.is_grad_enabled():
            # On 2-D rows the product is not a view, which autograd would have to copy when `ReLUDropout` overwrites it.
            return super().forward(rows).view(x.shape)
        return map_chunks(super().forward, (rows,), len(rows) * width, chunk_always=True).view(x.shape)


def _use_lean_ffn(layers: ModuleList) -> None:
    for layer in layers:
        layer.ffn.layers.__class__ = _BoundedSequential
        linear, activation, dropout = layer.ffn.layers[0]
        if isinstance(activation, nn.ReLU):
            layer.ffn.layers[0] = nn.Sequential(linear, ReLUDropout(dropout.p))


def _use_fast_dropout(layers: ModuleList) -> None:
    for module in layers.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout


def _use_bounded_attention(layers: ModuleList, name: str) -> None:
    # mmdet's layers hard-code mmcv's class. The same module and weights, run by our class.
    for layer in layers:
        getattr(layer, name).__class__ = MultiScaleDeformableAttention


def _use_lean_attention(layers: ModuleList, *names: str) -> None:
    for layer in layers:
        for name in names:
            getattr(layer, name).__class__ = MultiheadAttention


def use_lean_layers(layers: ModuleList, *attentions: str) -> None:
    """Runs the same modules and weights of mmdet's layers by this package's classes.

    Args:
        attentions: names of the layers' attention modules.
    """
    _use_lean_attention(layers, *attentions)
    _use_lean_ffn(layers)
    _use_fast_dropout(layers)


@MODELS.register_module()
class DetrTransformerEncoder(mmdet_layers.DetrTransformerEncoder):
    """mmdet's."""

    def _init_layers(self) -> None:
        super()._init_layers()
        use_lean_layers(self.layers, 'self_attn')


@MODELS.register_module()
class Mask2FormerTransformerDecoder(mmdet_layers.Mask2FormerTransformerDecoder):
    """mmdet's."""

    def _init_layers(self) -> None:
        super()._init_layers()
        use_lean_layers(self.layers, 'self_attn', 'cross_attn')


@MODELS.register_module()
class DeformableDetrTransformerEncoder(mmdet_layers.DeformableDetrTransformerEncoder):
    """mmdet's encoder; PyTorch recomputes ``num_cp`` layers in the backward pass (mmdet needs fairscale for this)."""

    num_cp: int

    def _init_layers(self) -> None:
        num_cp = self.num_cp
        self.num_cp = 0
        super()._init_layers()
        self.num_cp = num_cp
        _use_bounded_attention(self.layers, 'self_attn')
        _use_lean_ffn(self.layers)
        _use_fast_dropout(self.layers)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor | None,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor | None,
        shapes: Sequence[tuple[int, int]] | None = None,
        **kwargs,
    ) -> Tensor:
        """
        Args:
            query: (F, P, C), the pixels of all levels.
            query_pos: (F, P, C) or (1, P, C).
            key_padding_mask: (F, P) bool, True where a frame was padded; None if none was.
            spatial_shapes: (L, 2) int64, rows and columns of each level.
            level_start_index: (L,) int64.
            valid_ratios: (F, L, 2), the un-padded share of width and height; None if no frame was padded.
            shapes: ``spatial_shapes`` as numbers; if omitted, they are read from the device.

        Returns:
            (F, P, C).
        """
        if shapes is None:
            shapes = [(height, width) for height, width in spatial_shapes.tolist()]
        common = dict(
            query_pos=query_pos,
            key_padding_mask=key_padding_mask,
            spatial_shapes=spatial_shapes,
            shapes=shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
            reference_points=pixel_centres(shapes, valid_ratios, query.device),
            **kwargs,
        )
        for index, layer in enumerate(self.layers):
            if index < self.num_cp and self.training:
                query = checkpoint(layer, query=query, **common, use_reentrant=False)
            else:
                query = layer(query=query, **common)
        return query


def pixel_centres(shapes: Sequence[tuple[int, int]], valid_ratios: Tensor | None, device: torch.device) -> Tensor:
    """Positions of all levels' pixels in each level.

    The same as mmdet's ``get_encoder_reference_points``, which reads the shapes from the GPU.

    Args:
        shapes: L levels' rows and columns.
        valid_ratios: (F, L, 2), the un-padded share of width and height.

    Returns:
        (F, P, L, 2), x and y in [0, 1] of the level; (1, P, L, 2) without ``valid_ratios``.
    """
    centres, sizes = [], []
    for height, width in shapes:
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
        centres.append(torch.stack([x, y], -1).flatten(0, 1))
        sizes.append(torch.tensor([[width, height]], dtype=torch.float32).expand(height * width, 2))
    if valid_ratios is None:
        return to_device(torch.cat(centres) / torch.cat(sizes), device)[None, :, None].expand(-1, -1, len(shapes), -1)
    of_pixels = torch.cat(
        [valid_ratios[:, level, None].expand(-1, height * width, -1) for level, (height, width) in enumerate(shapes)], 1
    )
    centre_FP2 = to_device(torch.cat(centres), device) / (of_pixels * to_device(torch.cat(sizes), device))
    return centre_FP2[:, :, None] * valid_ratios[:, None]


@MODELS.register_module()
class DeformableDetrTransformerDecoder(mmdet_layers.DeformableDetrTransformerDecoder):
    """mmdet's decoder, with references in float32 under autocast and without unneeded gradients."""

    def _init_layers(self) -> None:
        super()._init_layers()
        _use_lean_attention(self.layers, 'self_attn')
        _use_bounded_attention(self.layers, 'cross_attn')
        _use_lean_ffn(self.layers)
        _use_fast_dropout(self.layers)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
        valid_ratios: Tensor | None,
        reg_branches: nn.ModuleList | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            query: (F, N, C).
            query_pos: (F, N, C).
            value: (F, P, C), the pixels of all levels.
            key_padding_mask: (F, P) bool, True where a frame was padded; None if none was.
            reference_points: (F, N, 2) float32, x and y in [0, 1] of the un-padded frame.
            valid_ratios: (F, L, 2), the un-padded share of width and height; None if no frame was padded.
            reg_branches: D modules C -> 4; each refines the references after its layer.

        Returns:
            With ``return_intermediate`` the queries (D, F, N, C) and the refined references
            (D, F, N, 4) after each layer, detached; else those after the last one, without D. Without ``reg_branches``
            the references are the given ones.
        """
        queries, references = [], []
        num_levels = self.layers[0].cross_attn.num_levels
        for index, layer in enumerate(self.layers):
            if valid_ratios is None:
                in_levels = reference_points[:, :, None].expand(-1, -1, num_levels, -1)
            else:
                in_levels = (
                    reference_points[:, :, None] * valid_ratios.repeat(1, 1, reference_points.shape[-1] // 2)[:, None]
                )
            query = layer(
                query,
                query_pos=query_pos,
                value=value,
                key_padding_mask=key_padding_mask,
                valid_ratios=valid_ratios,
                reference_points=in_levels,
                **kwargs,
            )
            if reg_branches is not None:
                with torch.no_grad():
                    reference_points = refine_boxes(reg_branches[index](query), reference_points)
            queries.append(query)
            references.append(reference_points)
        if self.return_intermediate:
            return torch.stack(queries), torch.stack(references)
        return query, reference_points


def refine_boxes(offsets: Tensor, references: Tensor) -> Tensor:
    """Adds a box branch's offsets to the references, before the sigmoid (Deformable DETR, appendix A.4).

    In float32 also under autocast: bfloat16's resolution above 0.5 is 1/256, and float16's inverse sigmoid is infinite
    near 1.

    Args:
        offsets: (..., 4).
        references: (..., 2) points or (..., 4) boxes cxcywh in [0, 1].

    Returns:
        (..., 4) float32, cxcywh in [0, 1].
    """
    with torch.autocast(offsets.device.type, enabled=False):
        anchors = torch.logit(references.float(), eps=1e-5)
        if anchors.shape[-1] == 2:
            anchors = F.pad(anchors, (0, 2))
        return (offsets.float() + anchors).sigmoid()
