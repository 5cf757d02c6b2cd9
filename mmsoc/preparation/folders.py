"""Folders that are written atomically, by one process at a time."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsoc.utils.errors import UserError


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A hidden, empty folder beside ``out`` that replaces it when the block ends without an error.

    The old content of ``out`` stays until then. Leftovers of a killed run are removed.

    Raises:
        OSError: a folder cannot be made or renamed; ``out`` is unchanged.
    """
    partial, old = (out.with_name(f'.{out.name}.{suffix}') for suffix in ('partial', 'old'))
    restore(out)
    for rest in (partial, old):
        shutil.rmtree(rest, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        restore(out)
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)


def restore(out: Path) -> None:
    """Restores the folder that `atomic_folder` moved away, if it was killed before the new one was in place."""
    old = out.with_name(f'.{out.name}.old')
    if old.exists() and not out.exists():
        old.rename(out)


@contextmanager
def locked(out: Path, what: str) -> Iterator[None]:
    """Locks ``out`` for one writer; the lock ends with its process. ``what`` is for the message.

    Raises:
        UserError: another process holds the lock for 5 seconds.
    """
    path = out.with_name(f'.{out.name}.lock')
    with open(path, 'w') as file:
        for attempt in range(21):  # the workers of a killed run hold it until they notice
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 20:
                    raise UserError(f'{what}: another process is writing {out}; wait until it has ended') from None
                time.sleep(0.25)
        yield
