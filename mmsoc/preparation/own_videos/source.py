"""Reads SOURCE (sentences, videos and masks), with all checks that need no frames."""

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmsoc.utils.errors import UserError
from mmsoc.utils.files import clean_text, listed, read_ids

COLUMNS = ('video', 'object', 'expression')
FRAME_SUFFIXES = ('.jpg', '.jpeg', '.png')


@dataclass(frozen=True)
class Sentence:
    text: str
    object: int
    line: int
    """of the csv"""


@dataclass
class Video:
    """Properties of a video known before its frames are read."""

    name: str
    path: Path
    """a file, or a folder of frames"""
    sentences: list[Sentence]
    masks: dict[int, Path]
    """the masks of the used frames, by frame number, in order"""
    frames: dict[int, Path] | None
    """all frames of a folder, by number; None for a file"""
    unused_masks: int
    """number of masks of frames that --every leaves out"""
    first_number: int = 0
    """number of a file's first frame"""
    binary_masks: bool = False
    """masks are black and white; white is object 1"""
    seen: dict[int, list[int]] = field(default_factory=dict)
    """the frames that show each object"""
    total_frames: int = 0
    """of the whole video, known once it has been read"""

    def frame_name(self, number: int) -> str:
        # The loader sorts frames by name, so all names of a video are equally long.
        return f'{number:0{max(5, len(str(max(self.masks))))}d}'


def read_expressions(path: Path) -> tuple[dict[str, list[Sentence]], list[str]]:
    """The rows of the CSV file, by video, and the names of its additional columns.

    Sentences are lower-cased and get single spaces: the loader does this only for a training split, and the model
    should see both splits alike.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: lists every fault, one per line.
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
        UserError: there are several.
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
    """The files of a folder, ordered by the number in their name; hidden files are ignored.

    Raises:
        FileNotFoundError: there is no such folder, or nothing in it.
        UserError: a file of another type, a name that is not a number, or a duplicate number.
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
        binary: a black-and-white image of one object, which becomes object 1.

    Raises:
        UserError: it is not such a mask.
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


def plan_video(
    source: Path, name: str, sentences: list[Sentence], *, every: int, first_number: int, binary_masks: bool
) -> Video:
    """Finds a video's files, and reads all of its masks.

    Args:
        every: use every N-th frame of the video, starting with the first.
        first_number: number of a video file's first frame in the names of its masks.
        binary_masks: see `read_mask`.

    Raises:
        FileNotFoundError, UserError: files are missing or inconsistent.
    """
    where = f'{source / "expressions.csv"}, line {sentences[0].line}'
    path = find_video(source / 'videos', name, where)
    masks = numbered_files(source / 'masks' / name, ('.png',), 'PNG masks')
    frames = numbered_files(path, FRAME_SUFFIXES, 'frames') if path.is_dir() else None
    if frames is None:
        early = [number for number in masks if number < first_number]
        if early:
            raise UserError(
                f'mask {masks[early[0]]}: the frames of {path} are counted from --first-number {first_number}'
            )
        place = {number: number - first_number for number in masks}
    else:
        place = {number: i for i, number in enumerate(frames)}
        beyond = [number for number in masks if number not in frames]
        if beyond:
            raise UserError(
                f'mask {masks[beyond[0]]}: {path} has no frame {beyond[0]}; it has {len(frames)}, numbered '
                f'{min(frames)} to {max(frames)}'
            )
    used = {number: mask for number, mask in masks.items() if place[number] % every == 0}
    if not used:
        raise UserError(
            f'--every {every} leaves no frame of {name!r} that has a mask; there are masks of the frames '
            f'{listed(list(masks))}'
        )
    video = Video(name, path, sentences, used, frames, len(masks) - len(used), first_number, binary_masks)
    for number, mask in used.items():
        for i in np.flatnonzero(np.bincount(read_mask(mask, binary_masks).ravel())).tolist():
            if i:
                video.seen.setdefault(i, []).append(number)
    for sentence in sentences:
        if sentence.object not in video.seen:
            hint = ''
            if binary_masks:
                hint = '; with --binary-masks the only object is 1'
            elif set(video.seen) == {255}:
                hint = '; if white is the only object, add --binary-masks (it is object 1 then)'
            elif video.unused_masks:
                hint = f'; {video.unused_masks} more masks were left out by --every {every}'
            raise UserError(
                f'{source / "expressions.csv"}, line {sentence.line}: object {sentence.object} of {name!r} is in none of the '
                f'{len(used)} masks that are used ({source / "masks" / name}); they show {sorted(video.seen) or "no object"}{hint}'
            )
    return video


def unused_entries(source: Path, by_video: Collection[str]) -> list[str]:
    """The entries of videos/ and masks/ that belong to no video of the CSV file."""
    found = []
    for folder in (source / 'videos', source / 'masks'):
        for path in sorted(folder.iterdir()):
            if not path.name.startswith('.') and (path.name if path.is_dir() else path.stem) not in by_video:
                found.append(str(path.relative_to(source)))
    return found
