"""Dropout in a fraction of PyTorch's time on a CPU, where random numbers dominate."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A 64-bit draw decides four elements, so the probability is a multiple of 1/65,536.
_LEVELS = 2**16
# Elements processed at once: 4 MiB of float32, which stay in the cache between steps.
_AT_ONCE = 2**20


def _is_drawn_here(x: Tensor, p: float) -> bool:
    """Whether `_factors` applies: on a CPU, with p at least one level away from 0 and 1."""
    return x.device.type == 'cpu' and 0 < round((1 - p) * _LEVELS) < _LEVELS


def _factors(length: int, p: float, dtype: torch.dtype) -> Tensor:
    """(length,) on a CPU: 0 with probability p, else 1 / (1 - p)."""
    bits = torch.empty(-(-length // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:length]
    return (bits < round((1 - p) * _LEVELS) - _LEVELS // 2).to(dtype).mul_(1 / (1 - p))


class _DropoutFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        factors = _factors(x.numel(), p, x.dtype).view(x.shape)
        ctx.save_for_backward(factors)
        return x * factors

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return grad * factors, None


def dropout(x: Tensor, p: float) -> Tensor:
    """``F.dropout(x, p)``."""
    return _DropoutFunction.apply(x, p) if _is_drawn_here(x, p) else F.dropout(x, p)


class Dropout(nn.Dropout):
    """PyTorch's module, computed by `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else super().forward(x)


class _ReLUDropoutFunction(torch.autograd.Function):
    """In place: the input is a layer's output that nothing else reads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.mark_dirty(x)
        if _is_drawn_here(x, p) and x.is_contiguous():
            for part in x.view(-1).split(_AT_ONCE):
                part.relu_().mul_(_factors(len(part), p, x.dtype))
        else:
            F.dropout(x.relu_(), p, inplace=True)
        ctx.save_for_backward(x)
        ctx.scale = 1 / (1 - p)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        result = torch.empty_like(output, memory_format=torch.contiguous_format)
        step = _AT_ONCE if output.device.type == 'cpu' else output.numel()
        parts = (tensor.flatten().split(step) for tensor in (grad, output, result))
        for grad_part, output_part, target in zip(*parts, strict=True):
            torch.ops.aten.threshold_backward.grad_input(grad_part, output_part, 0, grad_input=target).mul_(ctx.scale)
        return result, None


class ReLUDropout(nn.Dropout):
    """``dropout(relu(x))`` with the same gradient, storing only its output for the backward pass.

    Where the output is not zero, x was positive and not dropped; elsewhere the gradient is zero in either case. PyTorch
    stores ReLU's output and, on a CPU, the dropout factors as well: 0.7 GB per encoder layer for a clip of 8 frames.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and 0 < self.p < 1:
            return _ReLUDropoutFunction.apply(x.clone() if x.is_leaf else x, self.p)
        return super().forward(x.relu() if x.is_leaf else x.relu_())
