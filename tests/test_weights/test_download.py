"""Downloads from a server that fails as servers do."""

import hashlib
import threading
from collections import namedtuple

import numpy as np
import pytest

from mmsoc.utils.errors import UserError
from mmsoc.weights import download as module
from mmsoc.weights.download import Address, WeightsNotFoundError, download
from tests.ranks import assert_ended_well, run_on_ranks
from tests.test_weights.server import serving

CONTENT = np.random.default_rng(0).bytes(3 << 20)
SIZE = len(CONTENT)
SUM = hashlib.sha256(CONTENT).hexdigest()
OTHER = b'other content'


@pytest.fixture
def server():
    with serving({'/a.pth': CONTENT, '/other/a.pth': OTHER, '/b.pth': OTHER}) as server:
        yield server


def address(server, path='/a.pth', size=SIZE, sha256=SUM):
    return Address(server.url + path, size, sha256)


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != '.lock')


def test_a_file(server, tmp_path):
    path = download([address(server)], tmp_path / 'new', 'weights a')
    assert path == tmp_path / 'new' / 'a.pth' and path.read_bytes() == CONTENT and files(path.parent) == ['a.pth']
    assert download([address(server)], tmp_path / 'new', 'weights a') == path and len(server.requests) == 1


@pytest.mark.parametrize('ranges', [True, False], ids=['resumes', 'no ranges'])
def test_a_broken_connection(server, tmp_path, ranges):
    server.breaks, server.ranges = [1 << 20, 1 << 19], ranges
    path = download([address(server)], tmp_path, 'weights a')
    assert path.read_bytes() == CONTENT and files(tmp_path) == ['a.pth']
    assert (
        len(server.requests) == 3 and server.requests[0][1] is None and all(begin for _, begin in server.requests[1:])
    )


def test_a_connection_that_breaks_again_and_again_goes_on_next_time(server, tmp_path):
    server.breaks = [1 << 18] * module.ATTEMPTS
    with pytest.raises(
        WeightsNotFoundError,
        match=r'(?s)weights a cannot be downloaded:\n  http://127.0.0.1:\d+/a.pth: the connection broke off in each of 4 '
        r'attempts; the next run continues where it stopped\n.*put it at',
    ):
        download([address(server)], tmp_path, 'weights a')
    assert files(tmp_path) == ['a.pth.part'] and (tmp_path / 'a.pth.part').stat().st_size >= 1 << 18
    server.requests.clear()
    assert download([address(server)], tmp_path, 'weights a').read_bytes() == CONTENT
    assert server.requests[0][1] is not None and files(tmp_path) == ['a.pth']


def test_a_part_that_is_longer_than_the_file(server, tmp_path):
    (tmp_path / 'a.pth.part').write_bytes(CONTENT + b'more')
    assert download([address(server)], tmp_path, 'weights a').read_bytes() == CONTENT


def test_a_part_of_another_file(server, tmp_path):
    """The sum tells; nothing of it is left, so that the next download starts from the beginning."""
    (tmp_path / 'a.pth.part').write_bytes(b'x' * 1000)
    with pytest.raises(WeightsNotFoundError, match=f'expected the sha256 {SUM}, found '):
        download([address(server)], tmp_path, 'weights a')
    assert files(tmp_path) == []
    assert download([address(server)], tmp_path, 'weights a').read_bytes() == CONTENT


def test_the_next_address(server, tmp_path):
    addresses = [address(server, '/missing.pth'), Address('http://127.0.0.1:9/a.pth'), address(server)]
    assert download(addresses, tmp_path, 'weights a').read_bytes() == CONTENT


