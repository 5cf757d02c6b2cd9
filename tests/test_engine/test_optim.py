"""Optimizers with few groups step as MMEngine's do."""

import copy
from collections import Counter

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.utils import digit_version

from tests.conftest import ROOT
from tests.helpers import small_model

SCHEDULE = Config.fromfile(ROOT / 'configs' / '_base_' / 'schedules' / 'schedule_30e.py').optim_wrapper.to_dict()
HAS_FUSED = digit_version(torch.__version__) >= digit_version('2.4')
needs_fused = pytest.mark.skipif(not HAS_FUSED, reason='this PyTorch has no fused optimizer for every device')


@pytest.fixture(scope='module')
def model():
    model = small_model(ROOT)
    model.backbone.patch_embed.requires_grad_(False)
    return model


def build(model, constructor='FusedOptimWrapperConstructor', **options):
    return build_optim_wrapper(model, copy.deepcopy({**SCHEDULE, 'constructor': constructor, **options}))


PARAMWISE = {
    'of the schedule': SCHEDULE['paramwise_cfg'],
    'none': None,
    'of norms and biases': dict(
        norm_decay_mult=0.0, bias_lr_mult=2.0, custom_keys={'backbone': dict(lr_mult=0.1), 'sim': dict(decay_mult=0.5)}
    ),
}


@pytest.mark.parametrize('paramwise', PARAMWISE.values(), ids=PARAMWISE)
def test_every_parameter_has_mmengine_s_options(model, paramwise):
    ours, theirs = (
        build(model, constructor, paramwise_cfg=paramwise).optimizer.param_groups
        for constructor in ('FusedOptimWrapperConstructor', 'DefaultOptimWrapperConstructor')
    )

    def options(groups):
        return {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}

    assert options(ours) == options(theirs)
    assert len(ours) == len(set(options(ours).values())) <= 6
    counts = Counter(id(p) for group in ours for p in group['params'])
    assert set(counts.values()) == {1}
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable <= counts.keys() <= {id(p) for p in model.parameters()}
    if paramwise:
        assert {lr for lr, _ in options(ours).values()} > {1e-4}, 'equal rates: the test tests nothing'


@needs_fused
@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (dict(), (True, None)),
        (dict(fused=False), (False, None)),
        (dict(foreach=True), (None, True)),
        (dict(foreach=False), (None, False)),
        (dict(differentiable=True), (None, None)),
    ],
    ids=str,
)
def test_kernels_of_the_optimizer(model, given, expected):
    for kind in ('AdamW', torch.optim.AdamW):
        defaults = build(model, optimizer=dict(type=kind, lr=1e-4, **given)).optimizer.defaults
        assert (defaults['fused'], defaults['foreach']) == expected


@needs_fused
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(clip_grad=dict(max_norm=0.1)), True),
        (dict(clip_grad=dict(max_norm=0.1, foreach=False)), False),
        (dict(clip_grad=dict(type='value', clip_value=0.1)), None),
        (dict(clip_grad=None), None),
        (dict(clip_grad=dict(max_norm=0.1), type='ShardedOptimWrapper'), None),
    ],
    ids=str,
)
def test_kernels_of_clipping(model, options, expected):
    wrapper = build(model, **options)
    assert (wrapper.clip_grad_kwargs or {}).get('foreach') is expected


def test_an_optimizer_without_fused_kernels(model):
    # LBFGS takes one group and nothing of the kind.
    wrapper = build(model, optimizer=dict(type='LBFGS', lr=1e-3), paramwise_cfg=None)
    assert 'fused' not in wrapper.optimizer.defaults


def take_steps(model, wrapper, steps):
    """Steps by gradients that are drawn, since those of the model are noise where they are zero but for rounding."""
    for step in steps:
        torch.manual_seed(step)
        for p in model.parameters():
            if p.requires_grad:
                p.grad = torch.randn_like(p) * 10.0 ** (-step % 3)
        wrapper.step()
        wrapper.zero_grad()


def test_steps_are_mmengine_s(model):
    trained = []
    for constructor in ('FusedOptimWrapperConstructor', 'DefaultOptimWrapperConstructor'):
        copied = copy.deepcopy(model)
        take_steps(copied, build(copied, constructor), range(3))
        trained.append(copied.state_dict())
    before = model.state_dict()
    for name, value in trained[1].items():
        torch.testing.assert_close(trained[0][name], value, atol=1e-6, rtol=0, msg=name)
    moved = [name for name, value in trained[1].items() if not torch.equal(value, before[name])]
    assert len(moved) > 100 and not any(name.startswith('backbone.patch_embed') for name in moved)


def test_a_checkpoint_resumes(model):
    straight, stopped = copy.deepcopy(model), copy.deepcopy(model)
    take_steps(straight, build(straight), range(3))
    wrapper = build(stopped)
    take_steps(stopped, wrapper, range(2))
    saved = copy.deepcopy(dict(model=stopped.state_dict(), optimizer=wrapper.state_dict()))
    resumed = copy.deepcopy(model)
    resumed.load_state_dict(saved['model'])
    wrapper = build(resumed)
    wrapper.load_state_dict(saved['optimizer'])
    take_steps(resumed, wrapper, range(2, 3))
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
