"""Shared parts of all data sets' checks: findings, text files, folders, images."""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from mmsoc.datasets.a2d_sentences import read_csv
from mmsoc.utils.files import listed, load_json
from mmsoc.utils.masks import run_totals

LEVELS = {
    'quick': 'the text files, and the presence of all files',
    'headers': "also each file's header and end, and the pixels of each video's first mask",
    'full': 'also the complete content of the files',
}

KINDS = {  # in the order in which they are reported
    'missing': 'missing',
    'archive': 'archives that are incomplete or partly unpacked',
    'count': 'not the documented number',
    'empty': 'empty files',
    'unreadable': 'files that cannot be read, or end too early',
    'content': 'text files with invalid content',
    'field': 'a field that is missing or of the wrong kind',
    'duplicate': 'there twice',
    'unknown': 'names of objects that do not exist',
    'size': 'sizes that do not match',
    'mode': 'masks that hold colours instead of ids',
    'ids': 'masks with unexpected ids',
    'short': 'shorter than declared',
    'unseen': 'objects that no mask shows',
    'extra': 'unexpected files and folders',
    'loader': 'errors of the data set class (which stops at the first one)',
}


@dataclass(frozen=True)
class Finding:
    """A fault: its kind (a key of ``KINDS``), the file or folder, and what was expected and found there."""

    kind: str
    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f'{self.file}: expected {self.expected}, found {self.found}'


class Fault(Exception):
    """A finding, raised as an exception until it is recorded."""

    def __init__(self, kind: str, file: str | Path, expected: str, found: str) -> None:
        super().__init__(kind, file, expected, found)
        self.finding = Finding(kind, str(file), expected, found)


@dataclass
class RootCheck:
    """The settings of a check, and its findings.

    Args:
        root: the data root.
        level: a key of ``LEVELS``.
        sizes: treat deviations from documented numbers as faults.
        extra: treat unexpected files and folders as faults, except names that begin with a dot.
        progress: show a bar.
    """

    root: Path
    level: str = 'headers'
    sizes: bool = True
    extra: bool = True
    progress: bool = True
    findings: list[Finding] = field(default_factory=list)
    counts: list[tuple[str, int, int | None]] = field(default_factory=list)
    """(what, number found, number documented)"""
    notes: list[str] = field(default_factory=list)
    """remarks that are not faults"""

    @property
    def quick(self) -> bool:
        return self.level == 'quick'

    @property
    def full(self) -> bool:
        return self.level == 'full'

    def add(self, kind: str, file: str | Path, expected: str, found: str) -> None:
        self.findings.append(Finding(kind, str(file), expected, found))

    def count(self, what: str, found: int, documented: int | None, file: Path) -> None:
        self.counts.append((what, found, documented))
        if self.sizes and documented is not None and found != documented:
            self.add('count', file, f'{documented:,} {what}', f'{found:,}')

    def each(self, items: Collection, look: Callable[[Any], Iterable[Finding]], description: str) -> None:
        """Adds the findings of ``look`` for each item, several in parallel, in the order of the items."""
        with ThreadPoolExecutor() as pool:
            results: Iterable = pool.map(lambda item: list(look(item)), items)
            if self.progress:
                bar = Console(stderr=True)
                results = track(results, description=description, total=len(items), transient=True, console=bar)
            for found in results:
                self.findings += found

    def has(self, path: Path, expected: str) -> bool:
        """Whether the file or folder exists; adds a fault if not."""
        if path.exists():
            return True
        below = path.relative_to(self.root)
        elsewhere = [above / below for above in sorted(self.root.iterdir()) if (above / below).exists()]
        found = f'nothing, but there is {elsewhere[0]}: unpacked into a folder too many?' if elsewhere else 'nothing'
        self.add('missing', path, expected, found)
        return False

    def json(self, path: Path, expected: str) -> Any:
        """The content of a JSON file; None, and a fault, if it cannot be read."""
        if not self.has(path, expected):
            return None
        try:
            content = load_json(path, 'file')
        except (ValueError, OSError) as error:
            self.add('unreadable', path, expected, str(error).removeprefix('file: '))
            return None

        def note_duplicates(pairs: list[tuple[str, Any]]) -> None:
            # Of equal keys the last one wins, without a warning.
            for key, number in Counter(key for key, _ in pairs).items():
                if number > 1:
                    self.add('duplicate', path, f'the key {key!r} once', f'{number} times')

        if not self.quick:
            with open(path, encoding='utf-8') as file:
                json.load(file, object_pairs_hook=note_duplicates)
        return content

    def rows(self, path: Path, expected: str) -> list[tuple[int, list[str]]]:
        """The rows of a CSV file with their line numbers; none, and a fault, if it cannot be read."""
        if not self.has(path, expected):
            return []
        try:
            return read_csv(str(path), 'file')
        except (ValueError, OSError) as error:
            self.add('unreadable', path, expected, str(error).removeprefix('file: '))
            return []

    def extras(self, folder: Path, known: Collection[str], what: str) -> None:
        """Adds the unknown entries of a folder."""
        if self.extra and folder.is_dir():
            for name in sorted(set(os.listdir(folder)) - set(known)):
                if not name.startswith('.'):
                    self.add('extra', folder / name, f'only {what}', 'this as well')

    def load(self, dataset: type[BaseDataset], file: Path, **options: Any) -> None:
        """Lets the data set load, and adds its error."""
        try:
            dataset(data_root=str(self.root), serialize_data=False, **options)
        except Exception as error:  # any exception, not only UserError: it shows a fault
            text = str(error) if isinstance(error, ValueError | OSError) else f'{type(error).__name__}: {error}'
            self.add('loader', file, f'{dataset.__name__} to load', text)

    def archives(self) -> None:
        """Finds incomplete downloads and partly unpacked archives."""
        folders = [self.root, *sorted(path for path in self.root.iterdir() if path.is_dir())]
        for path in (path for folder in folders for path in sorted(folder.iterdir())):
            if path.suffix in ('.part', '.aria2', '.crdownload', '.download', '.filepart'):
                self.add('archive', path, 'a complete file', 'the rest of an interrupted download')
            elif path.suffix == '.zip' and path.is_file():
                try:
                    with zipfile.ZipFile(path) as archive:
                        members = {
                            entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()
                        }
                except (zipfile.BadZipFile, OSError) as error:
                    self.add('archive', path, 'a whole zip', str(error))
                    continue
                sizes = {
                    name: (path.parent / name).stat().st_size for name in members if (path.parent / name).is_file()
                }
                missing = sorted(name for name, size in members.items() if sizes.get(name) != size)
                if missing and len(missing) < len(members):  # if all are missing, it was unpacked elsewhere, or not yet
                    expected = f'all {len(members):,} files of it unpacked beside it'
                    self.add(
                        'archive', path, expected, f'{len(missing):,} missing or of another size: {listed(missing, 3)}'
                    )


