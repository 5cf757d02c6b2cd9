"""Deformable attention in bounded memory, with a fast fallback for mmcv's compiled op."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import mmcv.ops
import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmengine.logging import print_log
from scipy.sparse import csr_matrix
from torch import Tensor

from mmsoc.utils.device import to_device

from .recompute import MAX_ELEMENTS_IN_CACHE, map_chunks


class MultiScaleDeformableAttention(mmcv.ops.MultiScaleDeformableAttention):
    """mmcv's module in bounded memory, always in float32, and without waiting for the device.

    On a GPU mmcv's compiled op samples. It takes a multiple of ``im2col_step`` frames at once and uses 32-bit indices,
    so it gets slices. On a CPU `sample_rows` samples, with a gradient `_SampleRows`. If mmcv was built without its op,
    its PyTorch implementation samples, which stores every sampled vector: channels x levels x points numbers per query,
    0.6 GB for a clip of 8 frames of 360x640, three times over; so it runs on a few frames at once and is recomputed in
    the backward pass.

    Under autocast the op would get locations in half precision, and it does not support bfloat16 at all
    (open-mmlab/mmcv#2878).
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        level_start_index: Tensor | None = None,
        shapes: Sequence[tuple[int, int]] | None = None,
        **kwargs,
    ) -> Tensor:
        """Like mmcv's, with ``batch_first=True``: (F, Q, C) queries and (F, P, C) values of F frames.

        Args:
            shapes: ``spatial_shapes`` as numbers; if omitted, they are read from the device.

        Raises:
            NotImplementedError: without ``batch_first``.
        """
        if not self.batch_first:
            raise NotImplementedError('MultiScaleDeformableAttention: expected batch_first=True')
        assert reference_points is not None and spatial_shapes is not None
        if shapes is None:
            shapes = [(height, width) for height, width in spatial_shapes.tolist()]
        query, value, identity, query_pos, reference_points = (
            tensor.float() if tensor is not None else None
            for tensor in (query, value, identity, query_pos, reference_points)
        )
        with torch.autocast(query.device.type, enabled=False):
            if query.device.type == 'cpu' and (_has_sparse_products() or not torch.is_grad_enabled()):
                return self._forward_by_rows(
                    query, value, identity, query_pos, key_padding_mask, reference_points, shapes
                )
            return self._forward(
                query,
                value,
                identity,
                query_pos,
                key_padding_mask,
                reference_points,
                spatial_shapes,
                level_start_index,
                shapes,
            )

    def _project(
        self,
        query: Tensor,
        value: Tensor | None,
        identity: Tensor | None,
        query_pos: Tensor | None,
        key_padding_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries with positions (F, Q, C), values (F, P, H, c), identity (F, Q, C) and weights (F, Q, H, L, K)."""
        value = self.value_proj(query if value is None else value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0.0)
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        shape = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        return query, value.unflatten(-1, (self.num_heads, -1)), identity, weights

    def _forward(
        self,
        query: Tensor,
        value: Tensor | None,
        identity: Tensor | None,
        query_pos: Tensor | None,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor | None,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        query, value, identity, weights = self._project(query, value, identity, query_pos, key_padding_mask)
        shape = weights.shape
        offsets = self.sampling_offsets(query).view(*shape, 2)
        centre = reference_points[:, :, None, :, None, :2]
        if reference_points.shape[-1] == 4:  # offsets are fractions of half the box size
            locations = torch.addcmul(
                centre, offsets, reference_points[:, :, None, :, None, 2:], value=0.5 / self.num_points
            )
        else:
            size = to_device(
                torch.tensor([(width, height) for height, width in shapes], dtype=offsets.dtype), offsets.device
            )
            locations = torch.addcdiv(centre, offsets, size[:, None])
        sampled = self._sample(value, locations, weights, spatial_shapes, level_start_index, shapes)
        return identity + self.dropout(self.output_proj(sampled))

    def _sample(
        self,
        value: Tensor,
        locations: Tensor,
        weights: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor | None,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """By mmcv: (F, P, H, c), (F, Q, H, L, K, 2) in [0, 1] and (F, Q, H, L, K) -> (F, Q, H * c)."""
        if not value.is_cuda or not _has_compiled_op():
            elements = locations.numel() // 2 * value.shape[-1]
            return map_chunks(
                lambda *chunk: multi_scale_deformable_attn_pytorch(chunk[0], shapes, *chunk[1:]),
                (value, locations, weights),
                elements,
                chunk_always=True,
            )
        # The op indexes the elements of a slice with 32 bits.
        step = max(1, min(self.im2col_step, (2**31 - 1) // max(value[0].numel(), locations[0].numel())))
        parts = [
            MultiScaleDeformableAttnFunction.apply(
                part, spatial_shapes, level_start_index, points, factors, self.im2col_step
            )
            for part, points, factors in zip(value.split(step), locations.split(step), weights.split(step), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _forward_by_rows(
        self,
        query: Tensor,
        value: Tensor | None,
        identity: Tensor | None,
        query_pos: Tensor | None,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """The same steps with the CPU sampler."""
        if torch.is_grad_enabled():
            return self._attend_by_rows(
                query, value, identity, query_pos, key_padding_mask, reference_points, shapes=shapes
            )
        points = query.shape[0] * query.shape[1] * self.num_heads * self.num_levels * self.num_points
        # What all frames share is passed once.
        query_pos, reference_points = (
            tensor if tensor is None or len(tensor) == len(query) else tensor.expand(len(query), *tensor.shape[1:])
            for tensor in (query_pos, reference_points)
        )
        return map_chunks(
            functools.partial(self._attend_by_rows, shapes=shapes),
            (query, value, identity, query_pos, key_padding_mask, reference_points),
            points * 16,
            chunk_always=True,
        )

    def _attend_by_rows(
        self,
        query: Tensor,
        value: Tensor | None,
        identity: Tensor | None,
        query_pos: Tensor | None,
        key_padding_mask: Tensor | None,
        reference_points: Tensor,
        *,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        with_gradient = torch.is_grad_enabled()
        query, value, identity, weights = self._project(query, value, identity, query_pos, key_padding_mask)
        shape = weights.shape
        coordinates = []
        for axis in range(2):  # x, then y, in separate memory
            offsets = F.linear(query, self.sampling_offsets.weight[axis::2], self.sampling_offsets.bias[axis::2]).view(
                shape
            )
            length = query.new_tensor([shape[1 - axis] for shape in shapes])
            reference = reference_points[..., axis] * length - 0.5  # in pixels, from the centre of the first
            if reference_points.shape[-1] == 4:
                extent = (reference_points[..., 2 + axis] * length * (0.5 / self.num_points))[:, :, None, :, None]
                offsets = offsets * extent if with_gradient else offsets.mul_(extent)
            reference = reference[:, :, None, :, None]
            coordinates.append(offsets + reference if with_gradient else offsets.add_(reference))
        sample = _SampleRows.apply if with_gradient else sample_rows
        x, y = coordinates
        sampled = sample(value, shapes, x, y, weights)
        return identity + self.dropout(self.output_proj(sampled))


@functools.cache
def _has_compiled_op() -> bool:
    """Whether mmcv was built with CUDA ops; warns once if not."""
    if 'not available' not in str(mmcv.ops.get_compiling_cuda_version()):
        return True
    print_log(
        'mmcv was built without CUDA ops, so PyTorch samples for the deformable attention: slower, and with more memory. '
        'docs/troubleshooting.md says how to build them',
        logger='current',
        level=logging.WARNING,
    )
    return False


class _Rows(NamedTuple):
    """Rows of a matrix and weights that each bag sums; R = 4 * L * K rows in each of the F * Q * H bags."""

    padded: Tensor
    """(F, P', H, c), the levels' pixels with zeros around each level; its rows are (F * P' * H, c)"""
    index: Tensor
    """(F * Q * H, R) int32"""
    weight: Tensor
    """(F * Q * H, R), of the top left neighbours of all points, then top right, bottom left and bottom right"""
    to_right: Tensor
    """(F, Q, H, L, K) in [0, 1), a point's distance from its left neighbours"""
    to_bottom: Tensor
    """likewise, from its top neighbours"""

    def sum(self) -> Tensor:
        """(F * Q * H, c)"""
        return F.embedding_bag(self.index, self.padded.flatten(0, 2), mode='sum', per_sample_weights=self.weight)


# Rows and columns of zeros before and after a level, so that a point's four neighbours always exist. Two, so that a
# point beyond them, which is moved onto them, has four zero neighbours and a zero gradient.
_BORDER = 2


def sample_rows(value: Tensor, shapes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Computes ``mmcv.ops.multi_scale_deformable_attn_pytorch`` without a gradient, in a fraction of the time.

    Args:
        value: (F, P, H, C), the concatenated pixels of the levels.
        shapes: rows and columns of each of the L levels.
        x: (F, Q, H, L, K), positions of the points, in pixels of their level from the centre of the first one; outside
            are zeros. Overwritten.
        y: likewise.
        weights: (F, Q, H, L, K).

    Returns:
        (F, Q, H * C).
    """
    return _find_rows(value, shapes, x, y, weights, overwrite=True).sum().view(*x.shape[:2], -1)


def _find_rows(
    value: Tensor, shapes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor, overwrite: bool = False
) -> _Rows:
    """Deformable attention as a product of a sparse and a dense matrix.

    Each point's bilinear sample is a weighted sum of four rows of ``value``, each holding a head's channels; a query's
    points together are one sum over 4 x levels x points rows, an embedding bag. (``grid_sample`` reads every channel
    from a separate map, and writes and rereads a vector per point.) The remaining work is to compute rows and weights;
    each step of it passes through memory once, so there are few steps.

    Args:
        value, shapes, x, y, weights: as for `sample_rows`.
        overwrite: whether ``x`` and ``y`` may be overwritten.
    """
    num_frames, _, num_heads, channels = value.shape
    padded_sizes = [(height + 2 * _BORDER) * (width + 2 * _BORDER) for height, width in shapes]
    padded = value.new_zeros(num_frames, sum(padded_sizes), num_heads, channels)
    levels = value.split([height * width for height, width in shapes], 1)
    for (height, width), level, around in zip(shapes, levels, padded.split(padded_sizes, 1), strict=True):
        _inside(around, height, width).copy_(level.unflatten(1, (height, width)))

    def of_levels(values: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=value.device)[:, None]

    # Points further outside than the first zeros are moved there. (fmax replaces NaN.)
    first = x.new_tensor(-float(_BORDER))
    x, y = (torch.fmax(axis, first, out=axis if overwrite else None) for axis in (x, y))
    x = x.minimum(of_levels([width for _, width in shapes], x.dtype))
    y = y.minimum(of_levels([height for height, _ in shapes], y.dtype))
    left, top = x.floor(), y.floor()
    to_right, to_bottom = x.sub_(left), y.sub_(top)

    stride = of_levels([width + 2 * _BORDER for _, width in shapes], torch.int32)
    start = of_levels([sum(padded_sizes[:level]) for level in range(len(shapes))], torch.int32)
    frame = torch.arange(num_frames, dtype=torch.int32, device=value.device).view(-1, 1, 1, 1, 1) * sum(padded_sizes)
    head = torch.arange(num_heads, dtype=torch.int32, device=value.device).view(-1, 1, 1)
    # float32 can index up to 16 million pixels of a level.
    corner = torch.addcmul(left, top, stride.to(x.dtype)).int()
    corner.mul_(num_heads).add_((frame + start + (stride + 1) * _BORDER) * num_heads + head)

    shape = (*weights.shape[:3], 4, *weights.shape[3:])
    index = torch.empty(shape, dtype=torch.int32, device=value.device)
    weight = torch.empty(shape, dtype=weights.dtype, device=value.device)
    for i, step in enumerate((0, 1, stride, stride + 1)):
        torch.add(corner, step * num_heads, out=index[:, :, :, i])
    bottom = weights * to_bottom
    for i, of_row in ((0, weights - bottom), (2, bottom)):
        right = torch.mul(of_row, to_right, out=weight[:, :, :, i + 1])
        torch.sub(of_row, right, out=weight[:, :, :, i])
    return _Rows(padded, index.flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2), to_right, to_bottom)


def _inside(padded: Tensor, height: int, width: int) -> Tensor:
    """(F, P', H, c) of one level with its zeros -> (F, height, width, H, c) without them, a view."""
    maps = padded.unflatten(1, (height + 2 * _BORDER, width + 2 * _BORDER))
    return maps[:, _BORDER : _BORDER + height, _BORDER : _BORDER + width]


@functools.cache
def _has_sparse_products() -> bool:
    """Whether this PyTorch supports the products that `_SampleRows` needs (builds without MKL did not)."""
    one = torch.ones(1, 1)
    # At the first product PyTorch warns once that the interface may change.
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError, NotImplementedError):
        warnings.filterwarnings('ignore', message='Sparse CSR tensor support is in beta')
        return bool(torch.sparse.sampled_addmm(one.to_sparse_csr(), one, one).values() == 2)
    return False


class _SampleRows(torch.autograd.Function):
    """`sample_rows` with a gradient, on a CPU: 3 to 6 times as fast as ``grid_sample``.

    With the sparse matrix S of weights and the rows V, the output is ``S V``: the gradient of V is S transposed times
    the output's gradient, and that of a weight is the product of a row of V and its bag's output gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, shapes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor
    ) -> Tensor:
        # Some frames at a time, so that their rows stay in the cache.
        step = max(1, MAX_ELEMENTS_IN_CACHE // (4 * weights[0].numel()))
        ctx.shapes, ctx.step = shapes, step
        rows: Iterable[_Rows] = (
            _find_rows(part, shapes, *points) for part, *points in _split(step, value, x, y, weights)
        )
        if step >= len(value):  # stored, since they are small
            rows = list(rows)
        ctx.save_for_backward(value, x, y, weights, *(rows[0] if isinstance(rows, list) else ()))
        return torch.cat([found.sum() for found in rows]).view(*x.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        value, x, y, weights, *kept = ctx.saved_tensors
        grads = []
        for part, *points, grad_part in _split(ctx.step, value, x, y, weights, grad):
            rows = _Rows(*kept) if kept else _find_rows(part, ctx.shapes, *points)
            grads.append(_rows_gradient(rows, points[-1], grad_part, ctx.shapes))
        grad_value, grad_x, grad_y, grad_weights = (torch.cat(parts) for parts in zip(*grads, strict=True))
        return grad_value, None, grad_x, grad_y, grad_weights


def _split(step: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors' parts of ``step`` frames."""
    return zip(*(tensor.split(step) for tensor in tensors), strict=True)


def _rows_gradient(rows: _Rows, weights: Tensor, grad: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    """Gradients of the arguments ``value``, ``x``, ``y`` and ``weights`` of `sample_rows`, of which ``grad`` is the output's."""
    padded, index, weight, to_right, to_bottom = rows
    num_bags, num_rows = index.shape
    grad = grad.reshape(num_bags, -1)
    starts = torch.arange(0, index.numel() + 1, num_rows, dtype=torch.int32)
    matrix = padded.flatten(0, 2)
    # SciPy's product with the transposed matrix needs no sorting, unlike PyTorch's.
    sparse = csr_matrix(
        (weight.flatten().numpy(), index.flatten().numpy(), starts.numpy()), shape=(num_bags, len(matrix))
    )
    grad_padded = torch.from_numpy(sparse.T @ grad.numpy()).view(padded.shape)
    sizes = [(height + 2 * _BORDER) * (width + 2 * _BORDER) for height, width in shapes]
    grad_value = torch.cat(
        [_inside(part, *shape).flatten(1, 2) for part, shape in zip(grad_padded.split(sizes, 1), shapes, strict=True)],
        1,
    )

    pattern = torch.sparse_csr_tensor(
        starts, index.flatten(), torch.zeros(index.numel()), size=(num_bags, len(matrix)), check_invariants=False
    )
    products = torch.sparse.sampled_addmm(pattern, grad, matrix.t()).values()
    left_top, right_top, left_bottom, right_bottom = products.view(*weights.shape[:3], 4, *weights.shape[3:]).unbind(3)
    along_top, along_bottom = right_top - left_top, right_bottom - left_bottom
    top = torch.addcmul(left_top, along_top, to_right)
    down = torch.addcmul(left_bottom, along_bottom, to_right).sub_(top)
    grad_x = torch.addcmul(along_top, along_bottom.sub_(along_top), to_bottom).mul_(weights)
    return grad_value, grad_x, down * weights, torch.addcmul(top, down, to_bottom)
