from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# 64 MiB of float32: recomputing smaller results is not worthwhile.
MAX_ELEMENTS = 2**24
# On a GPU 512 MiB: each chunk costs its launches.
MAX_ELEMENTS_ON_GPU = 2**27
# On a CPU, chunks without a gradient cost nothing, and 16 MiB stay in the cache until the next step.
MAX_ELEMENTS_IN_CACHE = 2**22
# torch.compile unrolls the chunks, which takes longer where PyTorch cannot tell that it is compiling.
_is_compiling: Callable[[], bool] = getattr(torch.compiler, 'is_compiling', lambda: False)


def max_elements(device: torch.device) -> int:
    """Size, in elements, from which recomputing an intermediate result is worthwhile on this device."""
    return MAX_ELEMENTS if device.type == 'cpu' else MAX_ELEMENTS_ON_GPU


def map_chunks(
    function: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], elements: int, chunk_always: bool
) -> Tensor:
    """``function(*tensors)`` in chunks of the first dimension, recomputed in the backward pass instead of stored.

    Args:
        function: maps tensors (n, ...) to a tensor (n, ...), independently along the first dimension.
        tensors: (n, ...) each.
        elements: size of the intermediate result for all n. Up to `max_elements` (or `MAX_ELEMENTS_IN_CACHE`) the
            function runs normally.
        chunk_always: use chunks without a gradient as well (False if ``function`` then does not need this memory).
    """
    with_gradient = torch.is_grad_enabled()
    first = next(tensor for tensor in tensors if tensor is not None)
    in_cache = first.device.type == 'cpu' and not with_gradient and not _is_compiling()
    limit = min(MAX_ELEMENTS_IN_CACHE, MAX_ELEMENTS) if in_cache else max_elements(first.device)
    if elements <= limit or not (with_gradient or chunk_always):
        return function(*tensors)
    step = max(1, len(first) * limit // elements)
    chunks = [
        [tensor[start : start + step] if tensor is not None else None for tensor in tensors]
        for start in range(0, len(first), step)
    ]
    if with_gradient:
        return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])
    output = None
    for start, chunk in zip(range(0, len(first), step), chunks, strict=True):
        part = function(*chunk)
        if output is None:  # written in place: concatenating would hold everything twice
            output = part.new_empty((len(first), *part.shape[1:]))
        output[start : start + step] = part
    assert output is not None
    return output


def linear_of_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, approximate: str = 'none') -> Tensor:
    """``F.linear(F.gelu(x), weight, bias)``, which stores only ``x`` for the backward pass and recomputes GELU there.

    GELU's output is as large as its input: in Video Swin the largest result of a block.
    """
    return _LinearOfGELU.apply(x, weight, bias, approximate)


class _LinearOfGELU(torch.autograd.Function):
    """On a CPU some rows at a time, so that GELU's result stays in the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, approximate: str) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.approximate, ctx.has_bias = approximate, bias is not None
        rows = x.flatten(0, -2)
        parts = [
            F.linear(F.gelu(part, approximate=approximate), weight, bias) for part in rows.split(_rows_at_once(rows))
        ]
        return torch.cat(parts).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)
        step = _rows_at_once(rows)
        # Under autocast the product had another dtype than the weight.
        grad_x, grad_weight = torch.empty_like(rows), torch.zeros_like(weight)
        for part, grad_part, target in zip(rows.split(step), grad_rows.split(step), grad_x.split(step), strict=True):
            hidden = F.gelu(part, approximate=ctx.approximate).to(grad.dtype)
            grad_weight += grad_part.t() @ hidden
            target.copy_(
                torch.ops.aten.gelu_backward(
                    grad_part @ weight.to(grad.dtype), part.to(grad.dtype), approximate=ctx.approximate
                )
            )
        return grad_x.view(x.shape), grad_weight, grad_rows.sum(0).to(weight.dtype) if ctx.has_bias else None, None


def _rows_at_once(rows: Tensor) -> int:
    if rows.device.type != 'cpu':
        return len(rows)
    return max(1, MAX_ELEMENTS_IN_CACHE // 8 // rows.shape[1])
