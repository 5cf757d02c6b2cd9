from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# 64 MiB of float32: what is smaller is not worth the second run.
MAX_ELEMENTS = 2**24
# On a GPU 512 MiB: each chunk costs its launches.
MAX_ELEMENTS_ON_GPU = 2**27
# On a CPU a chunk without a gradient costs nothing, and one of 16 MiB is still in the cache for the next step.
MAX_ELEMENTS_IN_CACHE = 2**22
# torch.compile writes out every chunk; where PyTorch does not say so, that takes it longer.
_is_compiling: Callable[[], bool] = getattr(torch.compiler, 'is_compiling', lambda: False)


def max_elements(device: torch.device) -> int:
    """Elements of an intermediate result that are worth a second run on this device."""
    return MAX_ELEMENTS if device.type == 'cpu' else MAX_ELEMENTS_ON_GPU


def map_chunks(
    function: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], elements: int, chunk_always: bool
) -> Tensor:
    """``function(*tensors)``, where that makes a large intermediate result: in chunks of the first dimension, and with a gradient
    each chunk is run again in the backward pass instead of being kept.

    Args:
        function: maps tensors (n, ...) to a tensor (n, ...), each entry of the first dimension on its own.
        tensors: (n, ...) each.
        elements: of the intermediate result, for all n. Up to `max_elements` (or `MAX_ELEMENTS_IN_CACHE`) nothing is done
            differently.
        chunk_always: in chunks without a gradient as well (False: where ``function`` itself needs no such memory then).
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
        if output is None:  # in place: joined in the end, all of it would be there twice
            output = part.new_empty((len(first), *part.shape[1:]))
        output[start : start + step] = part
    assert output is not None
    return output


def linear_of_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, approximate: str = 'none') -> Tensor:
    """``F.linear(F.gelu(x), weight, bias)``, which keeps ``x`` alone for the backward pass and computes GELU there again.

    What GELU gives is as large as what it takes: in Video Swin the largest result of a block.
    """
    return _LinearOfGELU.apply(x, weight, bias, approximate)


class _LinearOfGELU(torch.autograd.Function):
    """Some rows at a time on a CPU, whose result of GELU stays in the cache."""

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
        # Under autocast the product was of another type than the weight.
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
