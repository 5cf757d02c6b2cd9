"""mmdet's transformer layers, made available to configs, with deformable attention in bounded memory.

They are in no registry of mmdet's, so ``type='mmdet.DeformableDetrTransformerEncoder'`` cannot be built; here they are
registered under their own names: those of DETR and Mask2Former without the map of attention weights, those of Deformable DETR
with `MultiScaleDeformableAttention` in the place of mmcv's.
"""
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models import layers as mmdet_layers
from mmengine.model import ModuleList
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmsoc.registry import MODELS

from .deformable_attention import MultiScaleDeformableAttention
from .recompute import map_chunks


class MultiheadAttention(nn.MultiheadAttention):
    """PyTorch's, which never makes the (queries x keys) map of weights: mmcv asks for it and throws it away.

    The cluster's encoder sees all queries of a video, 40,000 for 2,000 frames, and the map of 8 heads would take 51 GB.
    """

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return super().forward(*args, **{**kwargs, 'need_weights': False})


class _ReLUDropoutFunction(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        output = F.dropout(x.relu(), p)
        ctx.save_for_backward(output)
        ctx.scale = 1 / (1 - p)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        output, = ctx.saved_tensors
        return (grad * ctx.scale).masked_fill_(output == 0, 0), None


class ReLUDropout(nn.Dropout):
    """``dropout(relu(x))`` with the same numbers and gradient, that keeps its output and nothing else for the backward pass.

    Where the output is not zero, x was positive and was not dropped; elsewhere the gradient is zero whatever the reason.  PyTorch
    keeps what ReLU gave and on CPU the dropout's factors besides: in the encoder of a clip of 8 frames 0.7 GB for each layer.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and 0 < self.p < 1:
            return _ReLUDropoutFunction.apply(x, self.p)
        # What comes here is a layer's output that nobody else reads.
        return super().forward(x.relu() if torch.is_grad_enabled() else x.relu_())


class _BoundedSequential(nn.Sequential):
    """The layers of a feed-forward network; without a gradient some rows at a time.

    The rows between the two linear layers are eight times as long as those outside: 0.3 GB for the deformable encoder of a clip
    of 8 frames, and as much for the cluster's encoder of 2,000 frames.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        rows, width = x.flatten(0, -2), self[0][0].out_features
        return map_chunks(super().forward, (rows,), len(rows) * width, chunk_always=True).view(x.shape)


def _use_lean_ffn(layers: ModuleList) -> None:
    for layer in layers:
        layer.ffn.layers.__class__ = _BoundedSequential
        linear, activation, dropout = layer.ffn.layers[0]
        if isinstance(activation, nn.ReLU):
            layer.ffn.layers[0] = nn.Sequential(linear, ReLUDropout(dropout.p))


def _use_bounded_attention(layers: ModuleList, name: str) -> None:
    # mmdet's layers name mmcv's class in their code and take no other.  The same module and weights, run by ours.
    for layer in layers:
        getattr(layer, name).__class__ = MultiScaleDeformableAttention


def _use_lean_attention(layers: ModuleList, *names: str) -> None:
    for layer in layers:
        for name in names:
            getattr(layer, name).attn.__class__ = MultiheadAttention


@MODELS.register_module()
class DetrTransformerEncoder(mmdet_layers.DetrTransformerEncoder):
    """mmdet's."""

    def _init_layers(self) -> None:
        super()._init_layers()
        _use_lean_attention(self.layers, 'self_attn')
        _use_lean_ffn(self.layers)


@MODELS.register_module()
class Mask2FormerTransformerDecoder(mmdet_layers.Mask2FormerTransformerDecoder):
    """mmdet's."""

    def _init_layers(self) -> None:
        super()._init_layers()
        _use_lean_attention(self.layers, 'self_attn', 'cross_attn')


@MODELS.register_module()
class DeformableDetrTransformerEncoder(mmdet_layers.DeformableDetrTransformerEncoder):
    """mmdet's; ``num_cp`` layers are recomputed in the backward pass (by PyTorch: mmdet needs fairscale for it)."""

    num_cp: int

    def _init_layers(self) -> None:
        num_cp = self.num_cp
        self.num_cp = 0
        super()._init_layers()
        self.num_cp = num_cp
        _use_bounded_attention(self.layers, 'self_attn')
        _use_lean_ffn(self.layers)

    def forward(self, query: Tensor, query_pos: Tensor, key_padding_mask: Tensor, spatial_shapes: Tensor,
                level_start_index: Tensor, valid_ratios: Tensor, **kwargs) -> Tensor:
        reference_points = self.get_encoder_reference_points(spatial_shapes, valid_ratios, device=query.device)
        common = dict(
            query_pos=query_pos, key_padding_mask=key_padding_mask, spatial_shapes=spatial_shapes,
            level_start_index=level_start_index, valid_ratios=valid_ratios, reference_points=reference_points, **kwargs)
        for index, layer in enumerate(self.layers):
            if index < self.num_cp and self.training:
                query = checkpoint(layer, query=query, **common, use_reentrant=False)
            else:
                query = layer(query=query, **common)
        return query


@MODELS.register_module()
class DeformableDetrTransformerDecoder(mmdet_layers.DeformableDetrTransformerDecoder):
    """mmdet's."""

    def _init_layers(self) -> None:
        super()._init_layers()
        _use_bounded_attention(self.layers, 'cross_attn')
