"""Frames of a user's input (a video file, a folder of images, an image, an array), and threads that read and write."""

import os
import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from logging import WARNING
from pathlib import Path
from queue import Full, Queue
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from mmengine.logging import print_log
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import listed, read_frame
from mmsoc.utils.video import (
    PYAV,
    VideoError,
    VideoFrame,
    VideoReader,
    duration_of,
    is_skew,
    rotation_of,
    time_of,
    upright_pixels,
)

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png')

Item = TypeVar('Item')


class FrameSource(ABC):
    """Frames of one size, in order; they can be read more than once and are not kept in memory.

    Attributes:
        kind (str): 'video', 'folder', 'image' or 'array'.
        path (str | None): of the file or folder.
        size (tuple[int, int]): height and width, upright.
        fps (Fraction | None): frames per second; None: unknown.
        length (int | None): number of frames, if known before they are read.
        times (list[Fraction] | None): presentation time of each frame in seconds, relative to the first; only for
            videos of variable frame rate, and known once all frames were read.
    """

    kind: str
    path: str | None = None
    size: tuple[int, int]
    fps: Fraction | None = None
    length: int | None = None
    times: list[Fraction] | None = None

    @abstractmethod
    def read(self) -> Iterator[np.ndarray]:
        """The frames, uint8 (H, W, 3), RGB, upright."""

    def name(self, index: int) -> str:
        """The name of the frame with this 0-based index."""
        return f'{index:05d}'

    def file_name(self, index: int) -> str:
        """The name of the frame's image: of the file it was read from, else that which unpacking a video gives it."""
        return f'{self.name(index)}.jpg'


def open_frames(source: Any, fps: float | None = None) -> FrameSource:
    """Opens ``source`` as frames, whatever its kind.

    Args:
        source: path of a video file that FFmpeg can read, of a folder of jpg or png images (sorted by name, numbers by
            value: 2 before 10), or of one image; or RGB pixels, uint8: an image (H, W, 3), or frames, (T, H, W, 3) or a
            list of (H, W, 3); or a source that this function returned.
        fps: frames per second of a source that has no frame rate, a folder or an array.

    Raises:
        FileNotFoundError: there is no such file or folder, or no image in the folder.
        ValueError: it is neither a video nor an image, not a single frame can be decoded, images differ in size, or an
            array is of another shape or type.
    """
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if os.path.isdir(path):
            return _Folder(path, fps)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'there is no file or folder {path} (looked in {os.getcwd()})')
        if fps is not None:
            raise UserError(f'{path}: fps is for folders and arrays; a video has its own')
        return _Image(path) if _is_image(path) else _Video(path)
    return _Array(source, fps)


class _Video(FrameSource):
    kind = 'video'

    def __init__(self, path: str) -> None:
        self.path = path
        self._count: int | None = None  # known once it was read to its end
        try:
            with VideoReader(path) as video:
                # The mean if the rate varies.
                self.fps = video.fps
                if video.declared_frames:
                    self.length = video.declared_frames
                elif video.duration is not None and self.fps is not None:
                    self.length = max(round(video.duration * self.fps), 1)
                first = next(video.frames(skip_broken=True), None)
        except VideoError as error:
            raise UserError(
                f'{path} cannot be read as a video ({error.reason}); expected a video file, an image or a folder of '
                'images. Where the file is incomplete, its index, which some programs write last, may be missing'
            ) from None
        if first is None:
            raise UserError(f'{path}: not a single frame can be decoded; does a player show it?')
        self.size = upright(first, path).shape[:2]

    def read(self) -> Iterator[np.ndarray]:
        assert self.path is not None
        count, times = 0, []
        with VideoReader(self.path) as video:
            end = Fraction(0)
            for frame in video.frames(skip_broken=True):
                pixels = upright(frame, self.path)
                if pixels.shape[:2] != self.size:
                    raise UserError(
                        f'{self.path}: frame {count} is {_wxh(pixels.shape)}, but the first one is {_wxh(self.size)}; expected '
                        'one size in the whole video'
                    )
                time = time_of(frame)
                if time is not None:
                    times.append(time)
                    end = time + duration_of(frame)
                yield pixels
                count += 1
            if self._count is None:
                self._count = count
                self._tell_faults(video, count, end - (times[0] if times else 0))
                self.length = count
                if len(times) == count:
                    self._set_times([time - times[0] for time in times])
                elif video.guessed_fps:
                    self.fps = video.guessed_fps  # the average is computed from times, which this file lacks
            elif count != self._count:
                raise RuntimeError(
                    f'{self.path}: {self._count} frames were read at first, and {count} now; did it change?'
                )

    def _tell_faults(self, video: VideoReader, count: int, seconds: Fraction) -> None:
        """Warns if fewer frames could be decoded than the file declares."""
        promised = ''
        if video.declared_frames:
            expected = video.declared_frames - video.discarded
            promised = f'{expected}' if expected > count else ''
        elif (
            video.duration is not None
            and self.fps is not None
            and video.duration - seconds > max(Fraction(1, 2), 2 / self.fps)
        ):
            promised = f'about {round(video.duration * self.fps)}'
        if promised or video.failed:
            where = f'{self.path}: {count} frames of {promised or "an unknown number"} could be decoded; the others are left out'
            print_log(f'{where}. Is the file truncated or damaged?', logger='current', level=WARNING)
        if video.corrupt:
            print_log(
                f'{self.path}: {video.corrupt} of the {count} frames are damaged, and are used as they are',
                logger='current',
                level=WARNING,
            )

    def _set_times(self, times: list[Fraction]) -> None:
        increasing = all(earlier < later for earlier, later in zip(times, times[1:]))
        if not increasing or len(times) < 2:
            return
        if self.fps is None:
            self.fps = Fraction(len(times) - 1) / times[-1]
        # Containers round times (Matroska to milliseconds); a missing or duplicated frame shifts them by half a frame.
        if any(abs(time * self.fps - index) > 0.5 for index, time in enumerate(times)):
            self.times = times


