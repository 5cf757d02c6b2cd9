"""Turns your own videos, masks and sentences into a data set in the layout of Ref-YouTube-VOS.

    python tools/dataset_converters/own_videos.py SOURCE --out data/own-videos --valid NAME

SOURCE holds::

    videos/NAME.mp4       a file that PyAV reads, or a folder NAME of jpg or png frames (00000.jpg, ...)
    masks/NAME/00012.png  the mask of frame 12: a palette or grey PNG, pixel value = object id, 0 = background
    expressions.csv       header video,object,expression; one row per sentence

Frames of a video file are counted from 0 in the order in which they are shown. A frame without a mask is left out of the
data set: nobody said where its objects are, which is something else than that they are absent. A mask without any object
(all 0) says that they are absent. docs/own_videos.md goes through it step by step.
"""

import argparse
import csv
import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed

import av
import numpy as np
from PIL import Image

from mmsoc.apis import video_io
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import clean_text, dump_json, listed, read_ids

COLUMNS = ('video', 'object', 'expression')
FRAME_SUFFIXES = ('.jpg', '.jpeg', '.png')
MANIFEST = 'own_videos.json'
SPLITS = ('train', 'valid')


@dataclass(frozen=True)
class Sentence:
    text: str
    object: int
    line: int
    """of the csv"""


@dataclass
class Video:
    """What is known of a video before its frames are read."""

    name: str
    path: Path
    """a file, or a folder of frames"""
    sentences: list[Sentence]
    masks: dict[int, Path]
    """of the frames that are used, by frame number, in order"""
    frames: dict[int, Path] | None
    """of a folder, all of them by number; None for a file"""
    unused_masks: int
    """masks of frames that --every leaves out"""
    seen: dict[int, list[int]] = field(default_factory=dict)
    """the frames that show each object"""
    total_frames: int = 0
    """of the whole video, known when it has been read"""

    def frame_name(self, number: int) -> str:
        # The loader sorts frames by name, so all names of a video are equally long.
        return f'{number:0{max(5, len(str(max(self.masks))))}d}'


def read_expressions(path: Path) -> tuple[dict[str, list[Sentence]], list[str]]:
    """The rows of the csv, by video, and the names of its further columns.

    Sentences get lower-case letters and single spaces: the loader does that to the sentences of a training split and
    not to those of a test split, and the model should see both alike.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: with one line for every fault in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path}, which should hold the sentences ({",".join(COLUMNS)})')
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:  # spreadsheets write a byte order mark
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not UTF-8 text: {error}; save it as "CSV UTF-8"') from None
    except csv.Error as error:
        raise UserError(
            f'{path}, line {reader.line_num}: not CSV ({error}); a quote within a quoted text is doubled'
        ) from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in COLUMNS if name not in header]
    if missing or len(set(header)) < len(header):
        raise UserError(
            f'{path}: expected the columns {", ".join(COLUMNS)}, separated by commas, each once; found {header}'
        )
    faults = []
    videos: dict[str, list[Sentence]] = {}
    first_line: dict[tuple[str, int, str], int] = {}
    for line, row in rows[1:]:
        where = f'{path}, line {line}: '
        if len(row) != len(header):
            faults.append(
                f'{where}expected {len(header)} fields ({", ".join(header)}), found {len(row)}; '
                'a sentence with a comma needs quotes: "the dog, not the cat"'
            )
            continue
        name, number, text = (row[header.index(column)].strip() for column in COLUMNS)
        if not name or Path(name).name != name or name.startswith('.'):
            faults.append(
                f'{where}video must be the name of a file (without its suffix) or folder in videos/, found {name!r}'
            )
        if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= 255):
            faults.append(f'{where}object must be a pixel value of the masks, 1 to 255, found {number!r}')
            continue
        if not text:
            faults.append(f'{where}the sentence is empty')
            continue
        text = clean_text(text, where)
        sentence = Sentence(text, int(number), line)
        earlier = first_line.setdefault((name, sentence.object, text), line)
        if earlier != line:
            faults.append(
                f'{where}the same video, object and sentence as in line {earlier}: {name}, {number}, {text!r}'
            )
        videos.setdefault(name, []).append(sentence)
    if not (videos or faults):
        faults.append(f'{path}: there is no row below the header')
    if faults:
        raise UserError('\n'.join(faults))
    return videos, [name for name in header if name not in COLUMNS]


def find_video(folder: Path, name: str, where: str) -> Path:
    """The file or folder of a video.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith('.')]
    found = [path for path in visible if name == (path.name if path.is_dir() else path.stem)]
    if not found:
        hint = f'; write {Path(name).stem!r}, without the suffix' if (folder / name).is_file() else ''
        raise FileNotFoundError(
            f'{where}: there is no video {name!r}: expected {folder / name}.mp4 (or another container), or a folder '
            f'{folder / name}{hint}; {folder} holds {listed([path.name for path in visible]) or "nothing"}'
        )
    if len(found) > 1:
        raise UserError(f'{where}: several videos are called {name!r}: {", ".join(map(str, found))}; keep one')
    return found[0]


