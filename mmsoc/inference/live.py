"""Prediction of a live source: masks leave before the next frames come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mmsoc.utils.errors import UserError

from .chunks import Chunk, ChunkReader, Chunks
from .config import PredictionConfig
from .engine import Engine, check_finite
from .selectors import Selection
from .stream import check_streamable, masks_of

if TYPE_CHECKING:
    from mmsoc.models import SOC


class LiveMasks(NamedTuple):
    """What is known of E sentences in the t frames of a chunk; on the CPU."""

    masks: Tensor
    """(E, t, H, W) bool"""
    frame_scores: Tensor
    """(E, t) float32 in [0, 1]"""
    queries: Tensor
    """(E, t) int64, whose mask it is"""


class LivePredictor:
    """Predicts as `StreamPredictor` does, but causally: the masks of a chunk leave as soon as that chunk has been seen.

    The cluster sees the frames so far that ``config.memory`` keeps, and a query is chosen by its scores in all of them: memory does
    not grow, and the object's identity carries over from chunk to chunk::

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
        chunk_frames: frames that run at once: more give the backbone's windows more context and more frames per second, fewer a
            shorter delay. The backbone's window in time by default.
        overlap: frames before a chunk that the backbone sees again.
        config: how to predict, ``model.test_cfg`` by default; without ``frames_per_clip`` and with a selector of one query.

    Raises:
        UserError: no sentence, sizes that do not fit, or ``config`` as above.
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
        self.config = config or model.test_cfg
        check_streamable(self.config)
        self._chunks = Chunks(frame_size, chunk_frames, before=overlap, after=0)
        self._reader = ChunkReader(model, self.config, texts, self.config.sentences_at_once(chunk_frames))
        self.model = model
        self.texts = self._reader.texts
        self.ori_shape = (int(ori_shape[0]), int(ori_shape[1]))
        self._engines: list[Engine] = []
        self._finished = False

    @property
    def chunk_frames(self) -> int:
        """Frames that run at once."""
        return self._chunks.chunk_frames

    @property
    def num_frames(self) -> int:
        """How many frames were fed."""
        return self._chunks.num_frames

    def feed(self, frames: Tensor) -> list[LiveMasks]:
        """Takes the next frames, uint8 (t, 3, h, w), RGB, and gives the masks of the chunks that are complete, often none.

        Raises:
            UserError: another size than ``frame_size``, or after `finish`.
            FloatingPointError: the predictions are not finite.
        """
        if self._finished:
            raise UserError('LivePredictor.feed: the source was finished')
        return [self._run(chunk) for chunk in self._chunks.add(frames)]

    def finish(self) -> list[LiveMasks]:
        """The masks of the frames that are left when the source ends.

        Raises:
            FloatingPointError: the predictions are not finite.
        """
        self._finished = True
        return [self._run(chunk) for chunk in self._chunks.rest()]

    @torch.no_grad()
    def _run(self, chunk: Chunk) -> LiveMasks:
        with self.config.autocast(self.model.data_preprocessor.device):
            visual = self._reader.visual(chunk, self.ori_shape)
            if not self._engines:
                self._engines = [Engine(self.model, text, self.config, causal=True) for text in self._reader.text()]
            selections: list[Selection] = []
            logits: list[Tensor] = []
            for engine, of_pass in zip(self._engines, visual, strict=True):
                engine.add(of_pass)
                selections.append(engine.select())
                logits.extend(of_chunk[:, :, 0] for of_chunk in engine.logits())
            masks = masks_of(torch.cat(logits), self.config, self._chunks.frame_size, self.ori_shape)
        frame_scores = torch.cat([selection.scores[..., 0] for selection in selections]).cpu()
        check_finite(torch.isfinite(frame_scores).all(), 'scores')
        return LiveMasks(masks, frame_scores, torch.cat([selection.queries[..., 0] for selection in selections]).cpu())
