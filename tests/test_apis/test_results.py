"""Replacing results: all or none, whatever interrupts it."""

import shutil
from contextlib import suppress
from logging import WARNING
from pathlib import Path

import pytest

from mmsoc.apis import results
from mmsoc.apis.results import ResultFolder, check_out_dir

# The earlier results have an image, the new ones a video and fewer masks: names that only one of both has.
EARLIER = {
    'masks/0_dog/00000.png': b'old 0',
    'masks/0_dog/00001.png': b'old 1',
    'overlay.png': b'old',
    'scores.json': b'{}',
}
NEW = {'masks/0_cat/00000.png': b'new 0', 'overlay.mp4': b'new', 'scores.json': b'[]'}
OTHER = {'thesis.txt': b'mine'}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def out(tmp_path):
    """A folder with results and a file that does not belong to the results."""
    write(tmp_path / 'out', EARLIER | OTHER)
    return tmp_path / 'out'


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def visible(folder):
    """Contents by path, without the hidden ones."""
    files = (path for path in folder.rglob('*') if path.is_file())
    contents = {path.relative_to(folder): path.read_bytes() for path in files}
    return {str(path): content for path, content in contents.items() if not path.parts[0].startswith('.')}


def replace(out):
    with ResultFolder(out, overwrite=True) as folder:
        write(folder, NEW)
        Faults.armed = True


class Faults:
    """Counts the calls that change the folder, once the results are written, and raises at chosen ones."""

    armed = False

    def __init__(self, monkeypatch, error=None, at=(), after=False):
        """
        Args:
            at: numbers of the calls that raise ``error``, from 0.
            after: raises when the call has done its work, as an interrupt may.
        """
        self.calls = 0
        self.error, self.at, self.after = error, at, after
        Faults.armed = False
        for owner, names in ((Path, ('replace', 'rename', 'mkdir', 'rmdir', 'unlink')), (shutil, ('rmtree',))):
            for name in names:
                monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))

    def wrap(self, function):
        def call(*args, **kwargs):
            if not Faults.armed:
                return function(*args, **kwargs)
            number, self.calls = self.calls, self.calls + 1
            if number in self.at and not self.after:
                raise self.error
            value = function(*args, **kwargs)
            if number in self.at:
                raise self.error
            return value

        return call


@pytest.fixture
def count(out, monkeypatch):
    """How many calls a replacement takes; ``out`` is as before."""
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        replace(out)
    shutil.rmtree(out)
    write(out, EARLIER | OTHER)
    return faults.calls


def test_results_are_replaced(out):
    replace(out)
    assert visible(out) == NEW | OTHER
    assert sorted(path.name for path in out.iterdir()) == ['masks', 'overlay.mp4', 'scores.json', 'thesis.txt']


@pytest.mark.parametrize('after', [False, True], ids=['before', 'after'])
@pytest.mark.parametrize(
    'error', [OSError('disk'), KeyboardInterrupt(), SystemExit(143)], ids=lambda error: type(error).__name__
)
def test_an_exception_at_any_call_leaves_all_old_or_all_new_results(out, count, monkeypatch, error, after):
    assert count >= 8  # three renames of old results and three of new ones, and what is around them
    found = []
    for number in range(count):
        with monkeypatch.context() as patch:
            Faults(patch, error, {number}, after)
            with suppress(type(error)):
                replace(out)
        found.append(visible(out))
        assert found[-1] in (EARLIER | OTHER, NEW | OTHER), f'call {number}'
        # Nothing of it stands in the way of the next run.
        replace(out)
        assert visible(out) == NEW | OTHER and not list(out.glob('.*')), f'call {number}'
        shutil.rmtree(out)
        write(out, EARLIER | OTHER)
    assert found[0] == EARLIER | OTHER


def test_a_killed_run_leaves_both_results_in_full(out, count, monkeypatch):
    """From call n on nothing is done any more."""
    lines = []
    monkeypatch.setattr(results, 'print_log', lambda message, logger, level: lines.append((message, level)))
    for number in range(count):
        with monkeypatch.context() as patch:
            Faults(patch, Killed(), range(number, 10**6))
            with pytest.raises(Killed):
                replace(out)
        left = [path.read_bytes() for path in out.rglob('*') if path.is_file()]
        # The last calls remove the earlier results, when the new ones are in place.
        committed = visible(out) == NEW | OTHER and not list(out.glob('.mmsoc-new-*'))
        for content in [*NEW.values(), *([] if committed else EARLIER.values())]:
            assert content in left, f'call {number}'
        lines.clear()
        check_out_dir(out, overwrite=True)
        assert visible(out) in (EARLIER | OTHER, NEW | OTHER), f'call {number}'
        if any('a run was killed while it replaced' in message for message, _ in lines):
            assert visible(out) == NEW | OTHER
        replace(out)
        assert visible(out) == NEW | OTHER
        shutil.rmtree(out)
        write(out, EARLIER | OTHER)


def test_a_replacement_that_was_killed_is_completed_and_reported(out, monkeypatch):
    lines = []
    monkeypatch.setattr(results, 'print_log', lambda message, logger, level: lines.append((message, level)))
    # As in step 2 of `_Replacement`: the new results are complete, one of the earlier ones has moved.
    write(out / '.mmsoc-new-x', NEW)
    (out / '.mmsoc-earlier-x').mkdir()
    (out / 'masks').rename(out / '.mmsoc-earlier-x' / 'masks')
    with pytest.raises(ValueError, match='is not empty'):
        check_out_dir(out, overwrite=False)
    assert visible(out) == NEW | OTHER and not list(out.glob('.*'))
    assert lines == [
        (f'{out}: a run was killed while it replaced earlier results; its results are in place now', WARNING)
    ]


def test_incomplete_results_of_a_killed_run_are_reported(out, monkeypatch):
    lines = []
    monkeypatch.setattr(results, 'print_log', lambda message, logger, level: lines.append((message, level)))
    write(out / '.mmsoc-partial-x', {'scores.json': b''})
    replace(out)
    assert lines == [
        (f'{out}: incomplete results of a run that was killed: {out}/.mmsoc-partial-x; delete them', WARNING)
    ]
    assert visible(out) == NEW | OTHER and (out / '.mmsoc-partial-x').is_dir()


def test_a_first_run_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        replace(tmp_path / 'out')
    for number in range(faults.calls):
        shutil.rmtree(tmp_path / 'out', ignore_errors=True)
        with monkeypatch.context() as patch:
            Faults(patch, OSError('disk'), {number})
            with suppress(OSError):
                replace(tmp_path / 'out')
        assert visible(tmp_path / 'out') == NEW or not (tmp_path / 'out').exists(), f'call {number}'
