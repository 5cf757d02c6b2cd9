"""tools/model_converters/publish_model.py: a training checkpoint as a file that can be passed on."""

import hashlib
import json
import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open

from mmsoc.apis import load
from mmsoc.utils.checkpoints import read_checkpoint
from tests.conftest import ROOT
from tests.helpers import small_model

TOOL = ROOT / 'tools/model_converters/publish_model.py'


@pytest.fixture
def checkpoint(tmp_path):
    """As a Runner writes it."""
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py')
    cfg.model = Config.fromfile(ROOT / 'configs/_base_/models/soc_tiny.py').model
    model = small_model(ROOT)
    content = dict(meta=dict(epoch=3, cfg=cfg.pretty_text), state_dict=model.state_dict(), optimizer=dict(state={}))
    torch.save(content, tmp_path / 'best.pth')
    return tmp_path / 'best.pth'


@pytest.fixture
def publish(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(
            sys, 'argv', [str(TOOL), *map(str, arguments), '--out', str(tmp_path / 'out'), '--name', 'small']
        )
        runpy.run_path(str(TOOL), run_name='__main__')
        (path,) = (tmp_path / 'out').iterdir()
        assert capsys.readouterr().out.strip() == str(path)
        return path

    return run


def test_a_file_that_needs_nothing_beside_it(checkpoint, publish, tmp_path):
    (tmp_path / 'report.json').write_text(json.dumps(dict(metrics={'rvos/J&F': 81.5}, rows=[])))
    path = publish(checkpoint, '--report', tmp_path / 'report.json')
    assert path.name == f'small-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.safetensors'
    with safe_open(path, framework='pt') as file:
        assert json.loads(file.metadata()['scores']) == {'rvos/J&F': 81.5}
    expected = torch.load(checkpoint, weights_only=True)['state_dict']
    found = load(path).state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_half(checkpoint, publish):
    path = publish(checkpoint, '--half')
    weights = read_checkpoint(path)['state_dict']
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float16, torch.int64}
    assert path.stat().st_size < 1e5 + sum(tensor.nbytes for tensor in weights.values())
    assert next(load(path).parameters()).dtype == torch.float32


def test_what_does_not_fit_into_half(checkpoint, publish):
    content = torch.load(checkpoint, weights_only=True)
    name = next(iter(content['state_dict']))
    content['state_dict'][name] += 1e5
    torch.save(content, checkpoint)
    with pytest.raises(SystemExit, match=f'{name} does not fit into float16: its largest value is '):
        publish(checkpoint, '--half')


def test_a_report_without_metrics(checkpoint, publish, tmp_path):
    (tmp_path / 'report.json').write_text('{}')
    with pytest.raises(SystemExit, match='report.json: expected the key metrics'):
        publish(checkpoint, '--report', tmp_path / 'report.json')
