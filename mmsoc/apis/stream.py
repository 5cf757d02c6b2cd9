"""Prediction of a video of any length in bounded memory."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample, TrackDataSample
from torch import Tensor

from mmsoc.models import SOC
from mmsoc.models.soc import choose_queries, mask_threshold_logit
from mmsoc.structures import FrameQueries, Predictions, TextFeatures
from mmsoc.utils.device import to_device, to_host
from mmsoc.utils.errors import UserError


class StreamScores(NamedTuple):
    """What is known of E sentences when all T frames were seen; on the CPU."""

    scores: Tensor
    """(E,) float32 in [0, 1], of the chosen query: the mean of its frame scores."""
    frame_scores: Tensor
    """(E, T) float32 in [0, 1]"""
    queries: Tensor
    """(E, T) int64, the query of each frame: one and the same, unless ``test_cfg.query_per_frame``"""


class StreamPredictor:
    """Predicts as `SOC.predict` does, but takes the frames piece by piece and gives the masks piece by piece.

    Backbone, fusion and SIM's frame level run on chunks. The backbone also sees ``overlap`` frames on each side of a chunk, since
    its windows reach over time; what it says of them is dropped. Of each frame there remain the queries and references (for the
    released sizes 20 KB for each sentence) and, in a temporary file, the mask features (8 channels at stride 4 in half precision:
    0.2 MB for each sentence at 360x640). The cluster then sees the queries of all frames at once, a query is chosen once for the
    whole video (or, with ``test_cfg.query_per_frame``, for each frame), and masks are decoded from the file::

        with StreamPredictor(model, ['a red car'], frame_size=(360, 640), ori_shape=(720, 1280)) as stream:
            for frames in pieces:      # uint8 (t, 3, 360, 640), RGB
                stream.feed(frames)
            scores = stream.finish()
            for masks in stream.masks():   # bool (1, t, 720, 1280)
                ...

    Where a video fits into one chunk the result is that of ``predict``, but for the half precision.

    Args:
        model: in evaluation mode, on any device. ``test_cfg`` says which decoder layer predicts, how many frames run at once
            and where masks begin; ``frames_per_clip`` and ``all_queries`` have no meaning here and must be off.
        texts: E sentences.
        frame_size: (h, w) of the frames that are fed.
        ori_shape: (H, W) of the masks.
        chunk_frames: frames that run at once, without the overlap. Multiples of the backbone's window in time, Video Swin's 8,
            cut time where its windows do.
        overlap: frames on each side that the backbone sees besides; the same holds.
        folder: where the temporary file goes; the system's place by default.

    Raises:
        ValueError: no sentence, sizes that do not fit, or ``test_cfg`` as above.
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
    ) -> None:
        if not texts:
            raise UserError('StreamPredictor: texts is empty; expected at least one sentence')
        if chunk_frames < 1 or overlap < 0:
            raise UserError(
                'StreamPredictor: expected chunk_frames of at least 1 and overlap of at least 0, found '
                f'{chunk_frames} and {overlap}'
            )
        for key in ('frames_per_clip', 'all_queries'):
            if model.test_cfg[key]:
                raise UserError(
                    f'StreamPredictor: model.test_cfg.{key}={model.test_cfg[key]}, but a stream has one query for the '
                    'whole video and gives the masks of that alone; switch it off'
                )
        self.model = model
        self.texts = list(texts)
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        self.ori_shape = (int(ori_shape[0]), int(ori_shape[1]))
        self.chunk_frames = chunk_frames
        self.overlap = overlap
        self._waiting: list[Tensor] = []  # uint8 (3, h, w) each, from frame `_first` on
        self._first = 0
        self._done = 0  # frames that the frame level has seen
        self._at_once = model.sentences_at_once(chunk_frames)
        self._frame: list[list[FrameQueries]] = [
            [] for _ in range(0, len(self.texts), self._at_once)
        ]  # per pass, per chunk
        self._chosen: list[tuple[Tensor, Tensor]] = []  # per pass kernels (m, T, 1, P) and points (m, T, 1, 2)
        self._feature_shape: tuple[int, int, int] = (0, 0, 0)
        self._text: list[TextFeatures] = []
        self._file = tempfile.TemporaryFile(dir=folder, prefix='mmsoc-stream-')  # noqa: SIM115 (open as long as the stream)

    def __enter__(self) -> 'StreamPredictor':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the temporary file."""
        self._file.close()

    @property
    def num_frames(self) -> int:
        """How many frames were fed."""
        return self._first + len(self._waiting)

    def feed(self, frames: Tensor) -> None:
        """Takes the next frames.

        Args:
            frames: uint8 (t, 3, h, w), RGB, t >= 1.

        Raises:
            ValueError: another size than ``frame_size``, or after `finish`.
        """
        if self._chosen:
            raise UserError('StreamPredictor.feed: the stream was finished')
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, *self.frame_size) or not len(frames):
            raise UserError(
                f'StreamPredictor.feed: expected frames of shape (t, 3, {self.frame_size[0]}, {self.frame_size[1]}) with '
                f't >= 1, found {tuple(frames.shape)}'
            )
        self._waiting.extend(frames)
        while self.num_frames >= self._done + self.chunk_frames + self.overlap:
            self._run_chunk(self.chunk_frames)

    @torch.no_grad()
    def finish(self) -> StreamScores:
        """All frames were fed: the cluster runs, and each sentence's query is chosen.

        Raises:
            ValueError: nothing was fed, or it was called before.
        """
        if self._chosen or not self.num_frames:
            raise UserError('StreamPredictor.finish: ' + ('called twice' if self._chosen else 'no frame was fed'))
        while self._done < self.num_frames:
            self._run_chunk(min(self.chunk_frames, self.num_frames - self._done))
        self._waiting, self._first = [], self._done
        scores, queries = [], []
        for index, text in enumerate(self._text):
            chunks, self._frame[index] = self._frame[index], []
            prediction = self._integrate(_joined(chunks), text)
            query, score = choose_queries(prediction.logits, self.model.test_cfg['query_per_frame'])
            scores.append(score.cpu())
            queries.append(query.cpu())
            self._chosen.append(prediction.of_queries(query[..., None]))
        frame_scores = torch.cat(scores)
        return StreamScores(frame_scores.mean(1), frame_scores, torch.cat(queries))

    def masks(self) -> Iterator[Tensor]:
        """The masks of all frames in order, a chunk at a time: bool (E, t, H, W) on the CPU. May be called again.

        Raises:
            ValueError: before `finish`.
        """
        threshold = mask_threshold_logit(self.model.test_cfg['mask_threshold'])
        for logits in self.logits():
            found = torch.empty((*logits.shape[:2], *self.ori_shape), dtype=torch.bool, device=logits.device)
            for frame in range(logits.shape[1]):  # one by one: a frame may be large
                full = F.interpolate(logits[:, frame, None], size=self.ori_shape, mode='bilinear', align_corners=False)
                torch.gt(full[:, 0], threshold, out=found[:, frame])
            yield to_host(found)

    @torch.no_grad()
    def logits(self) -> Iterator[Tensor]:
        """The mask logits at stride 4, in order and a chunk at a time: float32 (E, t, h, w) on the model's device.

        Raises:
            ValueError: before `finish`.
        """
        if not self._chosen:
            raise UserError('StreamPredictor: the masks are known after finish()')
        position = 0
        for start in range(0, self._done, self.chunk_frames):
            stop = min(start + self.chunk_frames, self._done)
            logits = []
            for kernels, points in self._chosen:
                shape = len(kernels) * (stop - start), *self._feature_shape
                self._file.seek(position)
                read = np.fromfile(self._file, np.float16, int(np.prod(shape))).reshape(shape)
                position += read.nbytes
                features = to_device(torch.from_numpy(read), kernels.device).float()
                logits.append(
                    self.model.head.decode_masks(features, kernels[:, start:stop], points[:, start:stop])[:, :, 0]
                )
            yield torch.cat(logits)

    @torch.no_grad()
    def _run_chunk(self, count: int) -> None:
        """Backbone and frame level of the next ``count`` frames."""
        model = self.model
        begin = max(self._done - self.overlap, 0)
        end = min(self._done + count + self.overlap, self.num_frames)
        kept = range(self._done - begin, self._done - begin + count)
        with model.prediction_precision():
            self._run_frames(*self._batch(begin, end, kept))
        self._done += count
        first = max(self._done - self.overlap, 0)
        del self._waiting[: first - self._first]
        self._first = first

    def _run_frames(self, inputs: Tensor, samples: list[TrackDataSample]) -> None:
        model = self.model
        visual = model.extract_visual(inputs, samples)
        if not self._text:
            text = model.extract_text(self.texts)
            self._text = [
                text.of_sentences(start, start + self._at_once) for start in range(0, len(self.texts), self._at_once)
            ]
        for index, text in enumerate(self._text):
            of_pass = visual.of_sentences([0] * len(text.words))
            fused = model.fuse(of_pass, text, with_guidance=False)
            frame = model.aggregate(of_pass, fused)
            features = model.head.mask_features(frame.memory, of_pass.fine)
            channels, height, width = features.shape[1:]
            self._feature_shape = channels, height, width
            to_host(features.half()).numpy().tofile(self._file)
            self._frame[index].append(self._kept(frame))

    def _batch(self, begin: int, end: int, kept: range) -> tuple[Tensor, list[TrackDataSample]]:
        """The frames from begin to end as a batch of one clip, of which the frame level gets those in ``kept``."""
        frames = torch.stack(self._waiting[begin - self._first : end - self._first])
        meta = dict(img_shape=self.frame_size, ori_shape=self.ori_shape)
        sample = TrackDataSample(video_data_samples=[DetDataSample(metainfo=dict(meta)) for _ in frames])
        sample.set_metainfo(dict(texts=self.texts, key_frames_inds=list(kept)))
        batch = self.model.data_preprocessor(dict(inputs=[frames], data_samples=[sample]))
        return batch['inputs'], batch['data_samples']

    def _kept(self, frame: FrameQueries) -> FrameQueries:
        """Without the maps, and without the queries of decoder layers that nobody reads (they become empty)."""
        needed = self._layers()
        queries = tuple(layer if i in needed else layer[..., :0] for i, layer in enumerate(frame.queries))
        return frame._replace(memory=(), queries=queries)

    def _layers(self) -> tuple[int, int]:
        """The layer that predicts, and the one whose queries are clustered."""
        num_layers = self.model.sim.num_layers
        return self.model.test_cfg['predict_layer'] % num_layers, num_layers - 1

    def _integrate(self, frame: FrameQueries, text: TextFeatures) -> Predictions:
        layer, clustered = self._layers()
        height, width = self.frame_size
        image_sizes = to_device(
            torch.tensor([[width, height]] * len(text.words), dtype=torch.float32), text.sentence.device
        )
        with self.model.prediction_precision():
            objects = self.model.sim.integrate(frame, text.sentence, layers=[layer], video_layers=[clustered])
            return self.model.head(objects, frame, image_sizes).of_layer(0)


def _joined(chunks: Sequence[FrameQueries]) -> FrameQueries:
    """Chunks of one video, one behind the other."""
    return FrameQueries(
        memory=(),
        queries=tuple(torch.cat(layers, 1) for layers in zip(*(chunk.queries for chunk in chunks), strict=True)),
        initial_reference=torch.cat([chunk.initial_reference for chunk in chunks], 1),
        references=torch.cat([chunk.references for chunk in chunks], 2),
    )
