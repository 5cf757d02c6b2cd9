import pytest

from mmsoc.preparation.moving_shapes import TenthLines
from mmsoc.preparation.progress import progress_bar


def count(show, total):
    for done in range(1, total + 1):
        show(done, total)


@pytest.fixture
def not_a_terminal(monkeypatch):
    for name in ('FORCE_COLOR', 'TTY_COMPATIBLE', 'TTY_INTERACTIVE'):
        monkeypatch.delenv(name, raising=False)


def test_elsewhere(not_a_terminal, capsys):
    calls = []
    with progress_bar('files', elsewhere=lambda done, total: calls.append((done, total))) as show:
        count(show, 2)
    with progress_bar('files') as show:
        count(show, 2)
    assert calls == [(1, 2), (2, 2)] and capsys.readouterr() == ('', '')


def test_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('TERM', 'xterm')
    calls = []
    with pytest.raises(KeyError), progress_bar('files', elsewhere=lambda *_: calls.append(1)) as show:
        assert capsys.readouterr().err == ''  # no thread before the first call: processes may be forked until then
        count(show, 3)
        raise KeyError
    shown = capsys.readouterr()
    assert 'files' in shown.err and '3/3' in shown.err and shown.out == '' and calls == []


def test_tenths(capsys):
    count(TenthLines(), 25)
    lines = capsys.readouterr().err.splitlines()
    # the first counts that reach 2.5, 5, 7.5, ... of 25
    assert [line.split()[1] for line in lines] == ['3', '5', '8', '10', '13', '15', '18', '20', '23', '25']
    assert lines[-1] == 'MovingShapes: 25 of 25 videos, about 0 s left'