def short(value: Any) -> str:
    """A value for a message."""
    text = 'nothing' if value is None else repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def by(size: Sequence[int]) -> str:
    """(width, height) for a message."""
    return f'{size[0]}x{size[1]}'


def listing(check: RootCheck, folder: Path, names: Collection[str]) -> tuple[set[str], list[Finding]]:
    """The files that exist and are not empty, and the findings for the folder."""
    try:
        with os.scandir(folder) as entries:
            sizes = {entry.name: entry.stat().st_size if entry.is_file() else -1 for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        found = f'a link to {os.readlink(folder)}, which is not there' if folder.is_symlink() else 'no folder'
        return set(), [Finding('missing', str(folder), f'a folder with {len(names)} files', found)]
    wanted = set(names)
    findings = [Finding('missing', str(folder / name), 'a file', 'nothing') for name in sorted(wanted - set(sizes))]
    findings += [
        Finding('empty', str(folder / name), 'a file', '0 bytes') for name in sorted(wanted) if sizes.get(name) == 0
    ]
    others = sorted(name for name in set(sizes) - wanted if not name.startswith('.')) if check.extra else []
    findings += [
        Finding('extra', str(folder / name), 'only what the text files list', 'this as well') for name in others
    ]
    return {name for name in names if sizes.get(name, 0) > 0}, findings


def check_file(path: Path, what: str) -> None:
    """
    Raises:
        Fault: there is no such file, or it is empty.
    """
    if not path.is_file():
        raise Fault('missing', path, what, 'nothing')
    if not path.stat().st_size:
        raise Fault('empty', path, what, '0 bytes')


_ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}


def open_image(path: Path, decode: bool) -> Image.Image:
    """Opens an image and checks that its end is present; with ``decode``, that all of it can be decoded.

    Raises:
        Fault: it is not an image, or is truncated.
    """
    try:
        with Image.open(path) as image:
            end = _ENDS.get(image.format or '')
            if not decode and end is not None:
                with open(path, 'rb') as file:
                    file.seek(-len(end), os.SEEK_END)
                    # Otherwise the end is missing, or data follow it; only decoding can tell.
                    decode = file.read() != end
            if decode:
                image.load()
            return image
    except UnidentifiedImageError:
        raise Fault('unreadable', path, 'an image', 'something else') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Fault('unreadable', path, 'a whole image', str(error)) from None


def image_sizes(
    check: RootCheck, folder: Path, names: Iterable[str], findings: list[Finding]
) -> dict[str, tuple[int, int]]:
    """Width and height of a video's frames, which should all be equal; adds faults to ``findings``."""
    sizes: dict[str, tuple[int, int]] = {}
    first = None
    for name in sorted(names):
        try:
            sizes[name] = open_image(folder / name, check.full).size
        except Fault as fault:
            findings.append(fault.finding)
            continue
        first = first or name
        if sizes[name] != sizes[first]:
            expected = f'{by(sizes[first])}, as {first} is'
            findings.append(Finding('size', str(folder / name), expected, by(sizes[name])))
    return sizes


def rle_faults(codes: Sequence[Any], size: Sequence[int] | None, full: bool) -> Iterator[tuple[int, str, str, str]]:
    """Faults of run-length codes of masks of (width, height), as (place, kind, expected, found); None is no code."""
    to_count: dict[int, str] = {}
    for place, code in enumerate(codes):
        counts, of = (code.get('counts'), code.get('size')) if isinstance(code, dict) else (None, None)
        if code is None:
            continue
        if not isinstance(counts, str | list) or not isinstance(of, list) or [type(side) for side in of] != [int, int]:
            yield place, 'field', "a run-length code with 'size' and 'counts'", short(code)
        elif size is not None and of != [size[1], size[0]]:
            yield place, 'size', f'the size {[size[1], size[0]]} (height and width of the frame)', str(of)
        elif isinstance(counts, str):
            to_count[place] = counts
        elif sum(counts) != of[0] * of[1]:
            yield place, 'unreadable', f'runs of {of[0] * of[1]} pixels', str(sum(counts))
    if not full or not to_count:
        return
    # Without decoding: pycocotools may never return from a broken code.
    for place, total, area in zip(to_count, *run_totals([counts.encode() for counts in to_count.values()])):
        height, width = codes[place]['size']
        if total != height * width:
            yield place, 'unreadable', f'runs of {height * width} pixels', str(total) if total >= 0 else 'no such code'
        elif not area:
            yield place, 'unseen', 'a mask that shows something', 'an empty one'
