"""Downloads: resumed, checked by their sum, by one process at a time, from the first address that has the file."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

import requests
from filelock import FileLock, Timeout
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmsoc.utils.errors import UserError

ATTEMPTS = 4
"""connections to one address, each of which goes on where the last one broke off"""
TIMEOUT = (10, 60)
"""seconds until a connection is given up, and between two packets"""
_CHUNK = 1 << 16  # what a broken connection loses at most
_PART = '.part'
_RECORD = '.sha256'
_DRIVE = 'drive.google.com'
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class Address(NamedTuple):
    """Where a file lies, and what it must be."""

    url: str
    size: int | None = None
    """in bytes; None: not known"""
    sha256: str | None = None
    """in hexadecimal digits, the first eight or more; None: not known"""
    name: str | None = None
    """of the file; None: the last part of ``url``"""

    @property
    def file(self) -> str:
        return self.name or Path(urlparse(self.url).path).name


class WeightsNotFoundError(UserError):
    """There are no weights of this name, or no address gives the file."""


def download(addresses: Sequence[Address], folder: Path, what: str, *, record_sum: bool = False) -> Path:
    """Downloads a file from the first address that has it, unless the file of one of them is there.

    An interrupted download leaves a file with the suffix ``.part``, and the next call goes on from there.

    Args:
        addresses: are tried in order.
        folder: where the file goes; it is made.
        what: what the messages call the file.
        record_sum: write the sum of a file whose sum is not known to a ``.sha256`` beside it, in the form of ``sha256sum``; later
            downloads must have the same.

    Returns:
        The file's path.

    Raises:
        WeightsNotFoundError: no address gives the file; the message has the reason for each.
        UserError: the file cannot be written.
    """
    found = _present(addresses, folder)
    if found:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / addresses[0].file, what):
            # Another process may have downloaded it meanwhile.
            return _present(addresses, folder) or _try_all(addresses, folder, what, record_sum)
    except OSError as error:
        raise UserError(f'{what} cannot be written to {folder}: {error.strerror or error}{_remedy(error)}') from error


def _present(addresses: Sequence[Address], folder: Path) -> Path | None:
    return next((path for address in addresses if (path := folder / address.file).is_file()), None)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    """Waits until no other process downloads ``path``."""
    lock = FileLock(f'{path}.lock')
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        print_log(f'{what}: waiting for another process that downloads {path.name}', 'current')
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return '; free some space, or put the cache elsewhere: TORCH_HOME=FOLDER'
    return ''


def _try_all(addresses: Sequence[Address], folder: Path, what: str, record_sum: bool) -> Path:
    reasons = []
    for address in addresses:
        path = folder / address.file
        try:
            _try(address, path, record_sum)
            return path
        except (requests.RequestException, UserError) as error:
            reasons.append(f'{address.url}: {_reason(error)}')
    raise WeightsNotFoundError(
        '\n  '.join([f'{what} cannot be downloaded:', *reasons])
        + f'\nDownload the file on a machine with a network, and put it at {folder / addresses[0].file}'
    )


def _reason(error: Exception) -> str:
    """What went wrong, without the layers that passed it on."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f'the connection broke off in each of {ATTEMPTS} attempts; the next run continues where it stopped'
    cause = getattr(error.args[0], 'reason', None) if error.args else None  # of urllib3's MaxRetryError
    return re.sub(r'^\w+\(.*?\): ', '', _first_line(cause or error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _try(address: Address, path: Path, record_sum: bool) -> None:
    part = path.with_name(path.name + _PART)
    url = urlparse(address.url)
    if '://' not in address.url or url.scheme == 'file':
        source = Path(unquote(url.path) if url.scheme == 'file' else address.url)
        if not source.is_file():
            raise UserError('there is no such file')
        shutil.copyfile(source, part)
    elif url.hostname == _DRIVE:
        _download_from_drive(address, part)
    else:
        _download(address, part)
    record = path.with_name(path.name + _RECORD) if record_sum else None
    fault = _fault(part, address, record)
    if fault:
        part.unlink()
        raise UserError(fault)
    part.replace(path)


def _fault(part: Path, address: Address, record: Path | None) -> str | None:
    """What is wrong with a file; a sum that is not known is written to ``record``, or compared with it."""
    size = part.stat().st_size
    if address.size is not None and size != address.size:
        return f'expected {address.size:,} bytes, found {size:,}'
    expected, source = address.sha256, ''
    if expected is None:
        if record is None:
            return None
        if not record.is_file():
            found = sha256_of(part)
            record.write_text(f'{found}  {part.stem}\n')
            print_log(f'{part.stem}: its sum is not known; recorded in {record}: {found}', 'current')
            return None
        expected, source = record.read_text().split()[0], f', recorded in {record}'
    found = sha256_of(part)
    return None if found.startswith(expected) else f'expected the sha256 {expected}{source}, found {found}'


def _download(address: Address, part: Path) -> None:
    """Fills ``part``, which may hold the beginning."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _receive(address, part, before)
            return
        except _BROKEN:
            after = part.stat().st_size if part.is_file() else 0
            if attempt == ATTEMPTS or after == before:
                raise


def _receive(address: Address, part: Path, begin: int) -> None:
    headers = {'Range': f'bytes={begin}-', 'Accept-Encoding': 'identity'} if begin else {'Accept-Encoding': 'identity'}
    with requests.get(address.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and begin:
            part.unlink()  # it is whole, or longer than the file: not what lies there
            return _receive(address, part, 0)
        if not response.ok:
            raise UserError(f'HTTP status {response.status_code} {response.reason}')
        resumes = response.status_code == requests.codes.partial_content
        if resumes and not re.match(rf'bytes {begin}-', response.headers.get('Content-Range', '')):
            raise UserError(f'asked for the bytes from {begin}, got {response.headers.get("Content-Range")}')
        begin = begin if resumes else 0
        rest = response.headers.get('Content-Length')
        total = begin + int(rest) if rest else address.size
        if total is not None and total - begin > (free := shutil.disk_usage(part.parent).free):
            raise OSError(errno.ENOSPC, f'the file needs {total - begin:,} more bytes, and {free:,} are free')
        with open(part, 'ab' if resumes else 'wb') as file, _progress_bar(part.stem, begin, total) as advance:
            for block in response.iter_content(_CHUNK):
                file.write(block)
                advance(len(block))
    return None


@contextmanager
def _progress_bar(name: str, begin: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, in the main process. Yields a function to be called with the number of new bytes."""
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    hidden = not (console.is_interactive and is_main_process())
    with Progress(TextColumn(name), *columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(name, completed=begin, total=total)
        yield lambda count: bar.advance(task, count)


def _download_from_drive(address: Address, part: Path) -> None:
    try:
        import gdown
    except ImportError:
        raise UserError('files of Google Drive need the package gdown: pip install gdown') from None
    try:
        gdown.download(address.url, str(part), quiet=not is_main_process(), resume=True)
    except Exception as error:  # gdown's own classes changed between versions
        raise UserError(f'gdown: {_reason(error)}') from error
    if not part.is_file():
        raise UserError('gdown gave no file')


def address_of(url: str) -> Address:
    """By OpenMMLab's and PyTorch's custom, ``NAME-1234abcd.pth`` has the first digits of its sha256 in its name."""
    found = re.search(r'-([0-9a-f]{8,})\.', os.path.basename(urlparse(url).path))
    return Address(url, sha256=found[1] if found else None)
