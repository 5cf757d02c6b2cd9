from datetime import timedelta

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import init_dist

from mmsoc.engine import dist as dist_module
from mmsoc.engine import prepare_distributed
from tests.conftest import ROOT


@pytest.fixture
def on(monkeypatch):
    """A function that pretends to be on a machine with that many GPUs."""

    def pretend(gpus):
        monkeypatch.setattr(dist_module, 'get_device', lambda: 'cuda' if gpus else 'cpu')
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)

    return pretend


def test_one_process_needs_nothing(on):
    on(0)
    cfg = Config(dict())
    prepare_distributed(cfg, 'none')
    assert 'model_wrapper_cfg' not in cfg


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_that_need_gpus(on, launcher):
    on(0)
    with pytest.raises(ValueError, match=f'--launcher {launcher} needs GPUs'):
        prepare_distributed(Config(dict()), launcher)
    on(1)
    prepare_distributed(Config(dict()), launcher)


def test_without_torchrun(on, monkeypatch):
    on(0)
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match=r'RANK.*not set.*tools/dist_train\.sh'):
        prepare_distributed(Config(dict()), 'pytorch')


def test_more_processes_than_gpus(on, monkeypatch):
    on(1)
    for name, value in dict(RANK='1', LOCAL_RANK='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT='1').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match='process 2 of this machine has no GPU: 1 are visible'):
        prepare_distributed(Config(dict()), 'pytorch')
    # Enough of them: NCCL is left to MMEngine.
    on(2)
    cfg = Config(dict())
    prepare_distributed(cfg, 'pytorch')
    assert 'model_wrapper_cfg' not in cfg and not torch.distributed.is_initialized()


def test_gloo_without_gpus(on, monkeypatch):
    on(0)
    started = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *args, **kwargs: started.append((args, kwargs)))
    for name, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='1').items():
        monkeypatch.setenv(name, value)
    cfg = Config(dict(find_unused_parameters=True, env_cfg=dict(dist_cfg=dict(timeout=60))))
    prepare_distributed(cfg, 'pytorch')
    assert started[0][0] == ('gloo',) and started[0][1]['timeout'].total_seconds() == 60
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False, find_unused_parameters=True
    )


@pytest.mark.parametrize('gpus', [0, 1], ids=['gloo', 'nccl'])
def test_processes_wait_two_hours_for_each_other(gpus, on, monkeypatch):
    """Longer than any test set is scored by one process; NCCL's ten minutes abort the run."""
    on(gpus)
    started = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *args, **kwargs: started.append(kwargs))
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    for name, value in dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='1').items():
        monkeypatch.setenv(name, value)
    cfg = Config.fromfile(ROOT / 'configs' / '_base_' / 'default_runtime.py')
    prepare_distributed(cfg, 'pytorch')
    if gpus:  # MMEngine starts NCCL, when it builds the Runner
        init_dist('pytorch', **cfg.env_cfg.dist_cfg)
    (kwargs,) = started
    assert kwargs.get('timeout') == timedelta(hours=2)
    assert not gpus or kwargs['backend'] == 'nccl'
