"""Deformable attention in bounded memory, and fast where mmcv's compiled op does not run."""

from typing import Any

import mmcv.ops
import torch
import torch.nn.functional as F
from torch import Tensor

from .recompute import map_chunks


class MultiScaleDeformableAttention(mmcv.ops.MultiScaleDeformableAttention):
    """mmcv's, in bounded memory and less time where its compiled op does not run, and in float32 always.

    Off the GPU mmcv samples with PyTorch and holds every sampled vector: channels x levels x points numbers per query, 0.6 GB for
    a clip of 8 frames of 360x640, three times over.  There a few frames are run at once; with a gradient by mmcv's function, and
    again in the backward pass, without one by `sample_rows`.

    Under autocast the op would get locations of half precision, and does not take bfloat16 at all (open-mmlab/mmcv#2878).
    """

    def forward(self,
                query: Tensor,
                key: Tensor | None = None,
                value: Tensor | None = None,
                identity: Tensor | None = None,
                query_pos: Tensor | None = None,
                key_padding_mask: Tensor | None = None,
                reference_points: Tensor | None = None,
                spatial_shapes: Tensor | None = None,
                level_start_index: Tensor | None = None,
                **kwargs) -> Tensor:
        """As mmcv's, with ``batch_first=True``: (F, Q, C) queries and (F, P, C) values of F frames."""

        def attend(*chunk: Any) -> Tensor:
            query, value, identity, query_pos, key_padding_mask, reference_points = chunk
            with torch.autocast(query.device.type, enabled=False):
                return super(MultiScaleDeformableAttention, self).forward(
                    query=query, value=value, identity=identity, query_pos=query_pos, key_padding_mask=key_padding_mask,
                    reference_points=reference_points, spatial_shapes=spatial_shapes, level_start_index=level_start_index)

        def attend_by_rows(*chunk: Any) -> Tensor:
            with torch.autocast(chunk[0].device.type, enabled=False):
                return self._forward_by_rows(*chunk, spatial_shapes=spatial_shapes)

        tensors = tuple(tensor.float() if tensor is not None and tensor.is_floating_point() else tensor
                        for tensor in (query, value, identity, query_pos, key_padding_mask, reference_points))
        if query.is_cuda or not self.batch_first:
            return attend(*tensors)
        points = query.shape[0] * query.shape[1] * self.num_heads * self.num_levels * self.num_points
        if torch.is_grad_enabled():
            return map_chunks(attend, tensors, points * self.value_proj.out_features // self.num_heads, chunk_always=True)
        return map_chunks(attend_by_rows, tensors, points * 16, chunk_always=True)

    def _forward_by_rows(self, query: Tensor, value: Tensor | None, identity: Tensor | None, query_pos: Tensor | None,
                         key_padding_mask: Tensor | None, reference_points: Tensor, *, spatial_shapes: Tensor) -> Tensor:
        """The same steps as mmcv's `forward`, with another sampler."""
        value = self.value_proj(query if value is None else value)
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.)
        shape = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 2:
            locations = reference + offsets / spatial_shapes.flip(-1)[:, None]
        else:
            locations = reference[..., :2] + offsets / self.num_points * reference[..., 2:] * 0.5
        sampled = sample_rows(value.unflatten(-1, (self.num_heads, -1)), spatial_shapes, locations, weights)
        return identity + self.dropout(self.output_proj(sampled))


def sample_rows(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """What ``mmcv.ops.multi_scale_deformable_attn_pytorch`` computes, without a gradient, in a quarter of the time.

    Each point's bilinear sample is a weighted sum of four rows of ``value``, each of a head's channels; all of a query's points
    together are one sum over 4 x levels x points rows, which is an embedding bag.  (``grid_sample`` reads every channel from a map
    of its own, and a vector per point is written out and read again.)

    Args:
        value (Tensor): (F, P, H, C), the levels' pixels one behind the other.
        spatial_shapes (Tensor): (L, 2), rows and columns of each level.
        locations (Tensor): (F, Q, H, L, K, 2), (x, y) in [0, 1]; zeros lie outside.
        weights (Tensor): (F, Q, H, L, K).

    Returns:
        Tensor: (F, Q, H * C).
    """
    num_frames, num_pixels, num_heads, channels = value.shape
    height, width = (size[:, None] for size in spatial_shapes.int().unbind(1))
    start = (height * width).cumsum(0, dtype=torch.int32) - height * width
    x, y = (locations * spatial_shapes.flip(-1)[:, None] - 0.5).unbind(-1)
    left, top = x.floor(), y.floor()
    right_weight, bottom_weight = x - left, y - top
    columns = [left.int(), left.int() + 1]
    rows = [top.int(), top.int() + 1]
    # What lies outside weighs nothing, and its index is moved to where there is something to read.
    column_weights = [weight * ((column >= 0) & (column < width))
                      for weight, column in zip((1 - right_weight, right_weight), columns, strict=True)]
    row_weights = [weight * ((row >= 0) & (row < height)) * weights
                   for weight, row in zip((1 - bottom_weight, bottom_weight), rows, strict=True)]
    frame = torch.arange(num_frames, dtype=torch.int32, device=value.device).view(-1, 1, 1, 1, 1) * num_pixels
    head = torch.arange(num_heads, dtype=torch.int32, device=value.device).view(-1, 1, 1)
    columns = [torch.minimum(column.clamp(min=0), width - 1) * num_heads + head for column in columns]
    rows = [(torch.minimum(row.clamp(min=0), height - 1) * width + start + frame) * num_heads for row in rows]

    index = torch.empty((*weights.shape, 4), dtype=torch.int32, device=value.device)
    weight = torch.empty((*weights.shape, 4), device=value.device)
    for i in range(2):
        for j in range(2):
            torch.add(rows[i], columns[j], out=index[..., 2 * i + j])
            torch.mul(row_weights[i], column_weights[j], out=weight[..., 2 * i + j])
    out = F.embedding_bag(
        index.flatten(3).flatten(0, 2), value.reshape(-1, channels), mode='sum',
        per_sample_weights=weight.flatten(3).flatten(0, 2))
    return out.view(num_frames, -1, num_heads * channels)
