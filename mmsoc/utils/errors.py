"""Errors of the user, and how the tools show them. Needs nothing but Python."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DEBUG = 'MMSOC_DEBUG'
"""environment variable: 1 also shows the traceback of user errors"""

_FILE_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|can't allocate memory|insufficient memory|STATUS_ALLOC_FAILED", re.IGNORECASE
)


class UserError(ValueError):
    """Invalid user input: a file, a config key, an option, an argument. The message says what was expected and found.

    The tools print only its message (`user_errors`); any other exception is a bug and keeps its traceback.
    """


@contextmanager
def user_errors(status: int = 1) -> Iterator[None]:
    """Ends the program with only the message if the user or the machine is at fault: a `UserError`, or an `OSError`
    about a file or a full disk. All other exceptions pass through and keep their traceback.

    For the ``main`` of a tool, as a decorator or around a block. ``MMSOC_DEBUG=1`` keeps the traceback of these
    errors as well.

    Args:
        status: exit status of the program; argparse uses 2.

    Raises:
        SystemExit: instead of such an error.
    """
    try:
        yield
    except Exception as error:
        if not _is_user_error(error) or os.environ.get(DEBUG, '0') not in ('', '0'):
            raise
        message = f'error: {_message(error)}'
        if status == 1:
            raise SystemExit(message) from None  # Python prints it and ends with 1
        print(message, file=sys.stderr)
        raise SystemExit(status) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the CPU or of a GPU.

    Python and NumPy raise a MemoryError, PyTorch a RuntimeError (a subclass on a GPU), OpenCV its own error, the
    operating system an OSError.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError) or type(error).__module__ == 'cv2':
        return _OUT_OF_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, OSError):
        return isinstance(error, _FILE_ERRORS) or error.filename is not None or error.errno in DISK_ERRORS
    return isinstance(error, UserError)


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
        text = ': '.join([*([' -> '.join(paths)] if paths else []), error.strerror])
    elif text.startswith('Caught ') and '\nOriginal Traceback' in text:
        # From a worker of a DataLoader: PyTorch raises the same class again, with the worker's traceback as its message.
        text = text.rpartition(f'{type(error).__name__}: ')[2].strip()
    return text
