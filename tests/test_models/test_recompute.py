"""What is run in chunks, and again in the backward pass, gives the numbers of mmaction2's, mmdet's and mmcv's own modules."""

import mmcv.ops
import pytest
import torch
from einops import rearrange
from mmdet.models.layers import DeformableDetrTransformerEncoder as MMDetEncoder

from mmsoc.models import VideoSwin
from mmsoc.models.backbones.video_swin import _swin
from mmsoc.models.layers import recompute
from mmsoc.models.layers.deformable_attention import MultiScaleDeformableAttention, sample_rows
from mmsoc.models.layers.transformer import DeformableDetrTransformerEncoder

ARCH = dict(embed_dims=16, depths=[2, 2, 2, 1], num_heads=[1, 2, 4, 8])


@pytest.fixture(params=[None, 64], ids=['at once', 'in chunks'])
def limit(request, monkeypatch):
    """Chunks of one entry each, as if all were huge."""
    if request.param:
        monkeypatch.setattr(recompute, 'MAX_ELEMENTS', request.param)


def test_chunks_of_the_cache_s_size_without_a_gradient(monkeypatch):
    monkeypatch.setattr(recompute, 'MAX_ELEMENTS_IN_CACHE', 60)
    seen = []

    def double(x):
        seen.append(len(x))
        return 2 * x

    x = torch.randn(10, 20)
    with torch.no_grad():
        assert torch.equal(recompute.map_chunks(double, (x,), x.numel(), chunk_always=True), 2 * x) and seen == [
            3,
            3,
            3,
            1,
        ]
    seen.clear()
    assert torch.equal(recompute.map_chunks(double, (x,), x.numel(), chunk_always=True), 2 * x) and seen == [10]


def mmaction_levels(model, clip):
    """What mmaction2's stages give before their norms."""
    x = model.patch_embed(rearrange(clip, 'b t c h w -> b c t h w'))
    levels = []
    for layer in model.layers:
        level = layer(x.contiguous(), do_downsample=False)
        levels.append(rearrange(level, 'b t h w c -> (b t) c h w'))
        if layer.downsample is not None:
            x = rearrange(layer.downsample(level), 'b t h w c -> b c t h w')
    return levels


@pytest.mark.parametrize('size', [(2, 9, 45, 77), (1, 3, 80, 56), (1, 16, 28, 28)], ids=str)
@pytest.mark.parametrize('with_cp', [False, True], ids=['', 'with_cp'])
def test_window_attention_is_mmaction2_s(limit, size, with_cp, seeded):
    """Odd sizes, shifts in time (more frames than a window has), windows that are cut to the map's size."""
    ours = VideoSwin(arch=ARCH, drop_path_rate=0.0, with_cp=with_cp)
    for name, parameter in ours.named_parameters():
        if 'bias_table' in name:
            torch.nn.init.normal_(parameter)
    theirs = _swin.SwinTransformer3D(
        arch=ARCH, pretrained2d=False, patch_size=(1, 4, 4), drop_path_rate=0.0, out_indices=(3,)
    )
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not unexpected and set(missing) == {'norm3.weight', 'norm3.bias'}
    clip = torch.randn(*size[:2], 3, *size[2:])
    with torch.no_grad():
        for level, expected in zip(ours.eval()(clip), mmaction_levels(theirs.eval() or theirs, clip), strict=True):
            torch.testing.assert_close(level, expected, atol=2e-5, rtol=1e-4)
    losses = [
        sum((level**2).mean() for level in levels)
        for levels in (ours.train()(clip), mmaction_levels(theirs.train() or theirs, clip))
    ]
    for loss in losses:
        loss.backward()
    expected = dict(theirs.named_parameters())
    largest = max(parameter.grad.abs().max() for parameter in ours.parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=2e-6 * largest.item(), rtol=1e-3, msg=name)


def test_no_mask_per_window(seeded):
    """Eight masks at most, whatever the size of the frames: mmaction2 keeps one for every window, and all of them for ever."""
    _swin.compute_mask.cache_clear()
    VideoSwin(arch=ARCH).eval()(torch.randn(1, 9, 3, 64, 64))
    assert _swin.compute_mask.cache_info().misses == 0


