"""FSDP by the strategy of configs/soc/soc_swin-b_ytvos_fsdp.py, on two processes."""

import os
import runpy
import sys

import numpy as np
import pytest
from mmengine.config import Config

from tests.conftest import ROOT
from tests.ranks import assert_ended_well, run_on_ranks

SHORT = (
    'train_cfg.val_begin=1',
    'train_cfg.val_interval=1',
    'train_dataloader.sampler.epoch_size=8',
    'train_dataloader.batch_size=1',
    'val_dataloader.dataset.indices=2',
    'test_dataloader.dataset.indices=2',
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
)


def run_tool(rank, folder, script, *arguments):
    os.chdir(folder)
    sys.argv = [script, *arguments]
    runpy.run_path(str(ROOT / 'tools' / script), run_name='__main__')


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder with data and two configs, which differ in how the model is spread over the processes."""
    from mmsoc.preparation.moving_shapes import Settings, generate

    folder = tmp_path_factory.mktemp('project')
    generate(folder / 'data' / 'moving-shapes', Settings(train_videos=8, valid_videos=4), workers=1)
    base = f'_base_ = {str(ROOT / "configs/soc/soc_tiny_moving-shapes.py")!r}\n'
    strategy = Config.fromfile(ROOT / 'configs/soc/soc_swin-b_ytvos_fsdp.py').strategy.to_dict()
    (folder / 'ddp.py').write_text(base)
    (folder / 'fsdp.py').write_text(
        f"{base}runner_type = 'FlexibleRunner'\nstrategy = {strategy!r}\noptim_wrapper = dict(type='ShardedOptimWrapper')\n"
    )
    return folder


def train(project, name, epochs):
    """Losses and gradient norms of the steps, with the epoch of each."""
    options = ['--launcher', 'pytorch', '--resume', '--work-dir', f'work/{name}']
    options += ['--cfg-options', f'train_cfg.max_epochs={epochs}', *SHORT]
    ended = run_on_ranks(run_tool, project, 'train.py', f'{name}.py', *options, folder=project, seconds=180)
    assert_ended_well(ended)
    assert (project / 'work' / name / f'epoch_{epochs}.pth').is_file()
    lines = [line for line in ended[0].output.splitlines() if 'Epoch(train)' in line]
    return [
        (
            int(line.split('Epoch(train)')[1].split('[')[1].split(']')[0]),
            float(line.split('loss: ')[1].split()[0]),
            float(line.split('grad_norm: ')[1].split()[0]),
        )
        for line in lines
    ]


def test_sharded_training_is_that_of_whole_copies(project):
    """It has the losses of DDP, is resumed, and its weights are read."""
    whole = train(project, 'ddp', epochs=2)
    sharded = train(project, 'fsdp', epochs=1) + train(project, 'fsdp', epochs=2)
    assert [epoch for epoch, *_ in sharded] == [1] * 4 + [2] * 4
    np.testing.assert_allclose(sharded, whole, rtol=1e-4)
    arguments = ['ddp.py', 'work/fsdp/epoch_2.pth', '--cfg-options', *SHORT]
    (tested,) = run_on_ranks(run_tool, project, 'test.py', *arguments, folder=project, ranks=1, seconds=120)
    assert_ended_well([tested])
    assert 'rvos/J&F' in tested.output
