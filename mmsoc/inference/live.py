"""Prediction of a live source: masks are returned before the next frames arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mmsoc.structures import TextFeatures
from mmsoc.utils.errors import UserError

from .chunks import Chunk, ChunkedPredictor, Chunks
from .config import PredictionConfig
from .engine import Engine

if TYPE_CHECKING:
    from mmsoc.models import SOC


class LiveMasks(NamedTuple):
    """Results for E sentences in the t frames of a chunk; on the CPU."""

    masks: Tensor
    """(E, t, H, W) bool"""
    frame_scores: Tensor
    """(E, t) float32 in [0, 1]"""
    queries: Tensor
    """(E, t) int64, the query of each mask"""


class LivePredictor(ChunkedPredictor):
    """Predicts like `StreamPredictor`, but causally: returns the masks of a chunk as soon as it has been seen.

    The cluster sees the frames so far that ``config.memory`` keeps, and a query is chosen by its scores in all frames
    so far: memory does not grow, and the object's identity carries over from chunk to chunk::

        live = LivePredictor(model, ['a red car'], frame_size=(360, 640), ori_shape=(720, 1280))
        for frames in source:                    # uint8 (t, 3, 360, 640), RGB
            for found in live.feed(frames):
                found.masks                      # bool (1, chunk_frames, 720, 1280)
        for found in live.finish():              # frames of a last, shorter chunk
            ...

    Args:
        model: in evaluation mode, on any device.
        texts: E sentences.
        frame_size: (h, w) of the frames that are fed.
        ori_shape: (H, W) of the masks.
        chunk_frames: frames that run at once: more give the backbone's windows more context and a higher throughput,
            fewer a lower latency. The backbone's temporal window by default.
        overlap: frames before a chunk that the backbone sees again.
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
        chunk_frames: int = 8,
        overlap: int = 8,
        config: PredictionConfig | None = None,
    ) -> None:
        super().__init__(model, texts, ori_shape, Chunks(frame_size, chunk_frames, before=overlap, after=0), config)

    def feed(self, frames: Tensor) -> list[LiveMasks]:
        """Takes the next frames, uint8 (t, 3, h, w), RGB, and yields the masks of the chunks that are complete, often
        none.

        Raises:
            UserError: frames of another size than ``frame_size``, or a call after `finish`.
            FloatingPointError: the predictions are not finite.
        """
        if self._finished:
            raise UserError('LivePredictor.feed: the source was finished')
        return [self._run(chunk) for chunk in self._chunks.add(frames)]

    def finish(self) -> list[LiveMasks]:
        """The masks of the remaining frames when the source ends.

        Raises:
            FloatingPointError: the predictions are not finite.
        """
        self._finished = True
        return [self._run(chunk) for chunk in self._chunks.rest()]

    @torch.no_grad()
    def _run(self, chunk: Chunk) -> LiveMasks:
        self._add(chunk)
        frame_scores, queries = self._select()
        (logits,) = self._logits()
        return LiveMasks(self._masks(logits), frame_scores, queries)

    def _make_engine(self, index: int, text: TextFeatures) -> Engine:
        return Engine(self.model, text, self.config, causal=True)
