"""What a GPU must show: mmcv's compiled op against its PyTorch path, parity with the released implementation, a step with AMP.

bash tools/run_tests.sh tests/cuda
"""

import copy
import warnings

import mmcv.ops
import numpy as np
import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmengine.optim import AmpOptimWrapper
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmsoc.models import VideoSwin
from mmsoc.models.layers.deformable_attention import MultiScaleDeformableAttention
from mmsoc.structures import FrameQueries
from mmsoc.utils.precision import use_tf32
from tests.conftest import reference_path
from tests.helpers import make_sample, random_clip, small_model
from tests.parity.golden import golden_batch, golden_model

GOLDEN = sorted((reference_path() / 'golden').glob('*.npz'))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here (torch.cuda.is_available() is False)'),
]


@pytest.fixture(autouse=True)
def full_precision():
    """TF32 has ten bits: parity is looked at without."""
    with use_tf32(False):
        yield


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
            output = MultiScaleDeformableAttnFunction.apply(
                leaves[0], shapes, sizes.cumsum(0) - sizes, leaves[1], leaves[2], 64
            )
        else:
            output = multi_scale_deformable_attn_pytorch(leaves[0], shapes, leaves[1], leaves[2])
        output.float().square().sum().backward()
        results.append((output, leaves[0].grad, leaves[2].grad))
    for found, expected in zip(*results, strict=True):
        assert relative(found, expected) < tolerance


@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16], ids=['fp16', 'bf16'])
def test_deformable_attention_under_autocast_is_that_of_float32(half):
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True).cuda().eval()
    shapes = torch.tensor([(6, 9), (3, 5), (2, 3), (1, 2)], device='cuda')
    sizes = shapes.prod(1)
    query = torch.randn(2, int(sizes.sum()), 32, device='cuda')
    arguments = dict(
        query=query,
        reference_points=torch.rand(2, query.shape[1], 4, 2, device='cuda'),
        spatial_shapes=shapes,
        level_start_index=sizes.cumsum(0) - sizes,
    )
    expected = attention(**arguments)
    with torch.autocast('cuda', half):
        assert torch.equal(attention(**arguments), expected)
    assert isinstance(attention, mmcv.ops.MultiScaleDeformableAttention)


@pytest.mark.parametrize('num_frames', [64, 65, 127, 130])
def test_any_number_of_frames_goes_through_the_compiled_op(num_frames):
    """The op takes a multiple of at most 64 frames at once; outputs and gradients are those of PyTorch's sampling on a CPU."""
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, dropout=0.0, batch_first=True)
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
    shapes = torch.tensor([(6, 9), (3, 5), (2, 3), (1, 2)])
    sizes = shapes.prod(1)
    query, points = torch.randn(num_frames, int(sizes.sum()), 32), torch.rand(num_frames, int(sizes.sum()), 4, 2)
    outputs, gradients = [], []
    for device in ('cuda', 'cpu'):
        module = copy.deepcopy(attention).to(device)
        leaf = query.to(device).requires_grad_()
        arguments = dict(
            query=leaf,
            reference_points=points.to(device),
            spatial_shapes=shapes.to(device),
            level_start_index=(sizes.cumsum(0) - sizes).to(device),
        )
        outputs.append(module(**arguments))
        outputs[-1].square().mean().backward()
        gradients.append([leaf.grad, *(parameter.grad for parameter in module.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(module(**arguments), outputs[-1], atol=1e-5, rtol=1e-4)
    assert relative(outputs[0].cpu(), outputs[1]) < 1e-5
    for found, expected in zip(*gradients, strict=True):
        assert relative(found.cpu(), expected) < 1e-3


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_window_attention_reaches_a_fused_kernel(precision):
    """PyTorch's memory-efficient kernel takes the position bias: with no other one allowed, `VideoSwin` still predicts."""
    torch.manual_seed(0)
    backbone = (
        VideoSwin(arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]), drop_path_rate=0.0)
        .cuda()
        .eval()
    )
    clip = torch.randn(1, 8, 3, 224, 224, device='cuda')  # whole windows at all four stages
    levels = []
    with torch.no_grad(), torch.autocast('cuda', torch.bfloat16, enabled=precision == 'bf16'):
        for kernel in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
            with sdpa_kernel([kernel]):
                levels.append(backbone(clip))
    for found, expected in zip(*levels, strict=True):
        assert relative(found, expected) < (1e-4 if precision == 'fp32' else 5e-2)


def test_window_attention_is_that_of_the_cpu():
    torch.manual_seed(0)
    backbone = VideoSwin(
        arch=dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]), drop_path_rate=0.0
    ).train()
    clip = torch.randn(1, 9, 3, 45, 77)
    gradients = []
    for device in ('cpu', 'cuda'):
        model = copy.deepcopy(backbone).to(device)
        levels = model(clip.to(device))
        sum(level.square().mean() for level in levels).backward()
        gradients.append(
            [level.detach().cpu() for level in levels] + [parameter.grad.cpu() for parameter in model.parameters()]
        )
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(not GOLDEN, reason=f'no golden files under {reference_path()} (set MMSOC_REFERENCE)')
@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_golden_on_the_gpu(path, root, reference, tmp_path, record_property):
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
            difference = relative(output[name].transpose(0, 1).cpu(), expected)
            record_property(prefix + name, difference)
            assert difference < 1e-3, (prefix, name)
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
        loss_scale='dynamic' if half == 'float16' else 1.0,
        dtype=half,
        optimizer=optimizer,
        clip_grad=dict(max_norm=1.0),
    )
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


@pytest.mark.parametrize('half', [torch.float16, torch.bfloat16], ids=['fp16', 'bf16'])
def test_references_stay_in_float32_under_autocast(half, root):
    """bfloat16 has 8 bits: a mask's anchor would move by 2.5 pixels at width 640; in float16 the logit of 1.0 is infinite."""
    model = small_model(root).cuda().train()
    video, masks = random_clip(4, (64, 96))
    seen = []

    def note(module, args, kwargs, output):
        # The head's predictions are a named tuple, or a list of them.
        predictions = [output] if hasattr(output, 'boxes') else output
        for value in (*args, *kwargs.values(), *predictions):
            if isinstance(value, FrameQueries):
                seen.extend([value.initial_reference, value.references])
            seen.extend(getattr(value, name) for name in ('boxes', 'points') if hasattr(value, name))

    def note_sampling(module, args, kwargs):
        seen.append(kwargs['reference_points'])

    model.head.register_forward_hook(note, with_kwargs=True)
    for module in model.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            module.register_forward_pre_hook(note_sampling, with_kwargs=True)
    with torch.autocast('cuda', half):
        losses = model(video[None].cuda(), [make_sample((64, 96), ['a red car'], masks)], mode='loss')
    assert len(seen) > 4 and all(value.dtype == torch.float32 for value in seen)
    assert any((value != value.to(half).float()).any() for value in seen)
    assert all(torch.isfinite(loss).all() for loss in losses.values())


def test_a_step_makes_the_host_wait_once_at_most(root):
    """Losses, backward pass and optimizer; the wait is the check that the losses are finite."""
    model = small_model(root).cuda().train()
    video, masks = random_clip(4, (64, 96))
    inputs, samples = video[None].cuda(), [make_sample((64, 96), ['a red car'], masks)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # makes the optimizer's state, and what depends on sizes alone
    step()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = [
        f'{warning.filename}:{warning.lineno}' for warning in caught if 'synchronizing CUDA' in str(warning.message)
    ]
    assert len(waits) <= 1, waits
