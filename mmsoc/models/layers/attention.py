"""Attention in few operations and bounded memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import mmcv.cnn.bricks.transformer
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import dropout as random_drop

# Attention weights of a chunk on a CPU: 8 MiB of float32, which stay in the cache between steps.
MAX_WEIGHTS_IN_CACHE = 2**21


def multi_head_attention(
    attention: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None
) -> Tensor:
    """Computes the same as PyTorch's module, without its attention map and in half as many operations.

    Args:
        attention: holds the weights; keys and values have the width of the queries.
        query: (B, Q, C).
        key: (B, K, C).
        value: (B, K, C).
        key_padding_mask: (B, K) bool, True where there is no key.

    Returns:
        (B, Q, C).
    """
    channels = attention.embed_dim
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    # One product for projections of the same tensor.
    sizes, inputs = [1, 1, 1], [query, key, value]
    if query is key:
        sizes, inputs = [2, 1], [query, value]
    elif key is value:
        sizes, inputs = [1, 2], [query, key]
    widths = [size * channels for size in sizes]
    projected = [F.linear(x, w, b) for x, w, b in zip(inputs, weight.split(widths), bias.split(widths), strict=True)]
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for tensor, size in zip(projected, sizes, strict=True)
        for part in tensor.chunk(size, -1)
    )
    mask = None if key_padding_mask is None else ~key_padding_mask[:, None, None]
    out = _attend(q, k, v, mask, attention.dropout if attention.training else 0.0)
    return attention.out_proj(out.transpose(1, 2).flatten(-2))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    if not dropout or q.device.type != 'cpu':
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    # The CPU kernel has no dropout; PyTorch's composite implementation scales both factors and checks for empty rows.
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf)
    return random_drop(weights.softmax(-1), dropout) @ v


class MultiheadAttention(mmcv.cnn.bricks.transformer.MultiheadAttention):
    """mmcv's module without the (queries x keys) attention map, which mmcv computes and discards.

    The cluster's encoder sees all queries of a video, 40,000 for 2,000 frames, and the map of 8 heads would take 51 GB.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **kwargs,
    ) -> Tensor:
        """Like mmcv's, with ``batch_first=True``: (B, Q, C) and (B, K, C).

        Raises:
            NotImplementedError: with an ``attn_mask``.
        """
        if attn_mask is not None or not self.batch_first:
            raise NotImplementedError('MultiheadAttention: expected batch_first=True and no attn_mask')
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        if key is query and key_pos is query_pos:
            query = key = query if query_pos is None else query + query_pos
        else:
            query = query if query_pos is None else query + query_pos
            key = key if key_pos is None else key + key_pos
        out = multi_head_attention(self.attn, query, key, value, key_padding_mask)
        return identity + self.dropout_layer(self.proj_drop(out))


def attend_with_bias(
    qkv: Tensor, bias: Tensor, scale: float, dropout: float = 0.0, masks: Sequence[tuple[int, Tensor | None]] = ()
) -> Tensor:
    """Window attention with a trainable bias; on a CPU its weights are not stored for the backward pass.

    Args:
        qkv: (3, w, H, N, c), queries, keys and values of w windows.
        bias: (H, N, N) or (w, H, N, N), contiguous.
        scale: of the products of queries and keys.
        dropout: of the weights.
        masks: pairs of a number of consecutive windows and the mask (N, N) that they add to a bias (H, N, N).

    Returns:
        (w, N, H*c).
    """
    if qkv.device.type == 'cpu' and not dropout:
        return _Attend.apply(qkv, bias, scale, masks)
    # The memory-efficient GPU kernel also computes the bias's gradient.
    return _attend_by_kernel(qkv, bias, scale, dropout, masks)


def _attend_by_kernel(
    qkv: Tensor, bias: Tensor, scale: float, dropout: float, masks: Sequence[tuple[int, Tensor | None]]
) -> Tensor:
    outputs = []
    for part, mask in _by_mask(qkv, masks):
        q, k, v = part
        of_part = (bias if mask is None else bias + mask).to(q.dtype)
        out = F.scaled_dot_product_attention(
            q, k, v, of_part if bias.dim() == 4 else of_part[None], dropout, scale=scale
        )
        outputs.append(out.transpose(1, 2))  # its layout in memory
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).flatten(2)


def _by_mask(qkv: Tensor, masks: Sequence[tuple[int, Tensor | None]]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The windows (3, w', H, N, c) of each mask; a view."""
    start = 0
    for count, mask in masks or ((qkv.shape[1], None),):
        yield qkv[:, start : start + count], mask
        start += count


class _Attend(torch.autograd.Function):
    """On a CPU: the fused kernel, which stores no weights; the backward pass recomputes them, a few windows at a time.

    Recomputing them in the cache is as fast as storing them and reading them back.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, scale: float, masks: Sequence[tuple[int, Tensor | None]]
    ) -> Tensor:
        ctx.save_for_backward(qkv, bias)
        ctx.scale, ctx.masks = scale, masks
        # Detached: the kernel takes no mask that requires a gradient.
        return _attend_by_kernel(qkv, bias.detach(), scale, 0.0, masks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        qkv, bias = ctx.saved_tensors
        num_heads, num_tokens = qkv.shape[2:4]
        grad_heads = grad.unflatten(-1, (num_heads, -1)).transpose(1, 2)
        of_windows = bias.dim() == 4
        # Under autocast the bias is float32, and the scores are not.
        grad_qkv, grad_bias = torch.empty_like(qkv), torch.empty_like(bias, dtype=qkv.dtype if of_windows else None)
        step = max(1, MAX_WEIGHTS_IN_CACHE // (num_heads * num_tokens**2))
        start = 0
        for of_mask, mask in _by_mask(qkv, ctx.masks):
            of_part = bias if mask is None else bias + mask
            for some in of_mask.split(step, 1):
                part = slice(start, start + some.shape[1])
                start = part.stop
                (q, k, v), (grad_q, grad_k, grad_v) = some.flatten(1, 2), grad_qkv[:, part].flatten(1, 2)
                grad_out = grad_heads[part].flatten(0, 1)
                weights = _weights(q, k, of_part[part] if of_windows else of_part, ctx.scale)
                torch.bmm(weights.transpose(1, 2), grad_out, out=grad_v)
                grad_scores = grad_out @ v.transpose(1, 2)
                # In place, or where the gradient of the bias belongs.
                grad_scores = torch.ops.aten._softmax_backward_data.out(
                    grad_scores,
                    weights,
                    -1,
                    weights.dtype,
                    grad_input=grad_bias[part].flatten(0, 1) if of_windows else grad_scores,
                )
                torch.bmm(grad_scores, k, out=grad_q).mul_(ctx.scale)
                torch.bmm(grad_scores.transpose(1, 2), q, out=grad_k).mul_(ctx.scale)
                if of_windows:
                    continue
                grad_scores = grad_scores.unflatten(0, (-1, num_heads))
                if part.start == 0:
                    torch.sum(grad_scores, 0, out=grad_bias)
                else:
                    # The sum of one would be a copy.
                    grad_bias += grad_scores[0] if len(grad_scores) == 1 else grad_scores.sum(0)
        return grad_qkv, grad_bias.to(bias.dtype), None, None


def _weights(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(w*H, N, N) of queries and keys (w*H, N, c); without a gradient."""
    # beta=0 scales without a separate pass. The bias is added in place; otherwise it would be copied for each window.
    scores = torch.baddbmm(q.new_zeros(()).expand(len(q), 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
    scores.unflatten(0, (-1, bias.shape[-3])).add_(bias)
    return torch.softmax(scores, -1, out=scores)
