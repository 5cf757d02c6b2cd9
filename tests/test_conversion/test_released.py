"""The released SOC's weights under mmsoc's names and back."""

import json

import pytest
import torch
from mmengine import Config

from mmsoc.conversion import ReleasedStateDictAdapter
from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError
from tests.helpers import TINY_ROBERTA, offline_text_encoder

ADAPTER = ReleasedStateDictAdapter()


@pytest.fixture(scope='module')
def mmsoc(root):
    """Random weights of a released network with two blocks per stage, one RoBERTa layer and three classes."""
    cfg = Config.fromfile(root / 'configs' / 'soc' / 'released' / 'soc_swin-t_ytvos.py').model
    offline_text_encoder(cfg)
    cfg.text_encoder.config = dict(TINY_ROBERTA, num_hidden_layers=1)
    cfg.backbone.arch = dict(embed_dims=96, depths=[2, 2, 2, 2], num_heads=[3, 6, 12, 24])
    cfg.head.num_classes = 3
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in MODELS.build(cfg).state_dict().items()
    }


@pytest.fixture
def released(mmsoc):
    return ADAPTER.to_released(mmsoc)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(a[name] is b[name] for name in a)


def test_there_and_back(mmsoc, released):
    assert len(released) == len(mmsoc) + 18  # the box branches' second name: 3 x 3 layers, weight and bias
    assert same(ADAPTER.to_mmsoc(released), mmsoc)
    assert same(ADAPTER.to_released(ADAPTER.to_mmsoc(released)), released)


def test_names(mmsoc, released):
    """By hand, one of each part."""
    for theirs, ours in {
        'backbone.0.body.patch_embed.proj.weight': 'backbone.patch_embed.proj.weight',
        'backbone.0.body.layers.1.blocks.0.attn.qkv.bias': 'backbone.layers.1.blocks.0.attn.qkv.bias',
        'backbone.0.body.downsamples.2.reduction.weight': 'backbone.layers.2.downsample.reduction.weight',
        'input_proj.1.0.weight': 'neck.convs.1.conv.weight',
        'input_proj.3.1.bias': 'neck.extra_convs.0.gn.bias',
        'text_encoder.encoder.layer.0.output.dense.bias': 'text_encoder.roberta.encoder.layer.0.output.dense.bias',
        'txt_proj.fc.weight': 'text_encoder.resizer.0.weight',
        'vlf.multihead_attn.in_proj_weight': 'fusion.l2v.attn.in_proj_weight',
        'lvf.multihead_attn.out_proj.bias': 'fusion.v2l.attn.out_proj.bias',
        'query_embed.weight': 'sim.query_embed.weight',
        'transformer.encoder.layers.2.linear2.bias': 'sim.encoder.layers.2.ffn.layers.1.bias',
        'transformer.encoder.layers.0.norm1.weight': 'sim.encoder.layers.0.norms.0.weight',
        # The naive order of the decoder's norms loads silently.
        'transformer.decoder.layers.1.norm1.weight': 'sim.decoder.layers.1.norms.1.weight',
        'transformer.decoder.layers.1.norm2.weight': 'sim.decoder.layers.1.norms.0.weight',
        'transformer.decoder.layers.1.norm3.weight': 'sim.decoder.layers.1.norms.2.weight',
        'transformer.decoder.bbox_embed.2.layers.1.weight': 'head.box_branches.2.layers.1.weight',
        'voc.fq_pos.weight': 'sim.cluster.frame_query_pos.weight',
        'voc.enc_self_attn.0.norm.bias': 'sim.cluster.encoder.layers.0.norms.0.bias',
        'voc.enc_ffn.0.norm.bias': 'sim.cluster.encoder.layers.0.norms.1.bias',
        'voc.transformer_cross_attention_layers.1.norm.bias': 'sim.cluster.decoder.layers.1.norms.0.bias',
        'voc.transformer_self_attention_layers.1.norm.bias': 'sim.cluster.decoder.layers.1.norms.1.bias',
        'voc.transformer_ffn_layers.1.norm.bias': 'sim.cluster.decoder.layers.1.norms.2.bias',
        'class_embed.2.bias': 'head.cls_branches.2.layers.0.bias',
        'controller.layers.2.weight': 'head.kernel_branch.layers.2.weight',
        'spatial_decoder.lay1.weight': 'head.pixel_decoder.stem.conv.weight',
        'spatial_decoder.gn5.weight': 'head.pixel_decoder.convs.3.gn.weight',
        'spatial_decoder.adapter3.weight': 'head.pixel_decoder.laterals.2.weight',
        'spatial_decoder.out_lay.bias': 'head.pixel_decoder.out_conv.bias',
    }.items():
        assert released[theirs] is mmsoc[ours]
    names = ADAPTER.mmsoc_names(released)
    assert {names[name] for name in names} == set(mmsoc)


