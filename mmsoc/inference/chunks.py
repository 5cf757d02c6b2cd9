from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

import torch
from mmdet.structures import DetDataSample, TrackDataSample
from torch import Tensor

from mmsoc.structures import TextFeatures
from mmsoc.utils.device import to_host
from mmsoc.utils.errors import UserError

from .config import PredictionConfig
from .engine import Engine, check_finite
from .outputs import MaskSizes

if TYPE_CHECKING:
    from mmsoc.models import SOC


class Chunk(NamedTuple):
    """Frames that the backbone sees together."""

    frames: Tensor
    """uint8 (t, 3, h, w)"""
    kept: range
    """which of them are kept; the others were in an earlier chunk or will be in the next"""


class Chunks:
    """Cuts a stream of frames into chunks that overlap.

    The backbone's windows span several frames, so it also sees some frames on each side of a chunk; their features are
    dropped.

    Args:
        frame_size: (h, w).
        chunk_frames: frames of a chunk, without the overlap.
        before: frames of overlap before a chunk.
        after: frames of overlap after it. With 0 a chunk is ready as soon as its last frame arrives.
    """

    def __init__(self, frame_size: tuple[int, int], chunk_frames: int, before: int, after: int) -> None:
        if chunk_frames < 1 or min(before, after) < 0:
            raise UserError(
                'expected chunk_frames of at least 1 and overlap of at least 0, found '
                f'{chunk_frames} and {min(before, after)}'
            )
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        self.chunk_frames = chunk_frames
        self._before, self._after = before, after
        self._waiting: list[Tensor] = []  # uint8 (3, h, w) each, from frame `_first` on
        self._first = 0
        self._done = 0  # frames of the chunks so far

    @property
    def num_frames(self) -> int:
        """Number of frames received."""
        return self._first + len(self._waiting)

    def add(self, frames: Tensor) -> Iterator[Chunk]:
        """Takes the next frames, uint8 (t, 3, h, w) with t >= 1, and yields the chunks that are complete.

        Raises:
            UserError: frames of another shape.
        """
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, *self.frame_size) or not len(frames):
            raise UserError(
                f'expected frames of shape (t, 3, {self.frame_size[0]}, {self.frame_size[1]}) with t >= 1, '
                f'found {tuple(frames.shape)}'
            )
        self._waiting.extend(frames)
        while self.num_frames >= self._done + self.chunk_frames + self._after:
            yield self._next(self.chunk_frames)

    def rest(self) -> Iterator[Chunk]:
        """The remaining chunks, after the last frame."""
        while self._done < self.num_frames:
            yield self._next(min(self.chunk_frames, self.num_frames - self._done))
        self._waiting, self._first = [], self._done

    def _next(self, count: int) -> Chunk:
        begin = max(self._done - self._before, 0)
        end = min(self._done + count + self._after, self.num_frames)
        frames = torch.stack(self._waiting[begin - self._first : end - self._first])
        kept = range(self._done - begin, self._done - begin + count)
        self._done += count
        first = max(self._done - self._before, 0)
        del self._waiting[: first - self._first]
        self._first = first
        return Chunk(frames, kept)