def test_no_address_has_the_file(server, tmp_path):
    addresses = [address(server, '/missing.pth'), address(server, '/other/a.pth'), Address('http://127.0.0.1:9/a.pth')]
    with pytest.raises(WeightsNotFoundError) as caught:
        download(addresses, tmp_path, 'weights a')
    first, *reasons, last = str(caught.value).splitlines()
    assert first == 'weights a cannot be downloaded:' and str(tmp_path / 'missing.pth') in last
    assert 'HTTP status 404' in reasons[0] and 'expected 3,145,728 bytes, found 13' in reasons[1]
    assert 'refused' in reasons[2] and files(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r'/a.pth: Failed to establish a new connection: .*refused\n'):
        download([Address('http://127.0.0.1:9/a.pth')], tmp_path, 'weights a')
    with pytest.raises(WeightsNotFoundError, match=r"/a.pth: Failed to resolve 'no-such-host.invalid' \(.*\)\n"):
        download([Address('http://no-such-host.invalid/a.pth')], tmp_path, 'weights a')


def test_a_wrong_sum(server, tmp_path):
    with pytest.raises(WeightsNotFoundError, match='expected the sha256 1234abcd, found ' + SUM):
        download([address(server, sha256='1234abcd')], tmp_path, 'weights a')
    assert files(tmp_path) == []


def test_the_beginning_of_a_sum(server, tmp_path):
    assert download([address(server, sha256=SUM[:8])], tmp_path, 'weights a').is_file()


def test_an_unknown_sum_is_recorded(server, tmp_path):
    unknown = address(server, size=None, sha256=None)
    path = download([unknown], tmp_path, 'weights a', record_sum=True)
    record = tmp_path / 'a.pth.sha256'
    assert record.read_text() == f'{SUM}  a.pth\n'
    path.unlink()
    assert download([unknown], tmp_path, 'weights a', record_sum=True).read_bytes() == CONTENT
    path.unlink()
    server.contents['/a.pth'] = OTHER
    with pytest.raises(WeightsNotFoundError, match=f'expected the sha256 {SUM}, recorded in {record}, found '):
        download([unknown], tmp_path, 'weights a', record_sum=True)


def test_a_url_of_the_user_s_own_may_change(server, tmp_path):
    unknown = address(server, size=None, sha256=None)
    download([unknown], tmp_path, 'weights a').unlink()
    assert files(tmp_path) == []
    server.contents['/a.pth'] = OTHER
    assert download([unknown], tmp_path, 'weights a').read_bytes() == OTHER


def test_from_a_folder(tmp_path):
    """Whose name is no URL: what is special in one is not in a path."""
    folder = tmp_path / 'half#done, 100%20'
    folder.mkdir()
    (folder / 'a.pth').write_bytes(CONTENT)
    path = download([Address(str(folder / 'a.pth'), sha256=SUM, name='a.pth')], tmp_path / 'cache', 'weights a')
    assert path == tmp_path / 'cache' / 'a.pth' and path.read_bytes() == CONTENT
    with pytest.raises(WeightsNotFoundError, match='there is no such file'):
        download([Address(str(tmp_path / 'b.pth'))], tmp_path / 'cache', 'weights b')


def test_a_full_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda path: namedtuple('usage', 'free')(1000))
    with pytest.raises(
        UserError, match=r'cannot be written to .*needs 3,145,728 more bytes, and 1,000 are free; .*TORCH_HOME'
    ):
        download([address(server)], tmp_path, 'weights a')


def test_a_disk_that_is_full_meanwhile(tmp_path):
    """A device that has no space left: what the file system says reaches the user."""
    (tmp_path / 'a.pth.part').symlink_to('/dev/full')
    with (
        serving({'/a.pth': CONTENT}) as server,
        pytest.raises(UserError, match='No space left on device; free some space'),
    ):
        download([address(server)], tmp_path, 'weights a')


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='weights a cannot be written to .*: ' + 'File exists|Not a directory'):
        download([address(server)], tmp_path / 'file', 'weights a')


def _download(rank, url, folder):
    download([Address(f'{url}/a.pth', SIZE, SUM)], folder, 'weights a')


def test_two_processes_at_once(server, tmp_path):
    """One downloads, the other waits and takes what it got."""
    server.slow = threading.Event()
    timer = threading.Timer(2, server.slow.set)
    timer.start()
    assert_ended_well(run_on_ranks(_download, server.url, tmp_path / 'cache', folder=tmp_path, fork=True))
    timer.join()
    assert len(server.requests) == 1 and (tmp_path / 'cache' / 'a.pth').read_bytes() == CONTENT