@pytest.mark.parametrize('backbone', ['swin-t', 'swin-b'])
def test_names_and_shapes_of_the_released_network(reference, backbone):
    """Recorded from the release: real depths, in its own order."""
    shapes = json.loads((reference / 'golden' / f'soc_{backbone}_tiny-roberta_state_dict.json').read_text())
    released = {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
    for name in released:
        if name.startswith('bbox_embed.'):
            released[f'transformer.decoder.{name}'] = released[name]
    back = ADAPTER.to_released(ADAPTER.to_mmsoc(released))
    assert {name: list(value.shape) for name, value in back.items()} == shapes


def test_known_variations(mmsoc, released):
    wrapped = {f'module.{name}': value for name, value in released.items()}
    wrapped['module.text_encoder.embeddings.position_ids'] = torch.arange(3)
    assert same(ADAPTER.to_mmsoc(wrapped), mmsoc)
    assert same(ADAPTER.to_released({f'module.{name}': value for name, value in mmsoc.items()}), released)
    # equal, in memory of its own, as after a checkpoint of another device
    copied = {name: value.clone() for name, value in released.items()}
    assert ADAPTER.to_mmsoc(copied)['head.box_branches.0.layers.0.bias'] is copied['bbox_embed.0.layers.0.bias']


def set_to(name, value):
    return lambda weights: weights.__setitem__(name, value)


def drop(*names):
    return lambda weights: [weights.pop(name) for name in names]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            drop('vlf.multihead_attn.in_proj_bias', 'query_embed.weight'),
            r'missing \(2\): query_embed\.weight, vlf\.multihead_attn\.in_proj_bias|'
            r'missing \(2\): vlf\.multihead_attn\.in_proj_bias, query_embed\.weight',
        ),
        (
            drop('backbone.0.body.layers.2.blocks.0.norm1.weight', 'text_encoder.pooler.dense.bias'),
            r'missing \(2\): backbone\.0\.body\.layers\.2\.blocks\.0\.norm1\.weight, text_encoder\.pooler\.dense\.bias$',
        ),
        (drop('transformer.decoder.bbox_embed.1.layers.2.bias'), r'missing \(1\): transformer\.decoder\.bbox_embed\.1'),
        (set_to('voc.extra', torch.zeros(1)), r'unexpected \(1\): voc\.extra$'),
        (set_to('module.query_embed.weight', torch.zeros(1)), r'unexpected \(1\): module\.query_embed\.weight$'),
        (
            set_to('backbone.0.body.layers.0.blocks.999999999.norm1.weight', torch.zeros(96)),
            r'(?s:missing \(14\): .*)unexpected \(1\): backbone\.0\.body\.layers\.0\.blocks\.999999999\.norm1\.weight',
        ),
        (
            set_to('controller.layers.1.weight', torch.zeros(256, 255)),
            r'of another shape \(1\): controller\.layers\.1\.weight: expected \(256, 256\), found \(256, 255\)$',
        ),
        (
            set_to('lvf.multihead_attn.in_proj_weight', torch.zeros(256, 256)),
            r'of another shape \(1\): lvf\.multihead_attn\.in_proj_weight: expected \(768, 256\), found \(256, 256\)$',
        ),
        (
            set_to('backbone.0.body.patch_embed.proj.weight', torch.zeros(96, 3, 2, 4, 4)),
            r'of another shape \(1\): .*patch_embed\.proj\.weight: expected \(96, 3, 1, 4, 4\), found \(96, 3, 2, 4, 4\)$',
        ),
        (
            set_to('query_embed.weight', torch.zeros(20)),
            r'of another shape \(1\): query_embed\.weight: expected \(20, 256\), found \(20,\)$',
        ),
        (
            set_to('transformer.decoder.bbox_embed.0.layers.0.bias', torch.full((256,), -1.0)),
            r'unequal to the bbox_embed of the same name \(1\): transformer\.decoder\.bbox_embed\.0\.layers\.0\.bias$',
        ),
    ],
)
def test_every_released_weight_is_accounted_for(released, change, message):
    change(released)
    with pytest.raises(UserError, match=rf'not a checkpoint of the released SOC:\n.*({message})'):
        ADAPTER.to_mmsoc(released)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (drop('sim.level_embed'), r'missing \(1\): sim\.level_embed$'),
        (set_to('auxiliary_heads.0.weight', torch.zeros(1)), r'unexpected \(1\): auxiliary_heads\.0\.weight$'),
        (
            set_to('head.cls_branches.1.layers.0.weight', torch.zeros(65, 256)),
            r'of another shape \(1\): head\.cls_branches\.1\.layers\.0\.weight: expected \(3, 256\), found \(65, 256\)$',
        ),
        (
            set_to('head.pixel_decoder.laterals.1.weight', torch.zeros(65, 256, 1, 1)),
            r'laterals\.1\.weight: expected \(64, 256, 1, 1\), found \(65, 256, 1, 1\)$',
        ),
    ],
)
def test_every_mmsoc_weight_is_accounted_for(mmsoc, change, message):
    weights = dict(mmsoc)
    change(weights)
    with pytest.raises(UserError, match=rf'not the weights of a model of configs/soc/released/:\n.*({message})'):
        ADAPTER.to_released(weights)


