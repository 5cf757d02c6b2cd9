"""Sampling by sparse products is mmcv's sampling, with its gradients."""

import mmcv.ops
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

from mmsoc.models.layers import deformable_attention as module
from mmsoc.models.layers.deformable_attention import MultiScaleDeformableAttention, _SampleRows
from mmsoc.models.layers.transformer import DeformableDetrTransformerDecoder, refine_boxes
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip, small_model

# Powers of two, so that points on borders are the same numbers for both samplers.
SHAPES = [(8, 16), (4, 8), (2, 4), (1, 2)]
NUM_FRAMES, NUM_QUERIES, NUM_HEADS, NUM_POINTS = 3, 9, 2, 5


@pytest.fixture(params=[None, 1], ids=['one chunk', 'a frame at a time'])
def chunks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(module, 'MAX_ELEMENTS_IN_CACHE', request.param)


def locations_of(place):
    """(F, Q, H, L, K, 2) in [0, 1] of a level, or beyond."""
    shape = (NUM_FRAMES, NUM_QUERIES, NUM_HEADS, len(SHAPES), NUM_POINTS, 2)
    if place == 'inside':
        return 0.1 + 0.8 * torch.rand(shape)
    if place == 'anywhere':
        return 2 * torch.rand(shape) - 0.5
    if place == 'on borders':  # of pixels, of the map, and of the zeros around it
        return torch.randint(-24, 56, shape) / 32.0
    return torch.randint(-1, 2, shape).float() * 10.0 ** torch.randint(1, 25, shape)  # 'far outside'


