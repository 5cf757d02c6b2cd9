"""Deformable attention in bounded memory, and fast where mmcv's compiled op does not run."""

from collections.abc import Sequence
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
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        coordinates = []
        for axis in range(2):  # x, then y: each in memory of its own
            offsets = F.linear(query, self.sampling_offsets.weight[axis::2], self.sampling_offsets.bias[axis::2]).view(shape)
            length = spatial_shapes[:, 1 - axis].to(query.dtype)
            reference = reference_points[..., axis] * length - 0.5  # in pixels, from the centre of the first
            if reference_points.shape[-1] == 4:
                offsets *= (reference_points[..., 2 + axis] * length * (0.5 / self.num_points))[:, :, None, :, None]
            coordinates.append(offsets.add_(reference[:, :, None, :, None]))
        x, y = coordinates
        sampled = sample_rows(value.unflatten(-1, (self.num_heads, -1)), spatial_shapes, x, y, weights)
        return identity + self.dropout(self.output_proj(sampled))


def sample_rows(value: Tensor, spatial_shapes: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """What ``mmcv.ops.multi_scale_deformable_attn_pytorch`` computes, without a gradient, in a fraction of the time.

    Each point's bilinear sample is a weighted sum of four rows of ``value``, each of a head's channels; all of a query's points
    together are one sum over 4 x levels x points rows, which is an embedding bag.  (``grid_sample`` reads every channel from a map
    of its own, and a vector per point is written out and read again.)  What is left is to find rows and weights, for which every
    step runs through memory once; so they are few.

    Args:
        value (Tensor): (F, P, H, C), the levels' pixels one behind the other.
        spatial_shapes (Tensor): (L, 2), rows and columns of each level.
        x (Tensor): (F, Q, H, L, K), where the points lie, in pixels of their level from the centre of the first one; zeros lie
            outside.  Is overwritten.
        y (Tensor): likewise.
        weights (Tensor): (F, Q, H, L, K).

    Returns:
        Tensor: (F, Q, H * C).
    """
    num_frames, _, num_heads, channels = value.shape
    sizes = spatial_shapes.tolist()
    # Zeros around each level, so that a point's four neighbours are always there: one row and column before, two behind it.
    padded_sizes = [(height + 3) * (width + 3) for height, width in sizes]
    padded = value.new_zeros(num_frames, sum(padded_sizes), num_heads, channels)
    levels = value.split([height * width for height, width in sizes], 1)
    for (height, width), level, around in zip(sizes, levels, padded.split(padded_sizes, 1), strict=True):
        around.unflatten(1, (height + 3, width + 3))[:, 1:height + 1, 1:width + 1] = level.unflatten(1, (height, width))

    def of_levels(values: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=value.device)[:, None]

    # What lies further outside than the first zeros is moved to them.  (fmax makes a number of what is none.)
    first = x.new_tensor(-1.)
    x = torch.fmax(x, first, out=x).minimum(of_levels([width for _, width in sizes], x.dtype))
    y = torch.fmax(y, first, out=y).minimum(of_levels([height for height, _ in sizes], y.dtype))
    left, top = x.floor(), y.floor()
    to_right, to_bottom = x.sub_(left), y.sub_(top)

    stride = of_levels([width + 3 for _, width in sizes], torch.int32)
    start = of_levels([sum(padded_sizes[:level]) for level in range(len(sizes))], torch.int32)
    frame = torch.arange(num_frames, dtype=torch.int32, device=value.device).view(-1, 1, 1, 1, 1) * sum(padded_sizes)
    head = torch.arange(num_heads, dtype=torch.int32, device=value.device).view(-1, 1, 1)
    # Pixels of a level can be counted in float32, up to 16 million.
    corner = torch.addcmul(left, top, stride.to(x.dtype)).int()
    corner.mul_(num_heads).add_((frame + start + stride + 1) * num_heads + head)

    shape = (*weights.shape[:3], 4, *weights.shape[3:])
    index = torch.empty(shape, dtype=torch.int32, device=value.device)
    weight = torch.empty(shape, dtype=weights.dtype, device=value.device)
    for i, step in enumerate((0, 1, stride, stride + 1)):
        torch.add(corner, step * num_heads, out=index[:, :, :, i])
    bottom = weights * to_bottom
    for i, of_row in ((0, weights - bottom), (2, bottom)):
        right = torch.mul(of_row, to_right, out=weight[:, :, :, i + 1])
        torch.sub(of_row, right, out=weight[:, :, :, i])
    out = F.embedding_bag(
        index.flatten(3).flatten(0, 2), padded.view(-1, channels), mode='sum',
        per_sample_weights=weight.flatten(3).flatten(0, 2))
    return out.view(num_frames, -1, num_heads * channels)