def upright(frame: VideoFrame, path: str) -> np.ndarray:
    """A frame as players show it: uint8 (H, W, 3), rotated and mirrored by the file's display matrix.

    If the orientation is uncertain, this is logged once, with ``path``.
    """
    degrees = rotation_of(frame)
    if degrees is None:
        _warn_once(f'{PYAV} does not tell how videos are turned; those of telephones may lie: pip install -U av')
    elif is_skew(frame):
        _warn_once(f'{path}: marked as turned by {degrees} degrees; it is turned by the nearest multiple of 90')
    return upright_pixels(frame)


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        print_log(message, logger='current', level=WARNING)


class _Folder(FrameSource):
    kind = 'folder'

    def __init__(self, path: str, fps: float | None) -> None:
        self.path = path
        self.fps = _fraction(fps)
        names = sorted((name for name in os.listdir(path) if not name.startswith('.')), key=_natural)
        self._files = [os.path.join(path, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        if not self._files:
            raise FileNotFoundError(
                f'the folder {path} holds no images ({", ".join(IMAGE_SUFFIXES)}); it holds {listed(names) or "nothing"}'
            )
        if len(self._files) < len(names):
            others = [name for name in names if os.path.join(path, name) not in set(self._files)]
            print_log(
                f'{path}: {len(others)} entries are no images and are left out: {listed(others)}', logger='current'
            )
        self._names = [Path(file).stem for file in self._files]
        seen: dict[str, str] = {}
        for name, file in zip(self._names, self._files):
            if seen.setdefault(name, file) != file:
                raise UserError(f'{seen[name]} and {file} would have masks of the same name; expected different names')
        self.length = len(self._files)
        self.size = _image_size(self._files[0])
        for file in self._files:  # before hours are spent; reads only the files' first bytes
            size = _image_size(file)
            if size != self.size:
                raise UserError(
                    f'{file} is {_wxh(size)}, but {self._files[0]} is {_wxh(self.size)}; expected images of one size, the '
                    'frames of one video'
                )

    def read(self) -> Iterator[np.ndarray]:
        for file in self._files:
            yield read_image(file)

    def name(self, index: int) -> str:
        return self._names[index]

    def file_name(self, index: int) -> str:
        return os.path.basename(self._files[index])


class _Image(FrameSource):
    kind = 'image'
    length = 1

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = _image_size(path)

    def file_name(self, index: int) -> str:
        return os.path.basename(os.fspath(self.path or ''))

    def read(self) -> Iterator[np.ndarray]:
        assert self.path is not None
        yield read_image(self.path)


class _Array(FrameSource):
    def __init__(self, pixels: Any, fps: float | None) -> None:
        expected = 'expected a path, an image (H, W, 3) or frames (T, H, W, 3), RGB, uint8'
        if isinstance(pixels, list | tuple):
            frames = [np.asarray(frame) for frame in pixels]
            shapes = list(dict.fromkeys(frame.shape for frame in frames))
            if len(shapes) > 1:
                raise UserError(f'{expected}; found a list of arrays that differ in shape: {listed(shapes)}')
        elif isinstance(pixels, np.ndarray) and pixels.ndim == 3:
            frames = [pixels]
        elif isinstance(pixels, np.ndarray):
            frames = list(pixels) if pixels.ndim else []
        else:
            raise UserError(f'{expected}; found {type(pixels).__name__}')
        if not frames or min(frames[0].shape, default=0) == 0:
            raise UserError(f'{expected}; found no pixels')
        if frames[0].ndim != 3 or frames[0].shape[2] != 3 or any(frame.dtype != np.uint8 for frame in frames):
            found = [f'{frame.dtype} {frame.shape}' for frame in frames if frame.dtype != np.uint8] or frames[0].shape
            raise UserError(f'{expected}; found {len(frames)} of {found if isinstance(found, tuple) else found[0]}')
        self.kind = 'image' if isinstance(pixels, np.ndarray) and pixels.ndim == 3 else 'array'
        self.fps = None if self.kind == 'image' else _fraction(fps)
        self.length = len(frames)
        self.size = frames[0].shape[:2]
        self._frames = frames

    def read(self) -> Iterator[np.ndarray]:
        return iter(self._frames)


def _is_image(path: str) -> bool:
    """Whether Pillow takes it for a single image; animations are videos."""
    try:
        with Image.open(path) as image:
            return not (image.format in ('GIF', 'PNG', 'WEBP') and getattr(image, 'is_animated', False))
    except Image.DecompressionBombError:
        return True  # too large: the reader will raise the error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return path.lower().endswith(IMAGE_SUFFIXES)  # broken: the reader will raise the error


def _image_size(path: str) -> tuple[int, int]:
    """Height and width, upright; reads no pixels."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if orientation(image) >= 5 else (height, width)
    except Image.DecompressionBombError as error:
        raise UserError(f'{path}: the image is too large ({error}); downscale it') from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f'{path} cannot be read as an image: {error}') from None


def read_image(path: str | Path, where: str = 'to be searched') -> np.ndarray:
    """uint8 (H, W, 3), oriented by EXIF; ``where`` is for messages."""
    pixels = read_frame(path, where)
    with Image.open(path) as image:
        if orientation(image) != 1:
            pixels = np.array(ImageOps.exif_transpose(image).convert('RGB'))
    return pixels


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image; 1 is upright."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _natural(name: str) -> list[tuple[int, str]]:
    """Key that sorts numbers in names by value."""
    parts = re.split(r'([0-9]+)', name)
    return [(int(part), '') if index % 2 else (0, part) for index, part in enumerate(parts)] + [(0, name)]


def _fraction(fps: float | None) -> Fraction | None:
    if fps is None:
        return None
    if not 0 < fps < float('inf'):
        raise UserError(f'fps must be a positive number, found {fps}')
    return Fraction(fps).limit_denominator(1001)


def _wxh(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]}'


# ---------------------------------------------------------------------------------------------------------------- threads


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yields the same items, produced by a thread at most ``depth`` ahead; its errors are raised here.

    Closing the iterator, or leaving it to the garbage collector, ends the thread.
    """
    queue: Queue = Queue(depth)
    stop = threading.Event()

    def put(kind: str, value: Any = None) -> bool:
        while not stop.is_set():
            with suppress(Full):
                queue.put((kind, value), timeout=0.1)
                return True
        return False

    def work() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put('item', item):
                    break
            put('end')
        except BaseException as error:
            put('error', error)
        finally:
            if hasattr(source, 'close'):
                source.close()

    thread = threading.Thread(target=work, daemon=True, name='mmsoc-prefetch')
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == 'end':
                return
            if kind == 'error':
                raise value
            yield value
    finally:
        stop.set()
        thread.join()


class WorkerPool:
    """Threads for tasks without results, such as writing; used in a ``with`` block.

    At most ``pending`` tasks wait at a time; beyond that `submit` blocks. An error is raised by a later `submit`, or at
    the end of the block, which waits for all tasks. A single worker runs the tasks in order.
    """

    def __init__(self, workers: int, pending: int) -> None:
        self.pending = pending
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix='mmsoc-writer')
        self._futures: deque[Future] = deque()

    def submit(self, work: Callable[..., Any], *args: Any) -> None:
        while len(self._futures) >= self.pending or (self._futures and self._futures[0].done()):
            self._futures.popleft().result()
        self._futures.append(self._executor.submit(work, *args))

    def __enter__(self) -> 'WorkerPool':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._futures:
                self._futures.popleft().result()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)