@pytest.mark.parametrize('place', ['inside', 'anywhere', 'on borders', 'far outside'])
def test_gradients_are_mmcv_s(chunks, place, seeded):
    sizes = torch.tensor(SHAPES)
    value = torch.randn(NUM_FRAMES, int(sizes.prod(1).sum()), NUM_HEADS, 6)
    locations = locations_of(place)
    weights = torch.randn(locations.shape[:-1])
    grad = torch.randn(NUM_FRAMES, NUM_QUERIES, NUM_HEADS * 6)
    results = []
    for ours in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        if ours:
            x, y = (leaves[1] * sizes.flip(-1)[:, None] - 0.5).unbind(-1)
            output = _SampleRows.apply(leaves[0], SHAPES, x, y, leaves[2])
        else:
            output = multi_scale_deformable_attn_pytorch(leaves[0], sizes, leaves[1], leaves[2])
        results.append((output.detach(), *torch.autograd.grad(output, leaves, grad)))
    assert place == 'far outside' or all(tensor.abs().sum() > 0 for tensor in results[1])
    for found, expected in zip(*results, strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_points_that_are_no_numbers_spoil_nothing(seeded):
    """The other points' gradients are those without them."""
    value, locations = torch.randn(3, 170, 2, 6), locations_of('inside')
    x, y = (locations * torch.tensor(SHAPES).flip(-1)[:, None] - 0.5).unbind(-1)
    weights, grad = torch.randn(x.shape), torch.randn(3, 9, 12)
    gradients = []
    for number in (float('nan'), float('inf'), -100.0):
        leaves = [tensor.clone() for tensor in (value, x, y, weights)]
        leaves[1][0, 0, 0, 0, 0] = number
        leaves = [leaf.requires_grad_() for leaf in leaves]
        gradients.append(torch.autograd.grad(_SampleRows.apply(leaves[0], SHAPES, *leaves[1:]), leaves, grad))
    for found in gradients[:2]:
        for ours, expected in zip(found, gradients[2], strict=True):
            torch.testing.assert_close(ours, expected)


def test_gradients_of_sampling_by_differences(seeded):
    """In double precision this would be `gradcheck`; the products are made for float32."""
    value, locations = torch.randn(3, 170, 2, 6), locations_of('inside')
    x, y = (locations * torch.tensor(SHAPES).flip(-1)[:, None] - 0.5).unbind(-1)
    x, y = (axis.floor() + 0.25 + 0.5 * torch.rand(axis.shape) for axis in (x, y))  # away from the kinks
    leaves = [tensor.clone().requires_grad_() for tensor in (value, x, y, torch.randn(x.shape))]
    gradients = torch.autograd.grad(_SampleRows.apply(leaves[0], SHAPES, *leaves[1:]).sum(), leaves)
    for index in range(4):
        direction = torch.randn_like(leaves[index]).sign() * 0.05
        values = []
        for sign in (1, -1):
            moved = [leaf.detach() + sign * direction if i == index else leaf.detach() for i, leaf in enumerate(leaves)]
            values.append(_SampleRows.apply(moved[0], SHAPES, *moved[1:]).double().sum())
        expected = (gradients[index] * direction).double().sum()
        assert abs((values[0] - values[1]) / 2 - expected) < 1e-3 * gradients[index].abs().mul(0.05).sum() + 1e-3


def attention_inputs(references):
    sizes = torch.tensor(SHAPES).prod(1)
    num_pixels = int(sizes.sum())
    padding = torch.zeros(NUM_FRAMES, num_pixels, dtype=torch.bool)
    padding[1, 100:128] = True
    return dict(
        query=torch.randn(NUM_FRAMES, NUM_QUERIES, 32),
        query_pos=torch.randn(NUM_FRAMES, NUM_QUERIES, 32),
        value=torch.randn(NUM_FRAMES, num_pixels, 32),
        key_padding_mask=padding,
        reference_points=torch.rand(NUM_FRAMES, NUM_QUERIES, 4, references),
        spatial_shapes=torch.tensor(SHAPES),
        level_start_index=sizes.cumsum(0) - sizes,
    )


def outputs_and_gradients(attention, given):
    leaves = {
        name: given[name].clone().requires_grad_() for name in ('query', 'query_pos', 'value', 'reference_points')
    }
    output = attention(**{**given, **leaves})
    return output, *torch.autograd.grad(output.pow(2).sum(), [*leaves.values(), *attention.parameters()])


@pytest.mark.parametrize('references', [2, 4], ids=['points', 'boxes'])
@pytest.mark.parametrize('sparse', [True, False], ids=['sparse products', 'mmcv in PyTorch'])
def test_the_module_is_mmcv_s(chunks, monkeypatch, references, sparse, seeded):
    calls = []
    monkeypatch.setattr(module, '_has_sparse_products', lambda: sparse)
    monkeypatch.setattr(
        module,
        'multi_scale_deformable_attn_pytorch',
        lambda *given: calls.append(1) or multi_scale_deformable_attn_pytorch(*given),
    )
    settings = dict(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True)
    theirs = mmcv.ops.MultiScaleDeformableAttention(**settings).train()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = MultiScaleDeformableAttention(**settings).train()
    ours.load_state_dict(theirs.state_dict())
    given = attention_inputs(references)
    for found, expected in zip(outputs_and_gradients(ours, given), outputs_and_gradients(theirs, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5 * max(1.0, expected.abs().max().item()))
    assert bool(calls) != sparse


def test_a_missing_op_is_reported_once(monkeypatch):
    warnings = []
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    monkeypatch.setattr(module, 'print_log', lambda message, **kwargs: warnings.append(message))
    module._has_compiled_op.cache_clear()
    try:
        assert not any(module._has_compiled_op() for _ in range(3))
        assert len(warnings) == 1 and 'docs/troubleshooting.md' in warnings[0]
        module._has_compiled_op.cache_clear()
        monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: '12.4')
        assert module._has_compiled_op() and len(warnings) == 1
    finally:
        module._has_compiled_op.cache_clear()


# ------------------------------------------------------------------------------------- references under autocast


@pytest.mark.parametrize('size', [2, 4], ids=['points', 'boxes'])
def test_boxes_are_refined_in_float32(size, seeded):
    offsets, references = torch.randn(3, 5, 4, dtype=torch.bfloat16), torch.rand(3, 5, size)
    references[0] = torch.tensor([0.0, 1.0, 0.999, 1e-4])[:size]
    expected = refine_boxes(offsets.float(), references)
    with torch.autocast('cpu', torch.bfloat16):
        found = refine_boxes(offsets, references)
    assert found.dtype == torch.float32 and torch.equal(found, expected) and found.isfinite().all()


@pytest.mark.parametrize('padded', [False, True], ids=['', 'padded'])
def test_the_decoder_s_references_stay_in_float32(padded, seeded):
    attention = dict(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True)
    decoder = DeformableDetrTransformerDecoder(
        num_layers=3,
        return_intermediate=True,
        post_norm_cfg=None,
        layer_cfg=dict(
            self_attn_cfg=attention,
            cross_attn_cfg=attention,
            ffn_cfg=dict(embed_dims=32, feedforward_channels=64, ffn_drop=0.0),
        ),
    ).eval()
    branches = torch.nn.ModuleList(torch.nn.Linear(32, 4) for _ in range(3))
    given = attention_inputs(2)
    del given['key_padding_mask']
    given.update(
        key_padding_mask=None,
        reference_points=torch.rand(NUM_FRAMES, NUM_QUERIES, 2),
        reg_branches=branches,
        valid_ratios=torch.rand(NUM_FRAMES, 4, 2) if padded else None,
    )
    entered = []
    for layer in decoder.layers:
        layer.cross_attn.register_forward_pre_hook(
            lambda module, args, kwargs: entered.append(kwargs['reference_points']), with_kwargs=True
        )
    with torch.autocast('cpu', torch.bfloat16):
        queries, references = decoder(**given)
        expected, reference = [], given['reference_points']
        for query, branch in zip(queries, branches, strict=True):
            reference = refine_boxes(branch(query), reference)
            expected.append(reference)
    assert references.dtype == torch.float32 and {tensor.dtype for tensor in entered} == {torch.float32}
    assert torch.equal(references, torch.stack(expected))
    assert not torch.equal(references, references.bfloat16().float()), 'rounded on the way'


def test_boxes_and_points_of_the_model_stay_in_float32(monkeypatch):
    model = small_model(ROOT)
    kept = {}
    forward = model.head.forward
    monkeypatch.setattr(
        model.head,
        'forward',
        lambda objects, frame, sizes: (
            kept.update(frame=frame, objects=objects, found=forward(objects, frame, sizes)) or kept['found']
        ),
    )
    video, sample = random_clip(2, (64, 96))[0][None], [make_sample((64, 96), ['a red car'], num_frames=2)]
    results = []
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            model(video, sample, mode='tensor')
        results.append(dict(kept))
    frame, found = results[1]['frame'], results[1]['found']
    tensors = frame.initial_reference, frame.references, found.boxes, found.points
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    # What enters the decoder does not depend on the precision; what comes out does by what the queries do.
    assert torch.equal(frame.initial_reference, results[0]['frame'].initial_reference)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        offsets = model.head.box_branches[-1](results[1]['objects'].queries[0])
    assert torch.equal(found.boxes[0], refine_boxes(offsets, frame.references[-2]))
    sizes = torch.tensor([96.0, 64.0])
    assert torch.equal(found.points[0], frame.references[-1][..., :2] * sizes)
    for name in ('boxes', 'points'):
        ours, expected = getattr(found, name), getattr(results[0]['found'], name)
        assert (ours - expected).abs().max() < 0.02 * expected.abs().max(), name
