"""Which errors end a tool with their message alone, and which exhausted memory."""

import errno
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError, is_out_of_memory, user_errors


class Broken:
    """A data set whose every item is refused."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise self.error


def raised(function, *args):
    """The exception of a call."""
    with pytest.raises(Exception) as info:
        function(*args)
    return info.value


def shown(error, status=1):
    """How a tool ends that raises the error."""
    with pytest.raises(SystemExit) as stopped, user_errors(status):
        raise error
    return stopped.value.code


def test_errors_of_the_user_are_one_line(tmp_path, capsys):
    assert shown(UserError('--fps: expected a number, found x')) == 'error: --fps: expected a number, found x'
    assert shown(UserError('no such key'), status=2) == 2
    assert capsys.readouterr().err == 'error: no such key\n'
    assert (
        shown(FileNotFoundError('weights a.pth: there is no such file'))
        == 'error: weights a.pth: there is no such file'
    )


def test_errors_of_files_name_the_file(tmp_path):
    missing = tmp_path / 'none'
    assert shown(raised(missing.read_text)) == f'error: {missing}: No such file or directory'
    assert shown(raised(tmp_path.read_text)) == f'error: {tmp_path}: Is a directory'
    assert (
        shown(raised(missing.rename, tmp_path / 'b'))
        == f'error: {missing} -> {tmp_path / "b"}: No such file or directory'
    )
    assert shown(PermissionError(errno.EACCES, 'Permission denied', '/data/x')) == 'error: /data/x: Permission denied'
    assert shown(OSError(errno.EIO, 'Input/output error', b'/data/x')) == 'error: /data/x: Input/output error'
    full = OSError(errno.ENOSPC, 'No space left on device while writing a.pth')
    assert shown(full) == 'error: No space left on device while writing a.pth'


@pytest.mark.parametrize(
    'error',
    [
        ValueError('a bug'),
        KeyError('a bug'),
        RuntimeError('a bug'),
        OSError('neither file nor number'),
        BrokenPipeError(errno.EPIPE, 'Broken pipe'),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)) as info, user_errors():
        raise error
    assert info.value is error


def test_as_a_decorator_it_works_more_than_once():
    @user_errors(status=2)
    def main(value):
        if value is None:
            raise UserError('found None')
        return value

    assert main(3) == 3
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            main(None)
        assert stopped.value.code == 2


def test_the_environment_shows_the_traceback_of_all_errors(monkeypatch):
    error = UserError('x')
    for value in ('', '0'):
        monkeypatch.setenv('MMSOC_DEBUG', value)
        assert shown(error) == 'error: x'
    monkeypatch.setenv('MMSOC_DEBUG', '1')
    with pytest.raises(UserError) as info, user_errors():
        raise error
    assert info.value is error


def test_mmengine_keeps_the_class_of_an_error():
    error = raised(METRICS.build, dict(type='SubmissionWriter', zip_file='a.tar'))
    assert type(error) is UserError and "zip_file must end in .zip, found 'a.tar'" in shown(error)


@pytest.mark.parametrize('kind', [UserError, FileNotFoundError])
def test_errors_of_a_loaders_worker_are_shown_without_its_traceback(kind):
    loader = DataLoader(Broken(kind('frame 3.jpg is missing')), num_workers=1)
    error = raised(next, iter(loader))
    assert type(error) is kind and 'Traceback' in str(error)
    assert shown(error) == 'error: frame 3.jpg is missing'


def test_a_tool_as_a_user_calls_it(root, tmp_path):
    def call(**env):
        return subprocess.run(
            [sys.executable, root / 'tools/analysis_tools/analyze_logs.py', 'cal_train_time', tmp_path / 'none'],
            capture_output=True,
            text=True,
            env=dict(os.environ, **env),
        )

    done = call()
    assert done.returncode == 2 and done.stderr.startswith('error: ') and len(done.stderr.splitlines()) == 1
    done = call(MMSOC_DEBUG='1')
    assert done.returncode == 1 and 'Traceback' in done.stderr and str(tmp_path / 'none') in done.stderr


def test_no_tool_hides_other_errors(root):
    """No ``main`` catches all errors of a built-in class, which a fault of the program may have as well."""
    mains = {path.name: path.read_text().partition('\ndef main')[2] for path in (root / 'tools').rglob('*.py')}
    hiding = [
        name for name, text in mains.items() if re.search(r'except .*(ValueError|OSError|FileNotFoundError)', text)
    ]
    assert hiding == [] and sum('user_errors' in text for text in mains.values()) > 5


# --- memory


def no_memory(kind):
    """Real errors of allocations that no machine can do."""
    size = 2**50
    calls = dict(torch=lambda: torch.empty(size), numpy=lambda: np.empty(size), python=lambda: bytearray(2**62))
    return raised(calls[kind])


@pytest.mark.parametrize('kind', ['torch', 'numpy', 'python'])
def test_exhausted_memory(kind):
    error = no_memory(kind)
    assert is_out_of_memory(error), repr(error)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_exhausted_memory_of_a_gpu():
    error = raised(lambda: torch.empty(2**45, device='cuda'))
    assert type(error) is torch.cuda.OutOfMemoryError and is_out_of_memory(error)


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError(
            'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...'
        ),
        RuntimeError('CUDA error: out of memory'),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'),
        RuntimeError(
            '[enforce fail at alloc_cpu.cpp:83] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.'
        ),
        cv2.error(
            "OpenCV(4.11.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes in function 'OutOfMemoryError'"
        ),
        OSError(errno.ENOMEM, 'Cannot allocate memory'),
    ],
    ids=str,
)
def test_messages_of_exhausted_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('CUDA error: device-side assert triggered'),
        ValueError('out of memory'),  # only says so
        OSError(errno.ENOSPC, 'No space left on device'),
        cv2.error('OpenCV(4.11.0) resize.cpp:1: error: (-215:Assertion failed) !ssize.empty()'),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_not_exhausted_memory(error):
    assert not is_out_of_memory(error)
