"""TensorFloat-32, the 10-bit mantissa in which Ampere and newer GPUs multiply float32 matrices faster."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def set_tf32(enabled: bool) -> None:
    """Allow TF32 in matrix products and convolutions, or in neither.

    PyTorch has a flag for each, by default on for convolutions: float32 has full precision only with both off. They
    have no effect on a CPU.
    """
    # Not `torch.backends.fp32_precision`: the flags are what other libraries read, and PyTorch refuses a mixture of the two.
    torch.backends.cuda.matmul.allow_tf32 = enabled
    torch.backends.cudnn.allow_tf32 = enabled


@contextmanager
def use_tf32(enabled: bool) -> Iterator[None]:
    """`set_tf32` within a ``with`` block, which restores both flags."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_tf32(enabled)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
