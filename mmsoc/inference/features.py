"""Storage for a video's mask features until its queries are chosen."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmsoc.utils.device import to_device, to_host


class FeatureStore(Protocol):
    """Mask features of a pass, stored chunk by chunk."""

    def append(self, features: Tensor) -> None:
        """Takes those of the next frames, (M*T, C, h, w)."""

    def __iter__(self) -> Iterator[Tensor]:
        """Yields them in order; can be read repeatedly."""

    def clear(self) -> None:
        """Forgets them."""


class FeaturesInMemory:
    """Keeps them unchanged, on their device."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []

    def append(self, features: Tensor) -> None:
        self._chunks.append(features)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._chunks)

    def clear(self) -> None:
        self._chunks.clear()


class FeaturesInFile:
    """Keeps them in a temporary file, in half precision: 0.2 MB per sentence and frame of 360x640 at the released
    sizes.

    A chunk that does not fit into float16 (above 65,504) is kept in float32.

    Args:
        folder: for the temporary file; the system's default if None.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix='mmsoc-stream-')  # noqa: SIM115 (open as long as the store)
        self._chunks: list[tuple[tuple[int, ...], np.dtype]] = []
        self._device = torch.device('cpu')

    def append(self, features: Tensor) -> None:
        self._device = features.device
        stored = to_host(features.half()).numpy()
        if not np.isfinite(stored).all():
            stored = to_host(features.float()).numpy()
        self._chunks.append((stored.shape, stored.dtype))
        self._file.seek(0, 2)
        stored.tofile(self._file)

    def __iter__(self) -> Iterator[Tensor]:
        position = 0
        for shape, dtype in self._chunks:
            self._file.seek(position)
            read = np.fromfile(self._file, dtype, int(np.prod(shape))).reshape(shape)
            position += read.nbytes
            yield to_device(torch.from_numpy(read), self._device).float()

    def clear(self) -> None:
        self._chunks.clear()
        self._file.seek(0)
        self._file.truncate()

    def close(self) -> None:
        """Removes the file."""
        self._file.close()
