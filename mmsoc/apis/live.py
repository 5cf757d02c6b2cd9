"""From a camera, a network stream or a pipe to masks, as the frames come."""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from mmsoc.inference import LivePredictor
from mmsoc.inference.live import LiveMasks
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import clean_text, dump_json
from mmsoc.utils.masks import box_of_mask
from mmsoc.utils.video import VideoError, VideoReader, upright_pixels
from mmsoc.visualization import VideoWriter

from .inferencer import SOCInferencer, check_texts
from .results import DEFAULT_FPS, MASKS, SCORES, VIDEO, check_out_dir, mask_folders, versions, write_mask
from .video_io import FrameSource, WorkerPool

FRAMES = 'frames.jsonl'
"""one line per frame, as it comes"""


class LiveFrame(NamedTuple):
    """A frame and when it came."""

    number: int
    """of all frames of the source; those that were dropped count"""
    image: np.ndarray
    """uint8 (H, W, 3), RGB, upright"""
    arrival: float
    """seconds of `time.monotonic`"""


class LiveSource(FrameSource):
    """Frames of a source that has no end and can be read once.

    A device or a network stream does not wait: a thread reads it, and when more than ``backlog`` frames wait, the oldest are
    dropped and counted. A pipe waits, so that few frames are read ahead and nothing is dropped.

    Args:
        address: a camera's number (``0`` is ``/dev/video0``), ``/dev/video0``, an address with ``://`` (rtsp, http, udp, ...),
            ``-`` for standard input, or the path of a named pipe or file.
        container_format: FFmpeg's name of the format where it cannot be told from the data, e.g. ``mpegts``.
        options: FFmpeg's, e.g. ``{'video_size': '640x480', 'framerate': '15', 'rtsp_transport': 'tcp'}``.
        backlog: how many frames of a device or a network stream may wait.

    Raises:
        UserError: it cannot be opened, or no frame comes.
    """

    kind = 'live'

    def __init__(
        self,
        address: str,
        container_format: str | None = None,
        options: dict[str, str] | None = None,
        backlog: int = 32,
    ) -> None:
        self.path = address
        is_device = address.isdecimal() or address.startswith('/dev/video')
        self.waits = not is_device and '://' not in address
        """whether the source waits for its reader"""
        self.dropped = 0
        """frames that were dropped, since the network was slower"""
        self.end: str | None = None
        """why the source ended"""
        self._backlog = 4 if self.waits else backlog
        self._waiting: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._closed = False
        file: Any = f'/dev/video{address}' if address.isdecimal() else address
        if is_device and container_format is None:
            container_format = 'v4l2'
        try:
            self._video = VideoReader(
                sys.stdin.buffer if address == '-' else file, format=container_format, options=options
            )
        except VideoError as error:
            raise UserError(
                f'live source {address} cannot be opened ({error.reason}); expected the number of a camera, an address such as '
                'rtsp://HOST/PATH, a named pipe, or - for standard input'
            ) from None
        self.fps = self._video.fps
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            self._video.close()
            raise UserError(f'live source {address}: no frame came ({self.end})')
        self.size = first.image.shape[:2]
        self._waiting.append(first)
        threading.Thread(target=self._read, daemon=True, name='mmsoc-live').start()

    @property
    def broken(self) -> int:
        """Packets that could not be decoded, and frames that the decoder calls damaged."""
        return self._video.failed + self._video.corrupt

    def name(self, index: int) -> str:
        return f'{index:08d}'

    def frames(self) -> Iterator[LiveFrame]:
        """The frames as they come, until the source ends or `close` is called."""
        while True:
            with self._changed:
                while not self._waiting and self.end is None and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                frame = self._waiting.popleft()
                self._changed.notify_all()
            yield frame

    def read(self) -> Iterator[np.ndarray]:
        return (frame.image for frame in self.frames())

    def close(self, reason: str = 'closed') -> None:
        """Stops reading; frames that wait can still be taken.

        Args:
            reason: becomes ``end``, unless the source has ended.
        """
        with self._changed:
            self._closed = True
            self.end = self.end or reason
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for frame in self._decoded:
                with self._changed:
                    while self.waits and len(self._waiting) >= self._backlog and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        break
                    if len(self._waiting) >= self._backlog:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._waiting.append(frame)
                    self._changed.notify_all()
        except Exception as error:  # its reader must not wait for ever
            self.end = f'{type(error).__name__}: {error}'
        finally:
            self.close()
            self._video.close()

    def _decode(self) -> Iterator[LiveFrame]:
        """Frames until the source ends, which sets ``end``. Packets that cannot be decoded are counted and left out."""
        size = None
        for count, frame in enumerate(self._video.frames(skip_broken=True)):
            image = upright_pixels(frame)
            size = size or image.shape[:2]
            if image.shape[:2] != size:
                height, width = image.shape[:2]
                self.end = f'frame {count} is {width}x{height}, those before are {size[1]}x{size[0]}'
                return
            yield LiveFrame(count, image, time.monotonic())
        self.end = f'broken off ({self._video.broke_off})' if self._video.broke_off else 'end of the stream'


