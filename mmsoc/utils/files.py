"""Reading of frames, id masks and JSON, and safe writing: every failure names the file."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmsoc.utils.errors import UserError


def listed(items: Sequence, most: int = 10) -> str:
    """The first few, for a message."""
    return ', '.join(map(str, items[:most])) + (', ...' if len(items) > most else '')


def clean_text(text: str, where: str) -> str:
    """The sentence in lower case, with single spaces.

    Raises:
        ValueError: it is empty.
    """
    text = ' '.join(text.lower().split())
    if not text:
        raise UserError(f'{where}: the sentence is empty')
    return text


def get_field(record: Any, name: str, kind: type, where: str) -> Any:
    """``record[name]``, of that kind.

    Raises:
        ValueError: the record is no dict, or has no such key, or it is of another kind; ``where`` says whose record it is.
    """
    if not isinstance(record, dict):
        raise UserError(f'{where}: expected an object with the key {name!r}, found {type(record).__name__}')
    if name not in record:
        raise UserError(f'{where}: the key {name!r} is missing; there are {sorted(record)}')
    if not isinstance(record[name], kind):
        raise UserError(f'{where}: {name!r} must be a {kind.__name__}, found {record[name]!r}')
    return record[name]


def load_json(path: str | Path, key: str) -> Any:
    """Reads a JSON file; ``key`` is the config key that names it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON (with the line) or not UTF-8.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f'{key}: there is no file {path}') from None
    except json.JSONDecodeError as error:
        raise UserError(f'{key}: {path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{key}: {path} is not UTF-8 text: {error}') from None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder (same suffix) that takes the place of ``path`` when the block ends without an
    error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.stem}-', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result is to be readable like any other file of this user
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def dump_json(data: Any, path: str | Path, **kwargs: Any) -> None:
    """Writes JSON so that a reader sees the old file or the whole new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, **kwargs) + '\n', encoding='utf-8')


def _open(path: str | Path, what: str, where: str) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f'{what} {path} is missing ({where})') from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f'{what} {path} cannot be read ({where}): {error}') from None


def read_frame(path: str | Path, where: str = 'no context given') -> np.ndarray:
    """Reads an image as RGB.

    Pillow, because OpenCV returns None for a broken file and a half-grey picture for a truncated one.

    Args:
        where: what the file belongs to, e.g. the video and the sentence; becomes part of the error.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image or is truncated.
    """
    with _open(path, 'frame', where) as image:
        try:
            return np.array(image.convert('RGB'))
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNGs
            raise UserError(f'frame {path} cannot be read ({where}): {error}') from None


def read_ids(path: str | Path, where: str = 'no context given') -> np.ndarray:
    """Reads a mask PNG whose pixel values are object ids (palette index, or 8-bit grey).

    Returns:
        uint8 array (H, W); 0 is background.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, is truncated, or holds colours instead of ids.
    """
    with _open(path, 'mask', where) as image:
        try:
            image.load()
        except (OSError, SyntaxError) as error:
            raise UserError(f'mask {path} cannot be read ({where}): {error}') from None
        if image.mode not in ('P', 'L'):
            raise UserError(
                f'mask {path} ({where}): expected a palette PNG whose pixel values are object ids '
                f'(mode P, or L), found mode {image.mode}'
            )
        return np.array(image)
