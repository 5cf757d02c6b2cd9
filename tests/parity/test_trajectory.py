"""Parity of training: optimizer steps of the released trainer, on every file of golden_trajectory under MMSOC_REFERENCE.

With these weights the gradients are in the thousands, and AdamW's first steps follow the sign of even the smallest one, so that
rounding grows a hundredfold every two steps: float32 parts with itself between two instruction sets. In float64 every machine
and every order of summation take the same steps, and what is left is the rounding of the recorded run.
"""

import zlib

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper

from mmsoc.conversion import ReleasedStateDictAdapter
from tests.conftest import reference_path
from tests.helpers import make_sample
from tests.parity.golden import SOC, golden_model, loss_weights

TRAJECTORIES = sorted((reference_path() / 'golden_trajectory').glob('*.npz'))
# Relative. After FIRST_STEPS the recorded run's own rounding shows in the losses of the mask.
FIRST_STEPS = 3
TOLERANCE = {
    'float64': {'first losses': 1e-5, 'total': 1e-4, 'losses': 2e-3, 'gradient norm': 1e-3, 'movement': 5e-3},
    'float32': {'first losses': 2e-3, 'total': 2e-2, 'movement': 0.1},
}
# The gradient of the first is rounding noise, since what that self-attention sees is zero, and AdamW makes full steps of it. The
# second is one number: nothing evens out which way its smallest gradients send it.
NOT_COMPARED = {
    'float64': {'transformer.decoder.layers.0.self_attn.in_proj_weight'},
    'float32': {'transformer.decoder.layers.0.self_attn.in_proj_weight', 'class_embed.0.bias'},
}

pytestmark = pytest.mark.skipif(
    not TRAJECTORIES, reason=f'no golden trajectories under {reference_path()} (set MMSOC_REFERENCE)'
)


def draw(case, step):
    """Videos (B, T, 3, H, W), tokens (B, L), and boxes (B, T, 4) xyxy in pixels of a step."""
    clips, frames, height, width, words = (int(case[key]) for key in 'BTHWL')
    r = np.random.default_rng(zlib.crc32(f'{case["salt"]}step{step}'.encode()))
    videos = torch.from_numpy(r.standard_normal((clips, frames, 3, height, width)).astype(np.float32))
    tokens = r.integers(5, 1000, (clips, words))
    tokens[:, 0], tokens[:, -1] = 0, 2
    x0, y0 = (r.integers(0, side // 2, (clips, frames)) for side in (width, height))
    bw, bh = (r.integers(12, side // 2, (clips, frames)) for side in (width, height))
    return videos, tokens, np.stack([x0, y0, x0 + bw, y0 + bh], -1)


def make_samples(case, boxes, first_text):
    size = int(case['H']), int(case['W'])
    samples = []
    for clip, box_T4 in enumerate(boxes):
        masks = np.zeros((len(box_T4), *size), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, box_T4, strict=True):
            mask[top:bottom, left:right] = 1
        sample = make_sample(size, [str(first_text + clip)], masks, box_T4, [True] * len(masks))
        for frame in sample.video_data_samples:
            frame.gt_instances.bboxes = frame.gt_instances.bboxes.to(torch.get_default_dtype())
        samples.append(sample)
    return samples


def optim_wrapper(model, case, config):
    """The config's own, with the rates of the recorded run. (Six steps are too few for its weight decay to show.)"""
    cfg = Config.fromfile(config).optim_wrapper
    assert cfg.optimizer.type == 'AdamW' and cfg.clip_grad.norm_type == 2
    cfg.optimizer.update(lr=float(case['lr']), weight_decay=float(case['weight_decay']))
    cfg.paramwise_cfg.custom_keys['backbone'].lr_mult = float(case['lr_backbone']) / float(case['lr'])
    cfg.clip_grad.max_norm = float(case['clip'])
    return build_optim_wrapper(model, cfg)


@pytest.fixture(params=['float64', pytest.param('float32', marks=pytest.mark.slow)])
def dtype(request, monkeypatch):
    """Also of what the model computes in float32 always."""
    if request.param == 'float64':
        monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
        monkeypatch.setattr(torch, 'float32', torch.float64)
        torch.set_default_dtype(torch.float64)
        request.addfinalizer(lambda: torch.set_default_dtype(torch.float))
    return request.param


@pytest.mark.parametrize('path', TRAJECTORIES, ids=lambda path: path.stem)
def test_trajectory(path, dtype, root, reference, tmp_path, record_property):
    case = dict(np.load(path))
    steps = [draw(case, step) for step in range(int(case['steps']))]
    tokens = np.concatenate([tokens for _, tokens, _ in steps])
    backbone = path.stem.rsplit('_', 1)[0].removeprefix('soc_')
    settings = dict(
        backbone=backbone, salt=case['salt'], num_classes=1, input_ids=tokens, attention_mask=np.ones_like(tokens)
    )
    model = golden_model(settings, reference / 'golden', root, tmp_path).to(getattr(torch, dtype)).train()
    wrapper = optim_wrapper(model, case, root / 'configs' / 'soc' / 'released' / f'soc_{backbone}_ytvos.py')
    weights = loss_weights(model)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    errors = {}

    def expect(kind, name, found, expected):
        error = abs(found - float(expected)) / abs(float(expected))
        errors[kind] = max(errors.get(kind, 0.0), error)
        tolerance = TOLERANCE[dtype].get(kind, float('inf'))
        assert error < tolerance, (
            f'{name}: found {found:.6g}, expected {expected:.6g}, off by {error:.1e} of {tolerance:.0e}'
        )

    for step, (videos, _, boxes) in enumerate(steps):
        # `model.train_step` without the preprocessor: these videos are normalised already.
        samples = make_samples(case, boxes, step * len(videos))
        losses = model(videos.to(getattr(torch, dtype)), samples, mode='loss')
        total, _ = model.parse_losses(losses)
        wrapper.update_params(total)
        first = step < FIRST_STEPS
        expect('first losses' if first else 'total', f'step {step}, total', total.item(), case['loss_total'][step])
        for name, golden_name in SOC.losses.items():
            kind = 'first losses' if first else 'losses'
            expect(kind, f'step {step}, {name}', losses[name].item() / weights[name], case[golden_name][step])
        norm = wrapper.message_hub.get_scalar('train/grad_norm').current()
        expect('gradient norm', f'step {step}, gradient norm', norm, case['grad_norm'][step])

    moved = dict(zip(map(str, case['names']), case['moved'], strict=True))
    names = ReleasedStateDictAdapter.mmsoc_names(moved)
    assert {names[name] for name in moved} == set(parameters)
    for released_name in moved.keys() - NOT_COMPARED[dtype]:
        name = names[released_name]
        found = (parameters[name].detach() - start[name]).norm().item()
        expect('movement', released_name, found, moved[released_name])
    for kind, error in errors.items():
        record_property(kind, float(error))
    print(path.stem, dtype, {kind: f'{error:.1e}' for kind, error in errors.items()})
