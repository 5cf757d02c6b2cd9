from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from mmdet.structures import DetDataSample, TrackDataSample
from torch import Tensor

from mmsoc.structures import TextFeatures, VisualFeatures
from mmsoc.utils.errors import UserError

from .config import PredictionConfig

if TYPE_CHECKING:
    from mmsoc.models import SOC


class Chunk(NamedTuple):
    """Frames that the backbone sees together."""

    frames: Tensor
    """uint8 (t, 3, h, w)"""
    kept: range
    """which of them go on; the others were seen before, or will be in the next chunk"""


class Chunks:
    """Cuts a stream of frames into chunks that overlap.

    The backbone's windows reach over time, so it also sees some frames on each side of a chunk; what it makes of them is dropped.

    Args:
        frame_size: (h, w).
        chunk_frames: frames of a chunk, without the overlap.
        before: frames of overlap in front of a chunk.
        after: frames of overlap behind it. With 0 a chunk is ready as soon as its last frame is there.
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
        """How many frames came in."""
        return self._first + len(self._waiting)

    def add(self, frames: Tensor) -> Iterator[Chunk]:
        """Takes the next frames, uint8 (t, 3, h, w) with t >= 1, and gives the chunks that are complete.

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
        """The chunks that are left when no frame follows."""
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


class ChunkReader:
    """Runs text encoder and backbone for E sentences of a video that comes in chunks."""

    def __init__(self, model: SOC, config: PredictionConfig, texts: Sequence[str], at_once: int) -> None:
        if not texts:
            raise UserError('texts is empty; expected at least one sentence')
        self._model, self._config = model, config
        self.texts = list(texts)
        self.passes = [range(start, min(start + at_once, len(texts))) for start in range(0, len(texts), at_once)]
        """the sentences of each pass"""

    def text(self) -> list[TextFeatures]:
        """Of each pass."""
        text = self._model.text_encoder(self.texts)
        return [text.of_sentences(of_pass.start, of_pass.stop) for of_pass in self.passes]

    def visual(self, chunk: Chunk, ori_shape: tuple[int, int]) -> list[VisualFeatures]:
        """Of each pass; the backbone runs once."""
        size = chunk.frames.shape[-2], chunk.frames.shape[-1]
        meta = dict(img_shape=size, ori_shape=ori_shape)
        sample = TrackDataSample(video_data_samples=[DetDataSample(metainfo=dict(meta)) for _ in chunk.frames])
        sample.set_metainfo(dict(texts=self.texts, key_frames_inds=list(chunk.kept)))
        batch = self._model.data_preprocessor(dict(inputs=[chunk.frames], data_samples=[sample]))
        visual = self._model.extract_visual(
            batch['inputs'], batch['data_samples'], self._config.backbone_of(self._model)
        )
        return [visual.of_sentences([0] * len(of_pass)) for of_pass in self.passes]
