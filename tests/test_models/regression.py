"""mmsoc's own numbers, written down once parity with the released implementation held: python -m tests.test_models.regression

A clone without the reference notices with them when a change moves a number that was not meant to move.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from mmengine import Config
from mmengine.registry import init_default_scope

from mmsoc.registry import MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip, stack_clips

FIXTURE = ROOT / 'tests' / 'fixtures' / 'regression.npz'
VARIANTS = {
    'paper': {},
    'released': {
        'head.num_cls_fcs': 1,
        'criterion.loss_mask.loss_weight': 2.0,
        'criterion.loss_dice.loss_weight': 5.0,
        'criterion.loss_contrastive.dim_exponent': 1.0,
        'test_cfg.predict_layer': 0,
    },
}


def model_by_rule(overrides: dict) -> torch.nn.Module:
    """The small SOC with weights that depend on nothing but their names and shapes."""
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'soc_tiny.py')
    cfg.merge_from_dict({f'model.{key}': value for key, value in overrides.items()})
    cfg.model.text_encoder.config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    cfg.model.text_encoder.dropout = 0.0
    model = MODELS.build(cfg.model)
    for name, parameter in model.named_parameters():
        r = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(parameter.shape).astype(np.float32)
        scale = 1.0 if 'embed' in name else np.float32(1 / np.sqrt(max(np.prod(parameter.shape[1:]), 1)))
        offset = 1.0 if parameter.dim() == 1 and name.endswith('weight') else 0.0
        parameter.data = torch.from_numpy(offset + r * (scale if parameter.dim() > 1 else np.float32(0.1)))
    return model


def numbers(variant: str) -> dict[str, np.ndarray]:
    """Outputs in evaluation, and losses and gradient norms of a padded batch of two clips."""
    torch.manual_seed(0)
    model = model_by_rule(VARIANTS[variant]).eval()
    (video_a, masks_a), (video_b, masks_b) = random_clip(3, (64, 96), 0), random_clip(3, (45, 77), 1)
    found = {}
    with torch.no_grad():
        (output,) = model(
            video_a[None], [make_sample((64, 96), ['a red car on the road', 'the dog'], num_frames=3)], mode='tensor'
        )
    for name, value in output.items():
        found[name] = value[..., ::4, ::4].numpy() if name == 'masks' else value.numpy()
    model.train()
    samples = [
        make_sample((64, 96), ['a red car on the road'], masks_a),
        make_sample((45, 77), ['the dog'], masks_b, padded=(64, 96)),
    ]
    losses = model(stack_clips([video_a, video_b]), samples, mode='loss')
    sum(losses.values()).backward()
    found.update({f'losses {name}': value.detach().numpy() for name, value in losses.items()})
    for name, module in model.named_children():
        gradients = [parameter.grad.norm() for parameter in module.parameters()]
        if gradients:
            found[f'gradient {name}'] = torch.stack(gradients).norm().numpy()
    return {f'{variant} {name}': value for name, value in found.items()}


def main(target: Path = FIXTURE) -> None:
    init_default_scope('mmsoc')
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **{name: value for variant in VARIANTS for name, value in numbers(variant).items()})
    print(f'{target}: {target.stat().st_size / 1024:.0f} kB')


if __name__ == '__main__':
    main()
