import subprocess
import sys

import pytest
import torch
from mmengine import Config

from mmsoc.registry import MODELS
from tests.helpers import TINY_ROBERTA, offline_text_encoder
from tools.model_converters.released_to_mmsoc import _missing, convert


@pytest.fixture
def released():
    """The released names of a network with two blocks per stage and one RoBERTa layer; each tensor holds its own number."""
    weights = {name: torch.tensor([float(index)]) for index, name in enumerate(_missing({}))}
    for name in weights:
        if name.startswith('bbox_embed'):
            weights[f'transformer.decoder.{name}'] = weights[name]
    return weights


def test_every_key_has_one_place_in_the_model(released, root):
    cfg = Config.fromfile(root / 'configs' / 'soc' / 'released' / 'soc_swin-t_ytvos.py').model
    offline_text_encoder(cfg)
    cfg.text_encoder.config = dict(TINY_ROBERTA, num_hidden_layers=1)
    cfg.backbone.arch = dict(embed_dims=96, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24])
    assert set(convert(released)) == set(MODELS.build(cfg).state_dict())


def test_the_decoder_s_norms_are_not_in_the_naive_order(released):
    converted = convert(released)
    for theirs, ours in (('norm1', 'norms.1'), ('norm2', 'norms.0'), ('norm3', 'norms.2')):
        assert (
            converted[f'sim.decoder.layers.1.{ours}.weight']
            is released[f'transformer.decoder.layers.1.{theirs}.weight']
        )


def test_known_variations(released):
    plain = convert(released)
    wrapped = {f'module.{name}': value for name, value in released.items()}
    wrapped['module.text_encoder.embeddings.position_ids'] = torch.arange(3)
    assert list(convert(wrapped)) == list(plain)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('vlf.multihead_attn.in_proj_bias'), r'missing \(1\): vlf.multihead_attn.in_proj_bias'),
        (lambda w: w.update({'voc.extra': torch.zeros(1)}), r'unexpected \(1\): voc.extra'),
        (
            lambda w: w.update({'transformer.decoder.bbox_embed.0.layers.0.bias': -torch.ones(1)}),
            r'unequal.*bbox_embed.0.layers.0.bias',
        ),
    ],
)
def test_every_key_is_accounted_for(released, change, message):
    change(released)
    with pytest.raises(ValueError, match=message):
        convert(released)


def run(root, *args):
    return subprocess.run(
        [sys.executable, root / 'tools' / 'model_converters' / 'released_to_mmsoc.py', *args],
        capture_output=True,
        text=True,
    )


def test_command(released, root, tmp_path):
    torch.save(dict(model_state_dict=released), tmp_path / 'in.pth')
    done = run(root, tmp_path / 'in.pth', tmp_path / 'new folder' / 'out.pth')
    assert done.returncode == 0, done.stderr
    written = torch.load(tmp_path / 'new folder' / 'out.pth', weights_only=True)
    assert set(written['state_dict']) == set(convert(released))

    released.pop('query_embed.weight')
    torch.save(dict(model_state_dict=released), tmp_path / 'in.pth')
    failed = run(root, tmp_path / 'in.pth', tmp_path / 'out.pth')
    assert (
        failed.returncode == 1
        and 'missing (1): query_embed.weight' in failed.stderr
        and 'Traceback' not in failed.stderr
    )
    assert not (tmp_path / 'out.pth').exists()


def test_command_on_something_else(root, tmp_path):
    assert 'no such file' in run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    (tmp_path / 'in.pth').write_text('hello')
    assert 'not a checkpoint' in run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    torch.save(dict(epoch=3), tmp_path / 'in.pth')
    assert (
        "expected weights under the key model_state_dict, found ['epoch']"
        in run(root, tmp_path / 'in.pth', tmp_path / 'out.pth').stderr
    )
