import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sine_positional_encoding_1d(
    pad_mask: Tensor | None, shape: Sequence[int], device: torch.device, temperature: float = 10000.0
) -> Tensor:
    """Sine encoding of positions in a sequence; padding does not count.

    Args:
        pad_mask: (M, L) bool, True where a sequence was padded; None if none was.
        shape: (M, L, C), C even.
        device: of the result.
        temperature: ratio of the longest to the shortest wave length.

    Returns:
        (M, L, C) float32, (1, L, C) without ``pad_mask``; sines on even channels, cosines on odd ones.
    """
    _, length, channels = shape
    if pad_mask is None:
        position = (
            torch.arange(1, length + 1, dtype=torch.float32, device=device)[None] / (length + 1e-6) * (2 * math.pi)
        )
    else:
        position = (~pad_mask).cumsum(1, dtype=torch.float32)
        position = position / (position[:, -1:] + 1e-6) * 2 * math.pi
    channel = torch.arange(channels, dtype=torch.float32, device=device)
    wave = temperature ** (2 * channel.div(2, rounding_mode='floor') / channels)
    angle = position[..., None] / wave
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)
