"""Folders that are written whole or not at all, by one process at a time."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsoc.utils.errors import UserError


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A hidden, empty folder beside ``out`` that takes its place when the block ends without an error.

    What is there before stays until then. What a killed run left is removed.

    Raises:
        OSError: a folder cannot be made or renamed; ``out`` is what it was.
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
    """Puts back what `atomic_folder` moved away, if it ended before the new folder was in its place."""
    old = out.with_name(f'.{out.name}.old')
    if old.exists() and not out.exists():
        old.rename(out)


@contextmanager
def locked(out: Path, what: str) -> Iterator[None]:
    """One writer of ``out`` at a time; the lock goes with its process. ``what`` is for the message.

    Raises:
        UserError: another process has it, and keeps it for 5 seconds.
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