def numbered_files(folder: Path, suffixes: Sequence[str], what: str) -> dict[int, Path]:
    """The files of a folder by the number that is their name, in order; hidden files are none of ours.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it.
        ValueError: a file of another kind, a name that is no number, or a number twice.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder}, which should hold the {what}')
    files: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith('.'):
            continue
        if path.suffix.lower() not in suffixes or not (path.stem.isascii() and path.stem.isdecimal()):
            raise UserError(
                f'{path}: expected {what}, named by the number of the frame, e.g. 00012{suffixes[0]} (of {", ".join(suffixes)})'
            )
        other = files.setdefault(int(path.stem), path)
        if other != path:
            raise UserError(f'{path} and {other} are both number {int(path.stem)}')
    if not files:
        raise FileNotFoundError(f'{folder} holds no {what}')
    return dict(sorted(files.items()))


def read_mask(path: Path, binary: bool) -> np.ndarray:
    """Object ids, uint8 (H, W).

    Args:
        binary: a black-and-white picture of one object, which becomes object 1.

    Raises:
        ValueError: it is not a mask of that kind.
    """
    if not binary:
        return read_ids(path, 'own videos')
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f'mask {path} cannot be read: {error}') from None
    if mode not in ('1', 'L', 'P', 'RGB'):
        raise UserError(f'mask {path}: expected a black-and-white PNG (mode 1, L, P or RGB), found mode {mode}')
    values = np.unique(pixels.astype(np.uint8))
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise UserError(
            f'--binary-masks: {path} should have 0 and one other value, found {len(values)}: {listed(values.tolist())}; '
            'a mask with soft edges has to be thresholded first'
        )
    return pixels.reshape(*pixels.shape[:2], -1).any(-1).astype(np.uint8)


def plan_video(source: Path, name: str, sentences: list[Sentence], args: argparse.Namespace) -> Video:
    """Finds a video's files, and looks into all of its masks.

    Raises:
        FileNotFoundError, ValueError: something is missing, or does not fit together.
    """
    where = f'{source / "expressions.csv"}, line {sentences[0].line}'
    path = find_video(source / 'videos', name, where)
    masks = numbered_files(source / 'masks' / name, ('.png',), 'PNG masks')
    frames = numbered_files(path, FRAME_SUFFIXES, 'frames') if path.is_dir() else None
    if frames is None:
        early = [number for number in masks if number < args.first_number]
        if early:
            raise UserError(
                f'mask {masks[early[0]]}: the frames of {path} are counted from --first-number {args.first_number}'
            )
        place = {number: number - args.first_number for number in masks}
    else:
        place = {number: i for i, number in enumerate(frames)}
        beyond = [number for number in masks if number not in frames]
        if beyond:
            raise UserError(
                f'mask {masks[beyond[0]]}: {path} has no frame {beyond[0]}; it has {len(frames)}, numbered '
                f'{min(frames)} to {max(frames)}'
            )
    used = {number: mask for number, mask in masks.items() if place[number] % args.every == 0}
    if not used:
        raise UserError(
            f'--every {args.every} leaves no frame of {name!r} that has a mask; there are masks of the frames '
            f'{listed(list(masks))}'
        )
    video = Video(name, path, sentences, used, frames, len(masks) - len(used))
    for number, mask in used.items():
        for i in np.flatnonzero(np.bincount(read_mask(mask, args.binary_masks).ravel())).tolist():
            if i:
                video.seen.setdefault(i, []).append(number)
    for sentence in sentences:
        if sentence.object not in video.seen:
            hint = ''
            if args.binary_masks:
                hint = '; with --binary-masks the only object is 1'
            elif set(video.seen) == {255}:
                hint = '; if white is the only object, add --binary-masks (it is object 1 then)'
            elif video.unused_masks:
                hint = f'; {video.unused_masks} more masks were left out by --every {args.every}'
            raise UserError(
                f'{source / "expressions.csv"}, line {sentence.line}: object {sentence.object} of {name!r} is in none of the '
                f'{len(used)} masks that are used ({source / "masks" / name}); they show {sorted(video.seen) or "no object"}{hint}'
            )
    return video


def decode(path: Path) -> Iterator[av.VideoFrame]:
    """The frames of a video file, in the order in which they are shown.

    Raises:
        ValueError: it cannot be decoded.
    """
    count = 0
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                kinds = [stream.type for stream in container.streams]
                raise UserError(f'{path} holds no video, only the streams {kinds}')
            stream = container.streams.video[0]
            stream.thread_type = 'AUTO'
            for frame in container.decode(stream):
                yield frame
                count += 1
    except av.FFmpegError as error:
        raise UserError(f'{path} cannot be decoded ({error}); {count} frames came before the fault') from None
    if count == 0:
        raise UserError(f'{path} cannot be decoded: there is no frame in it')


def upright(frame: av.VideoFrame, where: str) -> np.ndarray:
    """A frame as players show it: uint8 (H, W, 3); only turns that are certain, since masks must fit."""
    if not hasattr(frame, 'rotation'):
        raise UserError(f'PyAV {av.__version__} does not tell how a video is turned: pip install -U av ({where})')
    if round(frame.rotation) % 90:
        raise UserError(
            f'{where}: the video is marked as turned by {frame.rotation} degrees, expected a multiple of 90'
        )
    return video_io.upright(frame, where)


def frames_of_file(video: Video, first_number: int) -> Iterator[tuple[int, np.ndarray, None]]:
    """The frames of a video file that have a mask: number, uint8 (H, W, 3), None; decodes to the end."""
    for number, frame in enumerate(decode(video.path), first_number):
        video.total_frames += 1
        if number not in video.masks:
            continue
        where = f'{video.path}, frame {number}'
        if frame.is_corrupt:
            raise UserError(f'{where} is damaged')
        yield number, upright(frame, where), None
    last = first_number + video.total_frames - 1
    beyond = [number for number in video.masks if number > last]
    if beyond:
        raise UserError(
            f'mask {video.masks[beyond[0]]}: {video.path} has no frame {beyond[0]}; it has {video.total_frames}, '
            f'numbered {first_number} to {last}'
        )


def frames_of_folder(video: Video) -> Iterator[tuple[int, np.ndarray, Path | None]]:
    """The frames of a folder that have a mask: number, uint8 (H, W, 3), and the file if it can be taken as it is."""
    assert video.frames is not None
    video.total_frames = len(video.frames)
    for number in video.masks:
        path = video.frames[number]
        pixels = video_io.read_picture(path, f'video {video.name}')
        with Image.open(path) as image:
            as_it_is = image.format == 'JPEG' and video_io.orientation(image) == 1
        yield number, pixels, path if as_it_is else None


def write_video(video: Video, folder: Path, args: argparse.Namespace, progress: 'Progress') -> None:
    """Writes frames and masks of one video below the folder of a split.

    Raises:
        ValueError: a frame or mask is broken, or of another size than the others.
    """
    for kind in ('JPEGImages', 'Annotations'):
        (folder / kind / video.name).mkdir(parents=True)
    frames = frames_of_folder(video) if video.frames else frames_of_file(video, args.first_number)
    size = None
    for done, (number, pixels, file) in enumerate(frames, 1):
        ids = read_mask(video.masks[number], args.binary_masks)
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
            shutil.copyfile(file, frame)  # writing a JPEG again would lose a little
        else:
            Image.fromarray(pixels).save(frame, quality=95, subsampling=0)
        mask = Image.fromarray(ids)
        mask.putpalette(PALETTE)
        mask.save(folder / 'Annotations' / video.name / f'{name}.png')
        progress(video, done)


def choose_valid(names: Sequence[str], valid: Sequence[str] | None, share: float, seed: int) -> set[str]:
    """The videos of the valid split: those that are named, or a share that is drawn.

    Raises:
        ValueError: a name is unknown, or nothing is left for training.
    """
    if valid is not None:
        unknown = [name for name in valid if name not in names]
        if unknown:
            raise UserError(
                f'--valid: no row of expressions.csv names the videos {unknown}; it names {listed(sorted(names))}'
            )
        chosen = set(valid)
    else:
        number = max(round(share * len(names)), 1) if share else 0
        chosen = set(random.Random(seed).sample(sorted(names), number))
    if len(chosen) == len(names):
        raise UserError(
            f'no video is left for training: the csv names {len(names)}, and {listed(sorted(chosen))} would be the valid '
            'split; add videos (a long one can be cut into several), or --valid-share 0 for a set without '
            'a valid split, which cannot be scored'
        )
    return chosen


def write_set(folder: Path, videos: Sequence[Video], valid: set[str], args: argparse.Namespace) -> dict[str, dict]:
    """Writes the whole set below ``folder``, and returns how much there is of each split."""
    progress = Progress(videos)
    counts = {}
    for split in SPLITS:
        chosen = [video for video in videos if (video.name in valid) == (split == 'valid')]
        if not chosen:
            continue
        expressions, meta = {}, {}
        for video in chosen:
            write_video(video, folder / split, args, progress)
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
        counts[split] = dict(
            videos=len(chosen),
            objects=sum(len({sentence.object for sentence in video.sentences}) for video in chosen),
            sentences=sum(len(video.sentences) for video in chosen),
            frames=sum(len(video.masks) for video in chosen),
        )
    return counts


class Progress:
    """A line that is rewritten on a terminal, and one line per video elsewhere."""

    def __init__(self, videos: Sequence[Video]) -> None:
        self.total = len(videos)
        self.started: list[str] = []

    def __call__(self, video: Video, done: int) -> None:
        if video.name not in self.started:
            self.started.append(video.name)
        last = done == len(video.masks)
        line = (
            f'own_videos: video {len(self.started)} of {self.total} ({video.name}), {done} of {len(video.masks)} frames'
        )
        if sys.stderr.isatty():
            end = '\n' if last and len(self.started) == self.total else ''
            print(f'\r{line}\033[K', end=end, file=sys.stderr, flush=True)
        elif last:
            print(line, file=sys.stderr, flush=True)


def palette() -> list[int]:
    """256 colours, of which neighbours are easily told apart: bit b of an id goes to channel b % 3, high bits first."""
    colours = []
    for i in range(256):
        for channel in range(3):
            colours.append(sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)))
    return colours


PALETTE = palette()


def check_out(out: Path, source: Path, overwrite: bool) -> None:
    """
    Raises:
        ValueError: ``out`` holds something that may not be replaced.
    """
    if out == source or out in source.parents:
        raise UserError(f'--out {out} is, or holds, the folder {source} that is read')
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        # Also with --overwrite: a mistyped name must not cost anybody a folder.
        raise UserError(
            f'--out {out} exists and was not written by this tool (it has no {MANIFEST}); name another folder'
        )
    if not overwrite:
        raise UserError(f'--out {out} is not empty; add --overwrite to replace it')


def convert(args: argparse.Namespace) -> str:
    """Writes the set, complete or not at all; returns the summary."""
    source, out = Path(args.source).absolute(), Path(args.out).absolute()
    for folder in (source, source / 'videos', source / 'masks'):
        if not folder.is_dir():
            raise FileNotFoundError(
                f'there is no folder {folder}; expected videos/, masks/ and expressions.csv in {source}'
            )
    check_out(out, source, args.overwrite)
    by_video, unused_columns = read_expressions(source / 'expressions.csv')
    valid = choose_valid(list(by_video), args.valid, args.valid_share, args.seed)
    videos = [plan_video(source, name, sentences, args) for name, sentences in by_video.items()]

    partial_out = out.with_name(f'.{out.name}.partial')
    shutil.rmtree(partial_out, ignore_errors=True)
    try:
        counts = write_set(partial_out, videos, valid, args)
        dump_json(
            dict(
                source=str(source), every=args.every, binary_masks=args.binary_masks, valid=sorted(valid), counts=counts
            ),
            partial_out / MANIFEST,
            indent=1,
        )
        if out.exists():
            shutil.rmtree(out)
        partial_out.replace(out)
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)
    return summary(out, counts, videos, args.every, unused_columns, unused_entries(source, by_video))


def unused_entries(source: Path, by_video: dict) -> list[str]:
    """What lies in videos/ and masks/ and belongs to no video that the csv names."""
    found = []
    for folder in (source / 'videos', source / 'masks'):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith('.') and (path.name if path.is_dir() else path.stem) not in by_video:
                found.append(str(path.relative_to(source)))
    return found


def summary(
    out: Path, counts: dict, videos: Sequence[Video], every: int, columns: list[str], entries: list[str]
) -> str:
    names = ('videos', 'objects', 'sentences', 'frames')
    lines = [f'{"":5}' + ''.join(f'{name:>11}' for name in names)]
    lines += [f'{split:5}' + ''.join(f'{counts[split][name]:>11}' for name in names) for split in counts]
    if 'valid' not in counts:
        lines.append('There is no valid split: nothing can be scored.')
    unused_masks = sum(video.unused_masks for video in videos)
    if unused_masks:
        lines.append(f'Left out by --every {every}: {unused_masks} frames with a mask')
    without = {
        video.name: video.total_frames - len(video.masks) - video.unused_masks
        for video in videos
        if video.total_frames > len(video.masks) + video.unused_masks
    }
    if without:
        each = listed([f'{name} {number}' for name, number in without.items()])
        lines.append(f'Left out, since they have no mask: {sum(without.values())} frames ({each})')
    silent = [
        f'{video.name} {sorted(set(video.seen) - {sentence.object for sentence in video.sentences})}'
        for video in videos
        if not set(video.seen) <= {sentence.object for sentence in video.sentences}
    ]
    if silent:
        lines.append(f'Objects in the masks that no sentence names: {listed(silent)}')
    if entries:
        lines.append(f'Not used, since no row names it: {listed(entries)}')
    if columns:
        lines.append(f'Columns of the csv that are not used: {listed(columns)}')
    return '\n'.join([*lines, f'Written: {out}'])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get('MMSOC_DATA') or 'data')
    parser.add_argument('source', metavar='SOURCE', help='folder with videos/, masks/ and expressions.csv')
    parser.add_argument('--out', default=str(data / 'own-videos'), help='folder to write (default: %(default)s)')
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        metavar='N',
        help='keep every N-th frame of a video, from its first (default: all)',
    )
    parser.add_argument(
        '--first-number',
        type=int,
        default=0,
        metavar='N',
        help='number of the first frame of a video file in the names of its masks (default: 0; ffmpeg writes from 1)',
    )
    parser.add_argument('--binary-masks', action='store_true', help='masks are black and white, and white is object 1')
    split = parser.add_mutually_exclusive_group()
    split.add_argument('--valid', nargs='+', metavar='NAME', help='the videos of the valid split')
    split.add_argument(
        '--valid-share',
        type=float,
        default=0.2,
        metavar='S',
        help='share of the videos that is drawn for the valid split, at least one; 0: none (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of that draw (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace what an earlier run wrote to --out')
    args = parser.parse_args()
    if args.every < 1:
        parser.error(f'--every must be at least 1, found {args.every}')
    if args.first_number < 0:
        parser.error(f'--first-number must be at least 0, found {args.first_number}')
    if not 0 <= args.valid_share < 1:
        parser.error(f'--valid-share must be at least 0 and less than 1, found {args.valid_share}')
    return args


def main() -> None:
    args = parse_args()
    try:
        print(convert(args))
    except KeyboardInterrupt:
        print(f'\nstopped: {args.out} was not written, and nothing is left of it', file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
