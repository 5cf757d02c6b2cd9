import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.runner import Runner

from mmsoc.engine import dist as dist_module
from mmsoc.engine import finish_distributed, prepare_distributed
from mmsoc.engine.dist import abort_on_failure
from mmsoc.utils.errors import UserError, user_errors
from tests.conftest import ROOT
from tests.ranks import run_on_ranks


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


# ------------------------------------------------------------------------------------------------------ one process fails


def train(rank, folder, failing, lingers):
    """The toy model in two processes; the failing one raises in its third step, and cannot end by itself if it ``lingers``."""
    cfg = Config.fromfile(Path(__file__).with_name('toy_config.py'))
    cfg.merge_from_dict(dict(work_dir=str(folder / f'work{rank}'), train_cfg=dict(max_epochs=1000)))
    cfg.model.explode_at = 3 if rank == failing else None
    if rank == failing and lingers:  # as with NCCL, whose peers do not notice that a process has gone
        threading.Thread(target=time.sleep, args=(300,)).start()
    prepare_distributed(cfg, 'pytorch')
    with abort_on_failure('pytorch'):
        Runner.from_cfg(cfg).train()
        finish_distributed()


@pytest.mark.parametrize('failing', [0, 1])  # rank 0 holds the store by which the others learn of it
@pytest.mark.parametrize('lingers', [False, True], ids=['', 'lingers'])
def test_all_processes_end_when_one_fails_in_a_step(tmp_path, failing, lingers):
    ended = run_on_ranks(train, tmp_path, failing, lingers, folder=tmp_path)
    outputs = '\n'.join(process.output for process in ended)
    assert [process.status for process in ended] == [1, 1], outputs
    cause = f'rank {failing} failed: FloatingPointError: loss is nan at iteration 3'
    assert all(cause in process.output for process in ended), outputs
    assert 'Traceback' in ended[failing].output, outputs
    assert f'rank {1 - failing} ends, too' in ended[1 - failing].output, outputs
    # torchrun takes the first one that ends for the cause.
    assert ended[failing].seconds <= ended[1 - failing].seconds, outputs
    # The log file is rank 0's.
    (log,) = (tmp_path / 'work0').glob('*/*.log')
    assert cause in log.read_text()


def fail_as_user(rank, status):
    torch.distributed.init_process_group('gloo')
    with abort_on_failure('pytorch'), user_errors(status):
        if rank == 1:
            raise UserError('the data set has no videos')
        finish_distributed()


@pytest.mark.parametrize('status', [1, 2])
def test_a_user_error_in_one_process_has_no_traceback(tmp_path, status):
    other, failing = run_on_ranks(fail_as_user, status, folder=tmp_path)
    assert (other.status, failing.status) == (1, 1), other.output + failing.output
    assert failing.output.startswith('error: the data set has no videos\n') and 'Traceback' not in failing.output
    assert failing.output.count('rank 1 failed:') == 1
    assert 'the data set has no videos; rank 0 ends, too' in other.output


def die(rank):
    torch.distributed.init_process_group('gloo')
    with abort_on_failure('pytorch'):
        time.sleep(2 * dist_module.POLL_SECONDS)  # until the other process is watching
        if rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(300)


def test_a_process_whose_store_is_killed_ends(tmp_path):
    killed, other = run_on_ranks(die, folder=tmp_path)
    assert (killed.status, other.status) == (-signal.SIGKILL, 1), other.output
    assert 'rank 0 (or torchrun), which held the rendezvous, ended without a message' in other.output


def succeed(rank):
    torch.distributed.init_process_group('gloo')
    with abort_on_failure('pytorch'):
        time.sleep(2 * dist_module.POLL_SECONDS)
        finish_distributed()
        if rank == 1:  # the store has ended with rank 0
            time.sleep(7 * dist_module.POLL_SECONDS)
    print('done')


def test_a_process_may_end_long_after_the_store(tmp_path):
    ended = run_on_ranks(succeed, folder=tmp_path)
    # PyTorch's C++ code may write of the connection that is gone.
    assert [(process.status, process.output.splitlines()[-1]) for process in ended] == [(0, 'done')] * 2
    assert ended[1].seconds > ended[0].seconds + 4 * dist_module.POLL_SECONDS


@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
@pytest.mark.parametrize('error', [UserError('no videos'), KeyboardInterrupt(), SystemExit(0)], ids=repr)
def test_without_a_process_group_errors_pass_through(launcher, error):
    with pytest.raises(type(error)) as raised, abort_on_failure(launcher):
        raise error
    assert raised.value is error
    assert not any(thread.name == 'mmsoc-peer-watch' for thread in threading.enumerate())
