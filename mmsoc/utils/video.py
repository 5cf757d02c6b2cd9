"""Reading of videos by FFmpeg, through PyAV: files, and what else FFmpeg opens (devices, addresses, pipes)."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from os import PathLike, fspath
from types import TracebackType
from typing import IO, Any

import av
import numpy as np
from av import VideoFrame

from mmsoc.utils.errors import UserError

PYAV = f'PyAV {av.__version__}'

FAULTS = (av.FFmpegError, OSError)
"""of FFmpeg, and of a file object that it reads"""


class VideoError(UserError):
    """FFmpeg cannot open or decode a video.

    Attributes:
        reason (str): why, without the name of the source.
        detail (str): the same in FFmpeg's words, with its number and the name of the source, if they are known.
    """

    def __init__(self, source: str, reason: str, detail: str | None = None) -> None:
        super().__init__(f'{source} cannot be read as a video: {reason}')
        self.reason = reason
        self.detail = reason if detail is None else detail


class NoVideoStreamError(UserError):
    """What FFmpeg opened holds no video: music, for example, the picture on its cover aside."""


class VideoReader:
    """The frames of a video, decoded when they are asked for. Use it in a ``with`` block, which closes the video::

        with VideoReader('a.mp4') as video:
            for frame in video.frames():
                pixels = upright_pixels(frame)

    Args:
        source: a path, an address (``rtsp://...``), a device, or a file that is open for reading.
        format: FFmpeg's name of the container or device (``mpegts``, ``v4l2``, ...); None: FFmpeg finds out.
        options: of the demuxer or device, e.g. ``{'rtsp_transport': 'tcp'}``.
        frame_threads: decode several frames at a time. This is faster, but loses good frames before a broken one.

    Attributes:
        fps (Fraction | None): frames per second, the mean where they vary.
        duration (Fraction | None): seconds, as the container or the stream declares them.
        declared_frames (int): the number of frames, as the container declares it; 0: it does not.
        size (tuple[int, int]): height and width, before the frames are turned.
        discarded (int): packets so far that lie outside of the file's edit list; they are never shown.
        failed (int): packets so far that could not be read or decoded.
        corrupt (int): frames so far that the decoder calls damaged.
        broke_off (str | None): why the rest of the source could not be read.

    Raises:
        VideoError: it cannot be opened.
        NoVideoStreamError: it holds no video.
    """

    def __init__(
        self,
        source: str | PathLike | IO[bytes],
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        frame_threads: bool = False,
    ) -> None:
        self._source: Any = fspath(source) if isinstance(source, PathLike) else source
        self._name = str(getattr(source, 'name', source)) if hasattr(source, 'read') else str(self._source)
        self._format = format
        self._options = dict(options or {})
        self._frame_threads = frame_threads
        self.discarded = self.failed = self.corrupt = 0
        self.broke_off: str | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._container = av.open(self._source, format=self._format, options=self._options)
        except FAULTS as error:
            raise self._error(error) from None
        except ValueError as error:  # an unknown format
            raise VideoError(self._name, str(error)) from None
        # Music files carry their cover as a video stream of one image.
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = [stream.type for stream in self._container.streams]
            self._container.close()
            raise NoVideoStreamError(f'{self._name} holds no video, only the streams {kinds}')
        self._stream = streams[0]
        if self._frame_threads:
            self._stream.thread_type = 'AUTO'

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def _error(self, error: Exception) -> VideoError:
        return VideoError(self._name, _reason(error), str(error))

    @property
    def fps(self) -> Fraction | None:
        return self._stream.average_rate or self._stream.guessed_rate or None

    @property
    def guessed_fps(self) -> Fraction | None:
        """Frames per second by the stream's header, not by times, which a file may lack."""
        return self._stream.guessed_rate or None

    @property
    def duration(self) -> Fraction | None:
        if self._stream.duration:
            return self._stream.duration * self._stream.time_base
        text = self._stream.metadata.get('DURATION', '')  # Matroska, WebM
        found = re.fullmatch(r'(\d+):(\d+):(\d+(?:\.\d+)?)', text)
        if not found:
            return None
        hours, minutes, seconds = map(Fraction, found.groups())
        return 3600 * hours + 60 * minutes + seconds

    @property
    def declared_frames(self) -> int:
        return self._stream.frames

    @property
    def size(self) -> tuple[int, int]:
        return self._stream.height, self._stream.width

    def frames(self, *, skip_broken: bool = False) -> Iterator[VideoFrame]:
        """The frames from here to the end, in the order in which they are shown.

        Args:
            skip_broken: go on behind packets that cannot be decoded; the attributes count them.

        Raises:
            VideoError: one cannot be decoded.
        """
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FAULTS as error:
                if not skip_broken:
                    raise self._error(error) from None
                self.failed += 1
                self.broke_off = _reason(error)
                yield from self._decode(None, skip_broken)  # the decoder may still hold some
                return
            if packet is None:
                return
            self.discarded += packet.is_discard
            yield from self._decode(packet, skip_broken)

    def _decode(self, packet: Any, skip_broken: bool) -> Sequence[VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except EOFError:  # everything was taken before
            return []
        except FAULTS as error:
            if not skip_broken:
                raise self._error(error) from None
            self.failed += 1
            return []
        self.corrupt += sum(frame.is_corrupt for frame in frames)
        return frames

    def frame_times(self) -> list[int]:
        """When each frame is shown, in order, in units of the stream's time base. Decodes nothing, and leaves the video at its
        end.

        Raises:
            VideoError: the video cannot be read, or its frames are not told apart by their time.
        """
        try:
            packets = self._container.demux(self._stream)
            # The last packet is empty: it ends the stream. Those to discard are outside of the edit list, and never shown.
            times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except FAULTS as error:
            raise self._error(error) from None
        if None in times or len(set(times)) < len(times):
            raise VideoError(self._name, 'its frames are not told apart by their time')
        return sorted(times)

    def pixels_at(self, times: Collection[int]) -> dict[int, np.ndarray]:
        """The frames at some of the `frame_times`, and no more of the others decoded than must be.

        Returns:
            By time, uint8 (H, W, 3) RGB, not turned; without those that cannot be decoded or are damaged.

        Raises:
            VideoError: the video cannot be read.
        """
        wanted = set(times)
        self.seek(min(wanted))
        found = self._collect(wanted)
        if len(found) < len(wanted):
            # Where frames refer to a later key frame, a seek can land behind the wanted one.
            self.close()
            self._open()
            found = self._collect(wanted)
        return found

    def seek(self, time: int) -> None:
        """Goes to the last key frame that is not after ``time``, as far as the container knows.

        Raises:
            VideoError: the video cannot be read.
        """
        try:
            self._container.seek(time, stream=self._stream)
        except FAULTS as error:
            raise self._error(error) from None

    def _collect(self, wanted: set[int]) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        last = max(wanted)
        for frame in self.frames():
            if frame.pts in wanted and not frame.is_corrupt:
                found[frame.pts] = frame.to_ndarray(format='rgb24')
            if frame.pts >= last:
                break
        return found


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error)


def time_of(frame: VideoFrame) -> Fraction | None:
    """Seconds at which a frame is shown, by the clock of its stream; None: unknown."""
    return None if frame.pts is None else frame.pts * frame.time_base


def duration_of(frame: VideoFrame) -> Fraction:
    """Seconds for which a frame is shown; 0 where the video does not declare it."""
    return (frame.duration or 0) * frame.time_base


def rotation_of(frame: VideoFrame) -> float | None:
    """Degrees by which the video is marked as turned; None: this PyAV does not tell."""
    return getattr(frame, 'rotation', None)


def is_skew(frame: VideoFrame) -> bool:
    """Whether the mark to turn the video is not a multiple of 90 degrees."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return False
    a, b, c, d = matrix
    across, along = abs(b) + abs(c), abs(a) + abs(d)
    return min(across, along) > 0.01 * max(across, along)


def upright_pixels(frame: VideoFrame) -> np.ndarray:
    """A frame as players show it: uint8 (H, W, 3) RGB, mirrored and turned by the nearest multiple of 90 degrees, as its display
    matrix says.
    """
    pixels = frame.to_ndarray(format='rgb24')
    matrix = _display_matrix(frame)
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _display_matrix(frame: VideoFrame) -> tuple[float, float, float, float] | None:
    """a, b, c, d of x' = a x + c y, y' = b x + d y; None: there is none, or this PyAV does not tell."""
    if rotation_of(frame) is None:
        return None
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return None
    # Nine numbers, 16.16 fixed point; the rest of them moves the image, or is not used.
    a, b, _, c, d = (np.frombuffer(bytes(matrix), np.int32)[:5] / 65536).tolist()
    return a, b, c, d
