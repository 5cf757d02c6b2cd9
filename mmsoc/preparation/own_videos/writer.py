"""Writes frames, masks and text files in the layout of Ref-YouTube-VOS."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmsoc.apis.video_io import orientation, read_image
from mmsoc.preparation.progress import progress_bar
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json
from mmsoc.utils.video import PYAV, VideoError, VideoFrame, VideoReader, rotation_of, upright_pixels

from .source import Video, read_mask

SPLITS = ('train', 'valid')


def decode(path: Path) -> Iterator[VideoFrame]:
    """The frames of a video file, in presentation order.

    Raises:
        UserError: it cannot be decoded.
    """
    count = 0
    try:
        with VideoReader(path, frame_threads=True) as video:
            for frame in video.frames():
                yield frame
                count += 1
    except VideoError as error:
        raise UserError(f'{path} cannot be decoded ({error.detail}); {count} frames came before the fault') from None
    if count == 0:
        raise UserError(f'{path} cannot be decoded: there is no frame in it')


def upright_exactly(frame: VideoFrame, where: str) -> np.ndarray:
    """A frame as players show it: uint8 (H, W, 3); rejects uncertain rotations, since masks must match."""
    degrees = rotation_of(frame)
    if degrees is None:
        raise UserError(f'{PYAV} does not tell how a video is turned: pip install -U av ({where})')
    if round(degrees) % 90:
        raise UserError(f'{where}: the video is marked as turned by {degrees} degrees, expected a multiple of 90')
    return upright_pixels(frame)


def frames_of_file(video: Video) -> Iterator[tuple[int, np.ndarray, None]]:
    """The frames of a video file that have a mask: number, uint8 (H, W, 3), None; decodes to the end."""
    for number, frame in enumerate(decode(video.path), video.first_number):
        video.total_frames += 1
        if number not in video.masks:
            continue
        where = f'{video.path}, frame {number}'
        if frame.is_corrupt:
            raise UserError(f'{where} is damaged')
        yield number, upright_exactly(frame, where), None
    last = video.first_number + video.total_frames - 1
    beyond = [number for number in video.masks if number > last]
    if beyond:
        raise UserError(
            f'mask {video.masks[beyond[0]]}: {video.path} has no frame {beyond[0]}; it has {video.total_frames}, '
            f'numbered {video.first_number} to {last}'
        )


def frames_of_folder(video: Video) -> Iterator[tuple[int, np.ndarray, Path | None]]:
    """The frames of a folder that have a mask: number, uint8 (H, W, 3), and the file if it can be copied."""
    assert video.frames is not None
    video.total_frames = len(video.frames)
    for number in video.masks:
        path = video.frames[number]
        pixels = read_image(path, f'video {video.name}')
        with Image.open(path) as image:
            unchanged = image.format == 'JPEG' and orientation(image) == 1
        yield number, pixels, path if unchanged else None


def write_video(video: Video, folder: Path, advance: Callable[[], None]) -> None:
    """Writes frames and masks of one video below the folder of a split; calls ``advance`` after each frame.

    Raises:
        UserError: a frame or mask is broken, or differs in size from the others.
    """
    for kind in ('JPEGImages', 'Annotations'):
        (folder / kind / video.name).mkdir(parents=True)
    frames = frames_of_folder(video) if video.frames else frames_of_file(video)
    size = None
    for number, pixels, file in frames:
        ids = read_mask(video.masks[number], video.binary_masks)
        height, width = pixels.shape[:2]
        if size not in (None, (width, height)):
            raise UserError(f'{video.path}, frame {number} is {width}x{height}, but an earlier one {size[0]}x{size[1]}')
        size = width, height
        if ids.shape != (height, width):
            raise UserError(
                f'mask {video.masks[number]} is {ids.shape[1]}x{ids.shape[0]}, but its frame ({video.path}, frame {number}) '
                f'is {width}x{height}'
            )
        name = video.frame_name(number)
        frame = folder / 'JPEGImages' / video.name / f'{name}.jpg'
        if file is not None:
            shutil.copyfile(file, frame)  # re-encoding a JPEG would lose quality
        else:
            Image.fromarray(pixels).save(frame, quality=95, subsampling=0)
        mask = Image.fromarray(ids)
        mask.putpalette(PALETTE)
        mask.save(folder / 'Annotations' / video.name / f'{name}.png')
        advance()


def write_set(folder: Path, videos: Sequence[Video], valid: set[str]) -> dict[str, dict]:
    """Writes the set below ``folder``, and returns the counts of each split."""
    by_split = {split: [video for video in videos if (video.name in valid) == (split == 'valid')] for split in SPLITS}
    in_order = [(split, video) for split in SPLITS for video in by_split[split]]
    done, total = 0, sum(len(video.masks) for video in videos)
    with progress_bar('own_videos: frames') as show:

        def advance() -> None:
            nonlocal done
            done += 1
            show(done, total)

        for number, (split, video) in enumerate(in_order, 1):
            write_video(video, folder / split, advance)
            frames = len(video.masks)
            print(
                f'own_videos: video {number} of {len(videos)} ({video.name}), {frames} of {frames} frames',
                file=sys.stderr,
                flush=True,
            )
    for split, chosen in by_split.items():
        if chosen:
            write_texts(chosen, folder, split)
    return {split: count(chosen) for split, chosen in by_split.items() if chosen}


def write_texts(videos: Sequence[Video], folder: Path, split: str) -> None:
    """Writes the sentences and the objects of a split."""
    expressions, meta = {}, {}
    for video in videos:
        expressions[video.name] = dict(
            expressions={
                str(i): dict(exp=sentence.text, obj_id=str(sentence.object))
                for i, sentence in enumerate(video.sentences)
            },
            frames=[video.frame_name(number) for number in video.masks],
        )
        meta[video.name] = dict(
            objects={
                str(i): dict(frames=[video.frame_name(number) for number in numbers])
                for i, numbers in sorted(video.seen.items())
            }
        )
    dump_json(dict(videos=expressions), folder / 'meta_expressions' / split / 'meta_expressions.json', indent=1)
    dump_json(dict(videos=meta), folder / split / 'meta.json', indent=1)


def count(videos: Sequence[Video]) -> dict[str, int]:
    return dict(
        videos=len(videos),
        objects=sum(len({sentence.object for sentence in video.sentences}) for video in videos),
        sentences=sum(len(video.sentences) for video in videos),
        frames=sum(len(video.masks) for video in videos),
    )


def palette() -> list[int]:
    """256 colours whose neighbours are easily distinguished: bit b of an id goes to channel b % 3, high bits first."""
    colours = []
    for i in range(256):
        for channel in range(3):
            colours.append(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)))
    return colours


PALETTE = palette()
