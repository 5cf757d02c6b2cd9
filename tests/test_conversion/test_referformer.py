"""The released ReferFormer's weights under mmsoc's names and back."""

import pytest
import torch
from mmengine import Config

from mmsoc.conversion import ReferFormerStateDictAdapter
from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError
from tests.helpers import TINY_ROBERTA, offline_text_encoder
from tools.model_converters.released_to_mmsoc import convert

ADAPTER = ReferFormerStateDictAdapter()


@pytest.fixture(scope='module')
def mmsoc(root):
    cfg = Config.fromfile(root / 'configs/referformer/referformer_video-swin-t_ytvos.py').model
    offline_text_encoder(cfg)
    cfg.text_encoder.config = dict(TINY_ROBERTA, num_hidden_layers=1)
    cfg.backbone.arch = dict(embed_dims=96, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24])
    return MODELS.build(cfg).state_dict()


def test_there_and_back(mmsoc):
    released = ADAPTER.to_released(mmsoc)
    assert len(released) == len(mmsoc) + 24  # the box branches' second name: 4 x 3 layers, weight and bias
    back = ADAPTER.to_mmsoc(released)
    assert back.keys() == mmsoc.keys() and all(back[name] is mmsoc[name] for name in mmsoc)


def test_names(mmsoc):
    released = ADAPTER.to_released(mmsoc)
    for theirs, ours in {
        'resizer.fc.weight': 'text_encoder.resizer.0.weight',
        'fusion_module.multihead_attn.out_proj.bias': 'fusion.l2v.attn.out_proj.bias',
        'pixel_decoder.adapter_1.weight': 'head.pixel_decoder.laterals.0.conv.weight',
        'pixel_decoder.layer_4.norm.bias': 'head.pixel_decoder.convs.3.gn.bias',
        'pixel_decoder.cross_attn_2.multihead_attn.in_proj_weight': 'head.pixel_decoder.blocks.1.cross_attn.attn.in_proj_weight',
        'pixel_decoder.cross_attn_3.norm1.weight': 'head.pixel_decoder.blocks.2.norms.0.weight',
        'pixel_decoder.mask_features.bias': 'head.pixel_decoder.out_conv.bias',
        # the trap of the frame-level decoder: norm1 follows the cross-attention
        'transformer.decoder.layers.3.norm1.weight': 'sim.decoder.layers.3.norms.1.weight',
        'transformer.decoder.bbox_embed.3.layers.2.bias': 'head.box_branches.3.layers.2.bias',
    }.items():
        assert released[theirs] is mmsoc[ours], theirs


def test_strict(mmsoc):
    released = dict(ADAPTER.to_released(mmsoc))
    released['pixel_decoder.extra'] = released.pop('pixel_decoder.mask_features.bias')
    with pytest.raises(
        UserError,
        match=r'(?s)not a checkpoint of the released ReferFormer:.*missing \(1\): pixel_decoder\.mask_features\.bias.*'
        r'unexpected \(1\): pixel_decoder\.extra',
    ):
        ADAPTER.to_mmsoc(released)
    with pytest.raises(UserError, match='not the weights of a model of configs/referformer/'):
        ADAPTER.to_released({'x': torch.zeros(1)})


def test_the_tool(mmsoc, tmp_path):
    torch.save({'model': ADAPTER.to_released(mmsoc)}, tmp_path / 'released.pth')
    said = convert(tmp_path / 'released.pth', str(tmp_path / 'mmsoc.pth'), False, 'referformer')
    assert said.endswith('mmsoc keys: ' + str(tmp_path / 'mmsoc.pth'))
    weights = torch.load(tmp_path / 'mmsoc.pth', weights_only=True)['state_dict']
    assert all(torch.equal(weights[name], mmsoc[name]) for name in mmsoc)
