import os
from pathlib import Path

import pytest

from mmsoc.preparation.folders import atomic_folder, locked, restore
from mmsoc.utils.errors import UserError


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def old(tmp_path):
    out = tmp_path / 'deep' / 'set'
    out.mkdir(parents=True)
    (out / 'a').write_text('old')
    return out


def test_a_new_folder(tmp_path):
    out = tmp_path / 'deep' / 'set'
    with atomic_folder(out) as folder:
        (folder / 'a').write_text('new')
        assert not out.exists()
    assert contents(out) == {'a': 'new'} and os.listdir(out.parent) == ['set']


def test_the_old_folder_stays_until_the_end(old):
    with atomic_folder(old) as folder:
        (folder / 'b').write_text('new')
        assert contents(old) == {'a': 'old'}
    assert contents(old) == {'b': 'new'} and os.listdir(old.parent) == ['set']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder(old, error):
    with pytest.raises(error), atomic_folder(old) as folder:
        (folder / 'b').write_text('new')
        raise error
    assert contents(old) == {'a': 'old'} and os.listdir(old.parent) == ['set']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
@pytest.mark.parametrize('fails', [1, 2])
def test_a_rename_that_fails_leaves_the_old_folder(old, monkeypatch, error, fails):
    """At the first rename the old folder still has its name, at the second one it is hidden."""
    rename, calls = Path.rename, []

    def interrupted(path, target):
        calls.append(path.name)
        if len(calls) == fails:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, 'rename', interrupted)
    with pytest.raises(error), atomic_folder(old) as folder:
        (folder / 'b').write_text('new')
    assert contents(old) == {'a': 'old'} and os.listdir(old.parent) == ['set']


def test_what_a_killed_run_left(old):
    """Killed between the two renames: the old folder is hidden, the new one is not yet in its place."""
    hidden, partial = old.with_name('.set.old'), old.with_name('.set.partial')
    old.rename(hidden)
    partial.mkdir()
    (partial / 'half').touch()
    restore(old)
    assert contents(old) == {'a': 'old'} and not hidden.exists()
    old.rename(hidden)
    with pytest.raises(KeyError), atomic_folder(old) as folder:
        assert not list(folder.iterdir())
        raise KeyError
    assert contents(old) == {'a': 'old'} and os.listdir(old.parent) == ['set']
    # Killed while the old folder was removed: the new one is the whole one.
    hidden.mkdir()
    restore(old)
    assert contents(old) == {'a': 'old'}


def test_one_writer_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr('mmsoc.preparation.folders.time.sleep', lambda seconds: None)
    with (
        locked(tmp_path / 'set', 'here'),
        pytest.raises(UserError, match=r'there: another process is writing .*set; wait until it has ended'),
        locked(tmp_path / 'set', 'there'),
    ):
        pass
    with locked(tmp_path / 'set', 'here'):
        pass
