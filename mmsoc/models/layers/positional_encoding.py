import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Number of clip sizes whose encodings are cached, 5 MB for 360x640.
MAX_KNOWN_SIZES = 16


def sine_positional_encoding_1d(
    pad_mask: Tensor | None, shape: Sequence[int], device: torch.device, temperature: float = 10000.0
) -> Tensor:
    """Sine encoding of positions in a sequence; padding is not counted.

    Args:
        pad_mask: (M, L) bool, True where a sequence was padded; None if none was.
        shape: (M, L, C), C even.
        device: device of the result.
        temperature: ratio of the longest to the shortest wavelength.

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


class MapPositions:
    """Two-dimensional encodings of feature maps, cached for each set of sizes without padding."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[Tensor, ...]] = {}

    def __call__(
        self, encoding: nn.Module, levels: Sequence[Tensor], pad_masks: Sequence[Tensor] | None
    ) -> tuple[Tensor, ...]:
        """
        Args:
            encoding: maps (B, h, w) bool, True where there is padding, to (B, C, h, w), e.g. ``mmdet.SinePositionalEncoding``.
            levels: maps (B*T, C, h_i, w_i).
            pad_masks: (B, h_i, w_i) each; None if no clip was padded.

        Returns:
            (B, C, h_i, w_i) for each level, (1, C, h_i, w_i) without ``pad_masks``.
        """
        if pad_masks is not None:
            return tuple(encoding(mask) for mask in pad_masks)

        def compute() -> tuple[Tensor, ...]:
            return tuple(encoding(level.new_zeros((1, *level.shape[-2:]), dtype=torch.bool)) for level in levels)

        if next(encoding.parameters(), None) is not None:  # learned
            return compute()
        key = (*(tuple(level.shape[-2:]) for level in levels), levels[0].device)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN_SIZES:
                self._known.clear()
            with torch.inference_mode(False), torch.no_grad():  # the cached tensors are used in training too
                self._known[key] = compute()
        return self._known[key]