def test_all_faults_at_once(released):
    for change in (
        drop('query_embed.weight'),
        set_to('x', torch.zeros(1)),
        set_to('controller.layers.2.bias', torch.zeros(2)),
    ):
        change(released)
    with pytest.raises(UserError) as error:
        ADAPTER.to_mmsoc(released)
    assert str(error.value).split('\n')[1:] == [
        '  missing (1): query_embed.weight',
        '  unexpected (1): x',
        '  of another shape (1): controller.layers.2.bias: expected (169,), found (2,)',
    ]


def test_something_else():
    for weights in ({}, {'w': torch.zeros(1)}):
        with pytest.raises(UserError, match=r'missing \(464\)'):
            ADAPTER.to_mmsoc(weights)


def test_other_parts_keep_their_names(root):
    """soc-mini's network there and back: fewer layers, another stem, further heads."""
    cfg = Config.fromfile(root / 'configs' / 'soc' / 'soc_mini_moving-shapes.py').model
    weights = MODELS.build(cfg).state_dict()
    adapter = ReleasedStateDictAdapter(strict=False)
    released = adapter.to_released(weights)
    assert same(adapter.to_mmsoc(released), weights)
    own = {name for name in released if name.startswith('mmsoc.')}
    assert 'mmsoc.auxiliary_heads.0.convs.0.weight' in own and len(own) < len(released) / 4, sorted(own)
    for name in ('transformer.decoder.layers.1.cross_attn.value_proj.weight', 'voc.enc_ffn.1.linear1.bias'):
        assert name in released
    with pytest.raises(UserError, match='not the weights of a model of configs/soc/released/'):
        ADAPTER.to_released(weights)