class ChunkedPredictor(ABC):
    """Base of `StreamPredictor` and `LivePredictor`: frames arrive incrementally and go, chunk by chunk, into one
    engine per pass of sentences.

    Args:
        model: in evaluation mode, on any device.
        texts: E sentences.
        ori_shape: (H, W) of the masks.
        chunks: cuts the frames into chunks.
        config: how to predict; without ``frames_per_clip`` and with a selector of one query.

    Raises:
        UserError: no sentence, or ``config`` as above.
    """

    def __init__(
        self,
        model: SOC,
        texts: Sequence[str],
        ori_shape: tuple[int, int],
        chunks: Chunks,
        config: PredictionConfig | None,
    ) -> None:
        self.config = config or model.test_cfg
        _check_streamable(self.config)
        if not texts:
            raise UserError('texts is empty; expected at least one sentence')
        self.model = model
        self.texts = list(texts)
        self.ori_shape = (int(ori_shape[0]), int(ori_shape[1]))
        self._chunks = chunks
        at_once = self.config.sentences_at_once(chunks.chunk_frames)
        self._passes = [range(start, min(start + at_once, len(texts))) for start in range(0, len(texts), at_once)]
        self._engines: list[Engine] = []  # of each pass
        self._finished = False

    @property
    def chunk_frames(self) -> int:
        """Number of frames that run at once."""
        return self._chunks.chunk_frames

    @property
    def num_frames(self) -> int:
        """Number of frames fed."""
        return self._chunks.num_frames

    @abstractmethod
    def _make_engine(self, index: int, text: TextFeatures) -> Engine:
        """The engine of the pass with this index."""

    def _add(self, chunk: Chunk) -> None:
        """Runs the backbone once, and the frame level of each pass."""
        size = chunk.frames.shape[-2], chunk.frames.shape[-1]
        meta = dict(img_shape=size, ori_shape=self.ori_shape)
        sample = TrackDataSample(video_data_samples=[DetDataSample(metainfo=dict(meta)) for _ in chunk.frames])
        sample.set_metainfo(dict(texts=self.texts, key_frames_inds=list(chunk.kept)))
        batch = self.model.data_preprocessor(dict(inputs=[chunk.frames], data_samples=[sample]))
        with self._autocast():
            visual = self.model.extract_visual(**batch, backbone=self.config.backbone_of(self.model))
            if not self._engines:
                text = self.model.text_encoder(self.texts)
                self._engines = [
                    self._make_engine(index, text.of_sentences(of_pass.start, of_pass.stop))
                    for index, of_pass in enumerate(self._passes)
                ]
            for engine, of_pass in zip(self._engines, self._passes, strict=True):
                engine.add(visual.of_sentences([0] * len(of_pass)))

    def _select(self) -> tuple[Tensor, Tensor]:
        """Frame scores (E, T) and queries (E, T) of the frames since the last call, on the CPU.

        Raises:
            FloatingPointError: the scores are not finite.
        """
        with self._autocast():
            selections = [engine.select() for engine in self._engines]
        frame_scores = torch.cat([selection.scores[..., 0] for selection in selections]).cpu()
        queries = torch.cat([selection.queries[..., 0] for selection in selections]).cpu()
        check_finite(torch.isfinite(frame_scores).all(), 'scores')
        return frame_scores, queries

    def _logits(self) -> Iterator[Tensor]:
        """Mask logits (E, t, h, w) at stride 4 of the selected queries, a chunk at a time."""
        for of_chunk in zip(*(engine.logits() for engine in self._engines), strict=True):
            yield torch.cat(of_chunk)[:, :, 0]

    def _masks(self, logits: Tensor) -> Tensor:
        """Mask logits (E, t, h, w) -> bool (E, t, H, W) on the CPU.

        Raises:
            FloatingPointError: the logits are not finite.
        """
        check_finite(torch.isfinite(logits).all(), 'mask logits')
        sizes = MaskSizes(self._chunks.frame_size, self._chunks.frame_size, self.ori_shape)
        masks = self.config.output(logits.flatten(0, 1), sizes, rows_first=True).masks
        return to_host(masks.unflatten(0, logits.shape[:2]))

    def _autocast(self) -> AbstractContextManager[None]:
        return self.config.autocast(self.model.data_preprocessor.device)


def _check_streamable(config: PredictionConfig) -> None:
    """Raises UserError if a stream does not support the config."""
    if config.frames_per_clip:
        raise UserError(
            f'model.test_cfg.frames_per_clip={config.frames_per_clip}: a stream is one clip; set it to None'
        )
    if not config.selector.single:
        raise UserError(
            f'model.test_cfg.selector={type(config.selector).__name__}: a stream gives the masks of one query per frame; '
            'use QueryByLength, QueryPerVideo or QueryPerFrame'
        )
