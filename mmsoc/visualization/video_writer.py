import os
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path

_TIME_BASE = Fraction(1, 90000)  # of frames with times, as in MPEG


class VideoWriter:
    """Writes RGB frames to an H.264 MP4 (yuv420p, which every player shows)::

        with VideoWriter('out.mp4', fps=6) as video:
            for frame in frames:
                video.write(frame)

    The file appears under its name when the block ends without an error. For odd sizes the last row or column is
    repeated.

    Args:
        path: ends in .mp4, .mkv or .mov.
        fps: frames per second.
        crf: 0 (lossless) to 51; 18 looks like the original.

    Raises:
        ValueError: the suffix, ``fps``, a frame or its time is not as above, frames differ in size, or none was written.
        RuntimeError: PyAV, or its H.264 encoder, is missing.
    """

    def __init__(self, path: str | Path, *, fps: float | Fraction = 6, crf: int = 18) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in ('.mp4', '.mkv', '.mov'):
            raise UserError(f'a video must be named .mp4, .mkv or .mov, found {self.path}')
        if not fps > 0:
            raise UserError(f'fps must be positive, found {fps} ({self.path})')
        self.fps = Fraction(fps).limit_denominator(1001)
        self.crf = crf
        self._shape: tuple[int, ...] | None = None
        self._ticks = -1  # time of the last frame, if frames have times

    def __enter__(self) -> 'VideoWriter':
        try:
            import av
        except ImportError as error:
            raise RuntimeError(f'writing {self.path} needs PyAV: pip install av ({error})') from None
        self._av = av
        with ExitStack() as stack:
            self._temporary = stack.enter_context(atomic_path(self.path))
            self._container = stack.enter_context(av.open(os.fspath(self._temporary), 'w'))
            try:
                self._stream = self._container.add_stream('libx264', rate=self.fps)
            except Exception as error:
                raise RuntimeError(f'{self.path}: this build of PyAV has no H.264 encoder (libx264): {error}') from None
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray, time: float | Fraction | None = None) -> None:
        """Appends one frame.

        Args:
            frame: uint8 (H, W, 3), RGB.
            time: presentation time in seconds from the start, for videos of variable frame rate; then all frames need
                one, in ascending order. None: constant rate ``fps``.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UserError(f'{self.path}: a frame must be uint8 (H, W, 3), found {frame.dtype} {frame.shape}')
        height, width = frame.shape[:2]
        if self._shape is None:
            self._shape = frame.shape
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = 'yuv420p'
            self._stream.options = {'crf': str(self.crf)}
            if time is not None:
                self._stream.codec_context.time_base = _TIME_BASE
                # With B-frames, an MP4 with irregular times declares too short a duration.
                self._stream.options = {'crf': str(self.crf), 'bf': '0'}
        elif frame.shape != self._shape:
            raise UserError(
                f'{self.path}: the first frame is {self._shape[1]}x{self._shape[0]}, a later one {width}x{height}'
            )
        elif (time is None) != (self._ticks < 0):
            raise UserError(f'{self.path}: some frames have a time and some have none')
        # yuv420p stores one colour per 2x2 pixels
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        video_frame = self._av.VideoFrame.from_ndarray(even, format='rgb24')
        if time is not None:
            ticks = round(time / _TIME_BASE)
            if ticks <= self._ticks:
                raise UserError(
                    f'{self.path}: a frame at {float(time):.5f} s does not come after the one before, at '
                    f'{float(self._ticks * _TIME_BASE):.5f} s'
                )
            video_frame.pts, video_frame.time_base, self._ticks = ticks, _TIME_BASE, ticks
        self._mux(self._stream.encode(video_frame))

    def _mux(self, packets: Sequence) -> None:
        for packet in packets:
            if not packet.duration:  # otherwise the last frame would have no duration
                packet.duration = round(1 / self.fps / packet.time_base)
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                self._stack.__exit__(kind, error, trace)  # closes the container and removes the temporary file
                return
            if self._shape is None:
                raise UserError(f'{self.path}: no frame was written')
            self._mux(self._stream.encode())


def write_video(path: str | Path, frames: Sequence[np.ndarray], *, fps: float | Fraction = 6, crf: int = 18) -> None:
    """Writes RGB frames, uint8 (H, W, 3), to an H.264 video; smaller ones get a black margin at the bottom and right.

    Raises:
        ValueError, RuntimeError: as `VideoWriter`.
    """
    height = max((frame.shape[0] for frame in frames), default=0)
    width = max((frame.shape[1] for frame in frames), default=0)
    with VideoWriter(path, fps=fps, crf=crf) as video:
        for frame in frames:
            video.write(np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))))
