"""Reads frames, id masks and JSON, and writes safely; every error names the file."""

import hashlib
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmsoc.utils.errors import UserError

MAX_NAME_BYTES = 255
"""maximum length of a path component on all common file systems"""


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
    """``record[name]``, checked to be of type ``kind``.

    Raises:
        ValueError: the record is not a dict, or lacks the key, or its value has another type; ``where`` names the
            record.
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


def check_file_name(name: str, where: str) -> str:
    """``name``, if it is valid as a path component: for names of a data set that results must keep.

    Args:
        where: source of the name, for the error.

    Raises:
        UserError: it is not text, is empty, ``.`` or ``..``, contains a slash, a backslash or a control character, is
            not valid Unicode, or is longer than 255 bytes.
    """
    fault = _fault_of_name(name)
    if fault:
        raise UserError(f'{where}: expected a name that can be a file or folder, found {name!r}: {fault}')
    return name


def _fault_of_name(name: Any) -> str | None:
    if not isinstance(name, str):
        return f'it is {type(name).__name__}, not text'
    if name in ('', '.', '..'):
        return 'it is empty or names a folder above'
    if '/' in name or '\\' in name:  # which also excludes absolute paths
        return 'it holds a path separator'
    if any(unicodedata.category(character) == 'Cc' for character in name):
        return 'it holds a control character'
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return 'it is not valid Unicode'
    return f'it is {length} bytes long, and a file system takes {MAX_NAME_BYTES}' if length > MAX_NAME_BYTES else None


_PLAIN = frozenset('abcdefghijklmnopqrstuvwxyz0123456789_-.')


def safe_file_name(text: str) -> str:
    """Encodes any text as a path component. Different texts give different names, even on case-insensitive file
    systems.

    Lower-case ASCII letters, digits and ``_-.`` stand for themselves, except a dot at the beginning; ``+`` marks an
    upper-case letter; anything else becomes ``%`` and the hexadecimal digits of each of its UTF-8 bytes. The empty text is ``%``.
    A name longer than 200 characters is truncated and ends in ``%~`` and the SHA-256 of the text, which leaves room for
    a suffix.
    """
    name = ''.join(_escaped(character) for character in text)
    if name.startswith('.'):
        name = f'%2e{name[1:]}'
    if len(name) > 200:
        name = f'{name[:120]}%~{hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()}'
    return name or '%'


def _escaped(character: str) -> str:
    if character in _PLAIN:
        return character
    if character.isascii() and character.isupper():
        return f'+{character}'
    return ''.join(f'%{byte:02x}' for byte in character.encode('utf-8', 'surrogatepass'))


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder (same suffix) that replaces ``path`` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.stem}-', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result should get the user's default permissions
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def dump_json(data: Any, path: str | Path, **kwargs: Any) -> None:
    """Writes JSON atomically: a reader sees the old file or the complete new one."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(data, **kwargs) + '\n', encoding='utf-8')


def _open(path: str | Path, what: str, where: str) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f'{what} {path} is missing ({where})') from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f'{what} {path} cannot be read ({where}): {error}') from None


def read_frame(path: str | Path, where: str = 'no context given') -> np.ndarray:
    """Reads an image as RGB.

    Uses Pillow, because OpenCV returns None for a broken file and a half-grey image for a truncated one.

    Args:
        where: what the file belongs to, e.g. the video and the sentence, for the error.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image or is truncated.
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
        ValueError: it is not an image, is truncated, or contains colours instead of ids.
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