class LiveReport(NamedTuple):
    """What is known of a chunk when its masks have left."""

    frames: range
    latency: float
    """seconds from the arrival of its last frame to its masks"""
    fps: float
    """frames per second of the run so far"""
    scores: list[float]
    """of each sentence, the mean over the chunk"""
    dropped: int
    """frames of the run so far"""


def run_live(
    inferencer: SOCInferencer,
    source: LiveSource,
    texts: str | Sequence[str],
    out_dir: str | Path,
    *,
    chunk_frames: int = 8,
    overlap: int = 8,
    score_threshold: float = 0.0,
    overlay: bool = True,
    max_frames: int | None = None,
    report: Callable[[LiveReport], None] = lambda found: None,
) -> dict[str, Any]:
    """Segments what each sentence names in a live source, and writes the masks of each chunk before it reads the next.

    Memory does not grow with the number of frames. ``out_dir`` gets ``masks/NUMBER_SENTENCE/00000000.png`` and lines of
    ``frames.jsonl`` as frames come, and in the end ``overlay.mp4`` and ``scores.json``; what was written is whole however the
    source ends.

    Args:
        inferencer: holds the model.
        source: is read to its end.
        texts: E sentences, or one.
        out_dir: must be empty.
        chunk_frames, overlap: see `LivePredictor`.
        score_threshold: in a frame in which a sentence has a lower score, its mask is empty.
        overlay: whether ``overlay.mp4`` is written.
        max_frames: stop after so many frames; None: when the source ends.
        report: is called for each chunk.

    Returns:
        ``num_frames``, ``dropped``, ``broken``, ``end`` (why it ended), ``fps``, ``latency`` (mean seconds), and ``sentences`` with
        ``text``, ``score`` (the mean over the frames) and ``mask_folder``; what ``scores.json`` holds.

    Raises:
        UserError: an empty or too long sentence, or an ``out_dir`` that is in use.
        FloatingPointError: the predictions are not finite.
    """
    sentences = check_texts(texts)
    seen_texts = [clean_text(text, 'texts') for text in sentences]
    check_out_dir(out_dir, overwrite=False)
    out = Path(out_dir)
    with inferencer.scope():
        inferencer.check_language(seen_texts)
        with _Run(inferencer, source, sentences, out, overlay) as run:
            live: LivePredictor | None = None
            for frames in _chunks(source, chunk_frames, max_frames):
                packed = run.packed(frames, seen_texts)
                if live is None:
                    live = LivePredictor(
                        inferencer.model,
                        seen_texts,
                        frame_size=(packed.shape[-2], packed.shape[-1]),
                        ori_shape=source.size,
                        chunk_frames=chunk_frames,
                        overlap=overlap,
                        config=replace(inferencer.prediction, frames_per_clip=None),
                    )
                (found,) = live.feed(packed) if len(frames) == chunk_frames else [*live.feed(packed), *live.finish()]
                found.masks[found.frame_scores < score_threshold] = False
                report(run.write(frames, found))
    return run.summary()


