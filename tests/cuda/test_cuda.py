"""What a GPU must show: mmcv's compiled op against its PyTorch path, parity with the released implementation, a step with AMP.

    bash tools/run_tests.sh tests/cuda
"""
import copy

import mmcv.ops
import numpy as np
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmengine.optim import AmpOptimWrapper

from mmsoc.models import VideoSwin
from mmsoc.models.layers.deformable_attention import MultiScaleDeformableAttention
from tests.conftest import reference_path
from tests.helpers import make_sample, random_clip, small_model
from tests.parity.golden import golden_batch, golden_model

GOLDEN = sorted((reference_path() / 'golden').glob('*.npz'))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here (torch.cuda.is_available() is False)'),
]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """TF32 has ten bits: parity is looked at without."""
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def relative(found, expected):
    return ((found.float() - expected.float()).abs().max() / expected.float().abs().max()).item()


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float16, 1e-2)], ids=['fp32', 'fp16'])
def test_the_compiled_op(dtype, tolerance):
    """Forward and backward, against PyTorch's sampling in float32 of the same numbers."""
    torch.manual_seed(0)
    shapes = torch.tensor([(12, 20), (6, 10), (3, 5), (2, 3)], device='cuda')
    sizes = shapes.prod(1)
    value = torch.randn(2, int(sizes.sum()), 8, 32, device='cuda').to(dtype)
    locations = torch.rand(2, 17, 8, 4, 4, 2, device='cuda').to(dtype)
    weights = torch.randn(2, 17, 8, 16, device='cuda').softmax(-1).view(2, 17, 8, 4, 4).to(dtype)
    results = []
    for compiled in (True, False):
        used = dtype if compiled else torch.float32
        leaves = [tensor.clone().to(used).requires_grad_() for tensor in (value, locations, weights)]
        if compiled:
            output = MultiScaleDeformableAttnFunction.apply(leaves[0], shapes, sizes.cumsum(0) - sizes, leaves[1], leaves[2], 64)
        else:
            output = multi_scale_deformable_attn_pytorch(leaves[0], shapes, leaves[1], leaves[2])
        output.float().square().sum().backward()
        results.append((output, leaves[0].grad, leaves[2].grad))
    for found, expected in zip(*results, strict=True):
        assert relative(found, expected) < tolerance


@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16], ids=['fp16', 'bf16'])
def test_deformable_attention_under_autocast_is_that_of_float32(half):
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0., batch_first=True).cuda().eval()
    shapes = torch.tensor([(6, 9), (3, 5), (2, 3), (1, 2)], device='cuda')
    sizes = shapes.prod(1)
    query = torch.randn(2, int(sizes.sum()), 32, device='cuda')
    arguments = dict(
        query=query, reference_points=torch.rand(2, query.shape[1], 4, 2, device='cuda'), spatial_shapes=shapes,
        level_start_index=sizes.cumsum(0) - sizes)
    expected = attention(**arguments)
    with torch.autocast('cuda', half):
        assert torch.equal(attention(**arguments), expected)
    assert isinstance(attention, mmcv.ops.MultiScaleDeformableAttention)


def test_window_attention_is_that_of_the_cpu():
    torch.manual_seed(0)
    backbone = VideoSwin(arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]), drop_path_rate=0.).train()
    clip = torch.randn(1, 9, 3, 45, 77)
    gradients = []
    for device in ('cpu', 'cuda'):
        model = copy.deepcopy(backbone).to(device)
        levels = model(clip.to(device))
        sum(level.square().mean() for level in levels).backward()
        gradients.append([level.detach().cpu() for level in levels] + [parameter.grad.cpu() for parameter in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(not GOLDEN, reason=f'no golden files under {reference_path()} (set MMSOC_REFERENCE)')
@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_golden_on_the_gpu(path, root, reference, tmp_path):
    """The released implementation's outputs and total loss, which were made on a CPU."""
    case = dict(np.load(path))
    model = golden_model(case, reference / 'golden', root, tmp_path).cuda()
    inputs, samples = golden_batch(case)
    inputs, samples = inputs.cuda(), [sample.cuda() for sample in samples]
    evaluation = path.stem.startswith('eval')
    model.train(not evaluation)
    with torch.no_grad():
        outputs = model(inputs, samples, mode='tensor')
    for layer, output in enumerate(outputs):
        prefix = 'out_' if evaluation else f'out_l{layer}_'
        for name, golden_name in dict(masks='pred_masks', logits='pred_cls', boxes='pred_boxes').items():
            expected = torch.from_numpy(case[prefix + golden_name])
            assert relative(output[name].transpose(0, 1).cpu(), expected) < 1e-3, (prefix, name)
    if not evaluation:
        total = sum(model(inputs, samples, mode='loss').values()).item()
        expected = float(case['loss_total_official_weights'])
        assert abs(total - expected) / expected < 1e-3


@pytest.mark.parametrize('half', ['float16', 'bfloat16'])
def test_a_step_with_amp(half, root):
    """Losses near those of float32, a finite gradient for every parameter, weights that move."""
    model = small_model(root).cuda().train()
    video, masks = random_clip(4, (64, 96))
    sample = make_sample((64, 96), ['a red car'], masks).cuda()
    expected = sum(model(video[None].cuda(), [sample], mode='loss').values()).item()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wrapper = AmpOptimWrapper(
        loss_scale='dynamic' if half == 'float16' else 1., dtype=half, optimizer=optimizer, clip_grad=dict(max_norm=1.))
    before = model.neck.convs[0].conv.weight.clone()
    for step in range(8):  # a dynamic scale starts too high and skips steps
        with wrapper.optim_context(model):
            losses = model(video[None].cuda(), [sample], mode='loss')
        total = sum(losses.values())
        if step == 0:
            assert abs(total.item() - expected) / expected < 0.05
        wrapper.update_params(total)
    assert not torch.equal(before, model.neck.convs[0].conv.weight)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
