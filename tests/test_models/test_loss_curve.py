"""Twenty steps of training must not change where a change claims to change no number.

A change that is meant to move it records it again: MMSOC_RECORD=1 python -m pytest tests/test_models/test_loss_curve.py
"""

import json
import os

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper

from mmsoc.registry import MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip

RECORDED = ROOT / 'tests/fixtures/loss_curve.json'
TEXTS = ['the red circle', 'the square that moves left', 'the blue star']


@pytest.fixture
def in_float64(monkeypatch):
    """Also of what the model computes in float32 always: the CPU's kernels then change nothing that shows."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    monkeypatch.setattr(torch, 'float32', torch.float64)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float)


def loss_curve(num_steps=20):
    """Total losses of the small model's training, without drop-out."""
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.double().eval()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = []
    for first in (0, 2):
        clips = [random_clip(2, (32, 48), first + i) for i in range(2)]
        samples = [make_sample((32, 48), [TEXTS[(first + i) % 3]], masks) for i, (_, masks) in enumerate(clips)]
        for frame in (frame for sample in samples for frame in sample.video_data_samples):
            frame.gt_instances.bboxes = frame.gt_instances.bboxes.double()
        batches.append((torch.stack([video for video, _ in clips]).double(), samples))
    losses = []
    for step in range(num_steps):
        total, _ = model.parse_losses(model(*batches[step % 2], mode='loss'))
        wrapper.update_params(total)
        losses.append(total.item())
    return losses


def test_the_loss_curve_of_the_small_model(in_float64):
    if os.environ.get('MMSOC_RECORD'):
        RECORDED.write_text(json.dumps(loss_curve(), indent=1) + '\n')
    recorded = json.loads(RECORDED.read_text())
    assert len(recorded) == 20 and recorded[-1] < recorded[0]
    assert loss_curve() == pytest.approx(recorded, rel=1e-6)
