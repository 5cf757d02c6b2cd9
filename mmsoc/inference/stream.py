"""Prediction of a video of any length in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mmsoc.structures import TextFeatures
from mmsoc.utils.errors import UserError

from .chunks import ChunkedPredictor, Chunks
from .config import PredictionConfig
from .engine import Engine
from .features import FeaturesInFile

if TYPE_CHECKING:
    from mmsoc.models import SOC


class StreamScores(NamedTuple):
    """Results for E sentences once all T frames were seen; on the CPU."""

    scores: Tensor
    """(E,) float32 in [0, 1], of the chosen query: the mean of its frame scores"""
    frame_scores: Tensor
    """(E, T) float32 in [0, 1]"""
    queries: Tensor
    """(E, T) int64, the query of each frame; the same in all frames if one query was chosen for the video"""


class StreamPredictor(ChunkedPredictor):
    """Predicts like `predict_clips`, but takes the frames and returns the masks incrementally.

    Backbone, fusion and SIM's frame level run on chunks. Each frame leaves its queries and references in memory (20 KB
    per sentence at the released sizes) and its mask features in a temporary file (`FeaturesInFile`). The cluster then
    sees the queries of all frames at once, the config's selector chooses, and masks are decoded from the file::

        with StreamPredictor(model, ['a red car'], frame_size=(360, 640), ori_shape=(720, 1280)) as stream:
            for frames in pieces:      # uint8 (t, 3, 360, 640), RGB
                stream.feed(frames)
            scores = stream.finish()
            for masks in stream.masks():   # bool (1, t, 720, 1280)
                ...

    For a video that fits into one chunk the result is that of `predict_clips`, except for the half precision.
    `LivePredictor` returns the masks of a chunk before the next one arrives.

    Args:
        model: in evaluation mode, on any device.
        texts: E sentences.
        frame_size: (h, w) of the frames that are fed.
        ori_shape: (H, W) of the masks.
        chunk_frames: frames that run at once, without the overlap. Multiples of the backbone's temporal window (8 for
            Video Swin) align chunks with its windows.
        overlap: extra frames on each side that the backbone sees; multiples of the window are best as well.
        folder: for the temporary file; the system's default if None.
        config: how to predict, ``model.test_cfg`` by default; without ``frames_per_clip`` and with a selector of one query.

    Raises:
        UserError: no sentence, sizes that do not match, or ``config`` as above.
    """

    def __init__(
        self,
        model: SOC,
        texts: Sequence[str],
        *,
        frame_size: tuple[int, int],
        ori_shape: tuple[int, int],
        chunk_frames: int = 24,
        overlap: int = 8,
        folder: str | Path | None = None,
        config: PredictionConfig | None = None,
    ) -> None:
        super().__init__(model, texts, ori_shape, Chunks(frame_size, chunk_frames, overlap, overlap), config)
        self._stores = [FeaturesInFile(folder) for _ in self._passes]

    def __enter__(self) -> StreamPredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the temporary files."""
        for store in self._stores:
            store.close()

    @torch.no_grad()
    def feed(self, frames: Tensor) -> None:
        """Takes the next frames.

        Args:
            frames: uint8 (t, 3, h, w), RGB, t >= 1.

        Raises:
            UserError: frames of another size than ``frame_size``, or a call after `finish`.
        """
        if self._finished:
            raise UserError('StreamPredictor.feed: the stream was finished')
        for chunk in self._chunks.add(frames):
            self._add(chunk)

    @torch.no_grad()
    def finish(self) -> StreamScores:
        """Ends the input: runs the cluster and chooses each sentence's query.

        Raises:
            UserError: no frame was fed, or it was called before.
            FloatingPointError: the scores are not finite.
        """
        if self._finished or not self.num_frames:
            raise UserError('StreamPredictor.finish: ' + ('called twice' if self._finished else 'no frame was fed'))
        for chunk in self._chunks.rest():
            self._add(chunk)
        self._finished = True
        frame_scores, queries = self._select()
        return StreamScores(frame_scores.mean(1), frame_scores, queries)

    def masks(self) -> Iterator[Tensor]:
        """Yields the masks of all frames in order, chunk by chunk: bool (E, t, H, W) on the CPU. Can be called
        repeatedly.

        Raises:
            UserError: called before `finish`.
            FloatingPointError: the mask logits are not finite.
        """
        for logits in self.logits():
            yield self._masks(logits)

    @torch.no_grad()
    def logits(self) -> Iterator[Tensor]:
        """Yields the mask logits at stride 4 in order, chunk by chunk: float32 (E, t, h, w) on the model's device.

        Raises:
            UserError: called before `finish`.
        """
        if not self._finished:
            raise UserError('StreamPredictor: the masks are known after finish()')
        yield from self._logits()

    def _make_engine(self, index: int, text: TextFeatures) -> Engine:
        return Engine(self.model, text, self.config, self._stores[index])
