import contextlib
import io
import runpy
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine import Config

from mmsoc.conversion import ReleasedStateDictAdapter
from mmsoc.registry import MODELS
from tests.helpers import offline_text_encoder


@pytest.fixture
def mmsoc(root):
    """Weights of a small released network."""
    cfg = Config.fromfile(root / 'configs' / 'soc' / 'released' / 'soc_swin-t_ytvos.py').model
    offline_text_encoder(cfg)
    cfg.backbone.arch = dict(embed_dims=96, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24])
    return MODELS.build(cfg).state_dict()


def run(root, *args):
    script = str(root / 'tools' / 'model_converters' / 'released_to_mmsoc.py')
    stdout, stderr, code = io.StringIO(), '', 0
    with mock.patch.object(sys, 'argv', [script, *map(str, args)]), contextlib.redirect_stdout(stdout):
        try:
            runpy.run_path(script, run_name='__main__')
        except SystemExit as error:  # Python prints its message and ends with status 1
            stderr, code = str(error), 1
    return SimpleNamespace(returncode=code, stdout=stdout.getvalue(), stderr=stderr)


def test_command_there_and_back(mmsoc, root, tmp_path):
    torch.save(dict(state_dict=mmsoc), tmp_path / 'soc.pth')
    back = run(root, '--reverse', tmp_path / 'soc.pth', tmp_path / 'new folder' / 'released.pth')
    assert back.returncode == 0, back.stderr
    assert f'{len(mmsoc)} mmsoc keys -> {len(mmsoc) + 18} released keys' in back.stdout
    written = torch.load(tmp_path / 'new folder' / 'released.pth', weights_only=True)
    expected = ReleasedStateDictAdapter().to_released(mmsoc)
    assert written['model_state_dict'].keys() == expected.keys()
    assert written['meta'] == dict(converted_from='soc.pth')

    done = run(root, tmp_path / 'new folder' / 'released.pth', tmp_path / 'again.pth')
    assert done.returncode == 0, done.stderr
    assert f'{len(mmsoc) + 18} released keys -> {len(mmsoc)} mmsoc keys' in done.stdout
    again = torch.load(tmp_path / 'again.pth', weights_only=True)['state_dict']
    assert again.keys() == mmsoc.keys() and all(torch.equal(again[name], mmsoc[name]) for name in mmsoc)


def test_nothing_is_written_where_a_weight_is_missing(mmsoc, root, tmp_path):
    released = ReleasedStateDictAdapter().to_released(mmsoc)
    released.pop('query_embed.weight')
    torch.save(dict(model_state_dict=released), tmp_path / 'in.pth')
    failed = run(root, tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert failed.returncode == 1 and 'Traceback' not in failed.stderr
    assert 'in.pth: not a checkpoint of the released SOC' in failed.stderr
    assert 'missing (1): query_embed.weight' in failed.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in.pth']


def test_command_on_something_else(root, tmp_path):
    assert 'there is no such file' in run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    (tmp_path / 'in.pth').write_text('hello')
    assert "found a file that begins with b'hello'" in run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    torch.save(dict(epoch=3), tmp_path / 'in.pth')
    stderr = run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    assert 'expected weights under the key model_state_dict, or a state dict alone, found epoch' in stderr
