import math

import torch
from torch import Tensor


def sine_positional_encoding_1d(pad_mask: Tensor, num_feats: int, temperature: float = 10000.) -> Tensor:
    """Sine encoding of the words' positions; padded words do not count.

    Args:
        pad_mask (Tensor): (M, L) bool, True where there is no word.
        num_feats (int): C, even.
        temperature (float): ratio of the longest to the shortest wave length.

    Returns:
        Tensor: (M, L, C) float32; sines on even channels, cosines on odd ones.
    """
    position = (~pad_mask).cumsum(1, dtype=torch.float32)
    position = position / (position[:, -1:] + 1e-6) * 2 * math.pi
    channel = torch.arange(num_feats, dtype=torch.float32, device=pad_mask.device)
    wave = temperature**(2 * channel.div(2, rounding_mode='floor') / num_feats)
    angle = position[..., None] / wave
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)