def _chunks(source: LiveSource, chunk_frames: int, max_frames: int | None) -> Iterator[list[LiveFrame]]:
    """The frames of the source, ``chunk_frames`` at a time; the last ones may be fewer."""
    chunk: list[LiveFrame] = []
    for count, frame in enumerate(source.frames(), 1):
        chunk.append(frame)
        if count == max_frames:
            source.close(f'{count} frames were asked for')
            break
        if len(chunk) == chunk_frames:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Run:
    """The files and figures of a live run."""

    def __init__(
        self, inferencer: SOCInferencer, source: LiveSource, sentences: Sequence[str], out: Path, overlay: bool
    ) -> None:
        self.inferencer, self.source, self.sentences, self.out = inferencer, source, sentences, out
        self._folders = [f'{MASKS}/{name}' for name in mask_folders(sentences)]
        self._overlay = overlay
        self._stack = ExitStack()
        self._video: VideoWriter | None = None
        self._totals = [0.0] * len(sentences)
        self._num_frames = self._num_chunks = 0
        self._latency = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> '_Run':
        for folder in self._folders:
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        self._lines = self._stack.enter_context(open(self.out / FRAMES, 'w', encoding='utf-8'))
        self._pool = self._stack.enter_context(WorkerPool(2, pending=32))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.source.close('interrupted' if isinstance(error, KeyboardInterrupt) else 'closed')
        # The overlay is closed as after a run that went well: its frames are whole.
        self._stack.close()
        if self._num_frames:
            dump_json(self.summary(), self.out / SCORES, indent=1, ensure_ascii=False)

    def packed(self, frames: Sequence[LiveFrame], texts: Sequence[str]) -> Tensor:
        """At the network's size, uint8 (t, 3, h, w)."""
        images = [frame.image for frame in frames]
        return self.inferencer.pipeline(self.source, images, frames[0].number, texts)['inputs']

    def write(self, frames: Sequence[LiveFrame], found: LiveMasks) -> LiveReport:
        """Writes what was found in a chunk."""
        latency = time.monotonic() - frames[-1].arrival
        self._write(frames, found, latency)
        self._num_frames += len(frames)
        self._num_chunks += 1
        self._latency += latency
        scores = found.frame_scores.mean(1).tolist()
        self._totals = [total + score * len(frames) for total, score in zip(self._totals, scores, strict=True)]
        indices = range(frames[0].number, frames[-1].number + 1)
        return LiveReport(indices, latency, self._fps(), scores, self.source.dropped)

    def summary(self) -> dict[str, Any]:
        """What ``scores.json`` holds."""
        inferencer, source = self.inferencer, self.source
        return dict(
            source=source.path,
            width=source.size[1],
            height=source.size[0],
            num_frames=self._num_frames,
            dropped=source.dropped,
            broken=source.broken,
            end=source.end,
            fps=round(self._fps(), 3),
            latency=round(self._latency / max(self._num_chunks, 1), 4),
            config=inferencer.loaded.config,
            weights=inferencer.weights,
            device=str(next(inferencer.model.parameters()).device),
            versions=versions(),
            sentences=[
                dict(text=text, score=round(total / max(self._num_frames, 1), 6), mask_folder=folder)
                for text, total, folder in zip(self.sentences, self._totals, self._folders, strict=True)
            ],
        )

    def _fps(self) -> float:
        return self._num_frames / max(time.monotonic() - self._started, 1e-9)

    def _write(self, frames: Sequence[LiveFrame], chunk: LiveMasks, latency: float) -> None:
        masks, scores = chunk.masks.numpy(), chunk.frame_scores
        if self._overlay and self._video is None:
            fps = self.source.fps or Fraction(DEFAULT_FPS)
            self._video = self._stack.enter_context(VideoWriter(self.out / VIDEO, fps=fps))
        for t, frame in enumerate(frames):
            for folder, mask in zip(self._folders, masks[:, t], strict=True):
                self._pool.submit(write_mask, self.out / folder / f'{self.source.name(frame.number)}.png', mask)
            if self._video is not None:
                captions = [f'{text}  ({score:.2f})' for text, score in zip(self.sentences, scores[:, t].tolist())]
                self._video.write(self.inferencer.visualizer.draw_sentences(frame.image, masks[:, t], captions))
            boxes = [box_of_mask(mask).astype(int).tolist() if mask.any() else None for mask in masks[:, t]]
            line = dict(
                frame=frame.number,
                scores=[round(score, 6) for score in scores[:, t].tolist()],
                boxes=boxes,
                latency=round(latency, 4),
            )
            self._lines.write(json.dumps(line) + '\n')
        self._lines.flush()


def print_report(found: LiveReport) -> None:
    """One line per chunk."""
    dropped = f', {found.dropped} dropped' if found.dropped else ''
    print(
        f'frames {found.frames.start} to {found.frames.stop - 1}: latency {1000 * found.latency:.0f} ms, '
        f'{found.fps:.1f} frames per second{dropped}, scores {" ".join(f"{score:.2f}" for score in found.scores)}',
        flush=True,
    )
