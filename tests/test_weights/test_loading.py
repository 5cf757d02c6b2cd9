"""From names, URLs and files to checkpoints."""

import hashlib

import pytest
import torch
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmsoc.utils.errors import UserError
from mmsoc.weights import (
    TABLE,
    Weights,
    WeightsNotFoundError,
    fetch,
    is_name,
    load_checkpoint,
    markdown_table,
    register_loader,
)
from mmsoc.weights.download import Address, address_of
from tests.conftest import ROOT
from tests.test_weights.server import serving


def save(path, **state_dict):
    torch.save({'state_dict': state_dict or {'w': torch.ones(2)}}, path)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('MMSOC_WEIGHTS', raising=False)
    return tmp_path / 'home/hub/checkpoints'


@pytest.fixture
def named(monkeypatch, tmp_path):
    """Weights `mine` on a server."""
    content = save(tmp_path / 'served.pth').read_bytes()
    with serving({'/mine.pth': content}) as server:
        address = Address(f'{server.url}/mine.pth', len(content), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(TABLE, 'mine', Weights('mine', 'for tests', 'mmsoc', (address,), 'Apache-2.0'))
        server.content = content
        yield server


def test_a_name(named, cache):
    assert list(load_checkpoint('mine')['state_dict']) == ['w'] and (cache / 'mine.pth').is_file()
    assert fetch('mine') == cache / 'mine.pth' and len(named.requests) == 1


def test_a_mirror_comes_first(named, cache, tmp_path, monkeypatch):
    (tmp_path / 'mirror').mkdir()
    (tmp_path / 'mirror' / 'mine.pth').write_bytes(named.content)
    monkeypatch.setenv('MMSOC_WEIGHTS', str(tmp_path / 'mirror'))
    assert fetch('mine').read_bytes() == named.content and named.requests == []
    (cache / 'mine.pth').unlink()
    monkeypatch.setenv('MMSOC_WEIGHTS', f'{named.url}/elsewhere')  # it lacks the file: the table's address is next
    assert fetch('mine').read_bytes() == named.content
    assert [path for path, _ in named.requests] == ['/elsewhere/mine.pth', '/mine.pth']


def test_an_unknown_name():
    with pytest.raises(
        WeightsNotFoundError, match="there is no file 'mine' and no weights of this name; the nearest names: "
    ):
        load_checkpoint('mine')
    with pytest.raises(
        WeightsNotFoundError, match="'video-swin-tiny' and no weights of this name; the nearest names: .*video-swin-t"
    ):
        fetch('video-swin-tiny')


def test_what_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'weights').touch()
    assert is_name('soc-mini')
    assert not any(map(is_name, ['weights', 'soc-mini.pth', './soc-mini', 'https://host/soc-mini', 'a.safetensors']))


def test_urls(tmp_path, cache):
    source = save(tmp_path / 'a.pth')
    assert list(load_checkpoint(source.as_uri())['state_dict']) == ['w']
    source.unlink()  # now it is read from the cache
    assert list(load_checkpoint(source.as_uri())['state_dict']) == ['w']
    with pytest.raises(WeightsNotFoundError, match=r'(?s)weights file:.*/b\.pth cannot be downloaded.*no such file'):
        load_checkpoint((tmp_path / 'b.pth').as_uri())
    with pytest.raises(UserError, match='expected a URL of http, https or file'):
        load_checkpoint('s3://bucket/b.pth')
    with pytest.raises(UserError, match='expected a URL that ends in a file name'):
        load_checkpoint('https://127.0.0.1:9/')
    (cache / 'a.pth').write_text('<html>')
    with pytest.raises(UserError, match=r'a\.pth \(in .*/home/hub/checkpoints/a\.pth\) cannot be read'):
        load_checkpoint(source.as_uri())


def test_the_sum_in_a_name():
    assert address_of('https://host/soc_20260930-1234abcd.pth').sha256 == '1234abcd'
    assert address_of('https://host/soc-tiny.pth').sha256 is None


def test_mmengine_reads_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes)
    register_loader()
    model = nn.Linear(1, 1)
    mmengine_load_checkpoint(model, str(save(tmp_path / 'a.pth', weight=torch.tensor([[3.0]]), bias=torch.ones(1))))
    assert model.weight.item() == 3
    with pytest.raises(UserError, match='NaN or infinite'):
        mmengine_load_checkpoint(model, str(save(tmp_path / 'a.pth', weight=torch.tensor([[float('nan')]]))))


@pytest.mark.parametrize('name', TABLE)
def test_entries(name):
    """What can be told without a network."""
    weights = TABLE[name]
    assert is_name(name) and weights.name == name and weights.license and weights.what
    assert bool(weights.scores) == (weights.measured_by is not None) == (weights.scored_on is not None)
    assert weights.layout in ('mmsoc', 'released') or weights.config is None
    for address in weights.addresses:
        assert address.url.startswith(('https://', 'hf://'))
        assert address.file


def test_the_table_of_the_documentation():
    """`python tools/weights.py list --markdown` prints it."""
    assert markdown_table() in (ROOT / 'docs/model_zoo.md').read_text()