def encoder_inputs(num_frames=3):
    shapes = torch.tensor([(6, 9), (3, 5), (2, 3), (1, 2)])
    sizes = shapes.prod(1)
    padding = torch.zeros(num_frames, int(sizes.sum()), dtype=torch.bool)
    padding[1, 40:54] = True
    return torch.randn(num_frames, len(padding[0]), 32), dict(
        query_pos=torch.randn(num_frames, len(padding[0]), 32),
        key_padding_mask=padding,
        spatial_shapes=shapes,
        level_start_index=sizes.cumsum(0) - sizes,
        valid_ratios=torch.rand(num_frames, 4, 2) * 0.5 + 0.5,
    )


ENCODER = dict(
    num_layers=2,
    layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=32, num_heads=4, num_levels=4, num_points=4, dropout=0.0, batch_first=True),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0),
    ),
)


@pytest.mark.parametrize('num_cp', [0, 2])
def test_the_encoder_is_mmdet_s(limit, num_cp, seeded):
    ours, theirs = DeformableDetrTransformerEncoder(num_cp=num_cp, **ENCODER).train(), MMDetEncoder(**ENCODER).train()
    assert isinstance(ours.layers[0].self_attn, MultiScaleDeformableAttention)
    assert type(theirs.layers[0].self_attn) is mmcv.ops.MultiScaleDeformableAttention
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.load_state_dict(ours.state_dict())
    query, common = encoder_inputs()
    with torch.no_grad():  # other code: feed-forward networks and samples in pieces
        torch.testing.assert_close(ours(query=query, **common), theirs(query=query, **common), atol=1e-4, rtol=1e-4)
    outputs = []
    for encoder in (ours, theirs):
        x = query.clone().requires_grad_()
        output = encoder(query=x, **common)
        (output**3).sum().backward()
        outputs.append((output, x.grad, *(parameter.grad for parameter in encoder.parameters())))
    for found, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_recomputing_draws_the_same_drop_out(monkeypatch, seeded):
    """The second run of a chunk has to drop what the first dropped: else the gradient is that of another function."""
    monkeypatch.setattr(recompute, 'MAX_ELEMENTS', 64)
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0.5, batch_first=True).train()
    query, common = encoder_inputs(2)
    common.pop('valid_ratios')
    query.requires_grad_()
    # Where the output equals the identity, the attention's part was dropped and sends nothing back to the last bias.
    points = torch.rand(2, query.shape[1], 4, 2)
    output = attention(query=query, identity=torch.zeros_like(query), reference_points=points, **common)
    output.sum().backward()
    kept = (output != 0).float().sum((0, 1)) * 2
    torch.testing.assert_close(attention.output_proj.bias.grad, kept)


def test_deformable_attention_samples_in_float32_under_autocast(seeded):
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True).eval()
    query, common = encoder_inputs(2)
    common.pop('valid_ratios')
    points = torch.rand(2, query.shape[1], 4, 2)
    expected = attention(query=query, reference_points=points, **common)
    with torch.autocast('cpu', torch.bfloat16):
        found = attention(query=query, reference_points=points, **common)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_sampling_rows_is_mmcv_s_sampling(seeded):
    shapes = torch.tensor([(5, 7), (3, 4), (1, 2), (1, 1)])
    value = torch.randn(2, 48 + 2, 3, 6)
    locations = torch.rand(2, 9, 3, 4, 5, 2) * 1.6 - 0.3  # a third outside, some on the border
    locations[0, 0, 0, :, 0], locations[0, 0, 0, :, 1] = 0.0, 1.0
    locations[0, 0, 1] = 50.0
    weights = torch.randn(2, 9, 3, 4, 5)
    expected = mmcv.ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    x, y = (locations * shapes.flip(-1)[:, None] - 0.5).unbind(-1)
    found = sample_rows(value, shapes, x.contiguous(), y.contiguous(), weights)
    assert not expected[0, 0, 6:12].any() and expected[0, 0, :6].any()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('box', [False, True])
def test_deformable_attention_without_a_gradient(limit, box, seeded):
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True).eval()
    for parameter in attention.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    query, common = encoder_inputs(2)
    common.pop('valid_ratios')
    padding = torch.rand(query.shape[:2]) > 0.8
    given = dict(
        common,
        query=query,
        query_pos=torch.randn_like(query),
        identity=torch.randn_like(query),
        value=torch.randn_like(query),
        reference_points=torch.rand(2, query.shape[1], 4, 4 if box else 2),
        key_padding_mask=padding,
    )
    expected = attention(**given)
    with torch.no_grad():
        found = attention(**given)
        alone = attention(query=query, reference_points=given['reference_points'], **common)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected = attention(query=query, reference_points=given['reference_points'], **common)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
