import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmsoc.registry import HOOKS


@pytest.mark.parametrize(
    'resume, load_from, level, words',
    [
        (False, None, logging.WARNING, 'load_from is None: this recipe starts from images'),
        (False, 'a.pth', logging.INFO, 'Training starts from a.pth'),
        (True, None, None, ''),
    ],
)
def test_it_is_said(resume, load_from, level, words, caplog):
    hook = HOOKS.build(dict(type='StartingPointHook', wanted='images'))
    logger = logging.getLogger('starting-point')
    with caplog.at_level(logging.INFO, 'starting-point'):
        hook.before_train(SimpleNamespace(_resume=resume, _load_from=load_from, logger=logger))
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
    assert words in caplog.text


def loading(trains=True, resume=False, checkpoint=None, **options):
    """The state dict of a checkpoint of ones as the hook hands it on, for a model of zeros."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop) if trains else dict(max_epochs=1)
    runner = SimpleNamespace(model=model, _train_loop=loop, _resume=resume, logger=logging.getLogger('starting-point'))
    state = checkpoint or {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    HOOKS.build(dict(type='StartingPointHook', wanted='images', **options)).after_load_checkpoint(
        runner, dict(state_dict=state)
    )
    return {name: value.flatten()[0].item() for name, value in state.items()}, state


def test_what_starts_from_initial_values(caplog):
    with caplog.at_level(logging.INFO, 'starting-point'):
        values, _ = loading(from_scratch=[r'^1\.'])
    assert values == {'0.weight': 1, '0.bias': 1, '1.weight': 0, '1.bias': 0}
    assert 'Not taken from the checkpoint: 2 tensors, 1.weight to 1.bias' in caplog.text


def test_tensors_of_another_shape_or_missing_ones_keep_initial_values():
    state = {'module.1.weight': torch.ones(65, 3)}  # as DistributedDataParallel names it
    values, state = loading(from_scratch=[r'^1\.'], checkpoint=state)
    assert values == {'1.weight': 0, '1.bias': 0} and state['1.weight'].shape == (1, 3)


@pytest.mark.parametrize('options', [dict(trains=False), dict(resume=True)])
def test_a_test_and_a_resumed_run_take_everything(options):
    assert set(loading(from_scratch=[r'^1\.'], **options)[0].values()) == {1}


def test_an_expression_that_fits_nothing():
    with pytest.raises(ValueError, match=r"from_scratch: no tensor of the model has a name like '\^head'"):
        loading(from_scratch=['^head'])
    with pytest.raises(ValueError, match='expected a list'):
        loading(from_scratch='^1')


def test_it_comes_before_the_strict_check():
    from mmengine.hooks import Hook

    strict, start = (
        HOOKS.build(cfg) for cfg in (dict(type='StrictLoadHook'), dict(type='StartingPointHook', wanted='x'))
    )
    order = Hook.priority, start.priority
    assert order == ('NORMAL', 'ABOVE_NORMAL') and strict.priority == 'NORMAL'
