"""Runs that are killed: they go on from a whole checkpoint, and as if they had never been stopped."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killed_run import REPORT
from preloaded import TOOLS, finish, start

from tests.test_engine.small_soc import write_config, write_data

CONFIG = Path(__file__).parent / 'killed_config.py'


class Watched:
    """A work dir seen from outside of the process that writes it."""

    def __init__(self, folder):
        self.folder = folder
        self.since = 0.0

    def reported(self, kind):
        file = self.folder / REPORT
        lines = file.read_text().splitlines() if file.is_file() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == kind]

    def writing(self):
        """Whether a checkpoint is half-written by the present process (an earlier one may have left such files)."""
        for path in self.folder.glob('.*.pth'):
            try:
                if path.stat().st_mtime >= self.since:
                    return True
            except FileNotFoundError:  # renamed in the meantime
                pass
        return False

    def wait_until_more(self, kind, count, process):
        self.wait(lambda: len(self.reported(kind)) > count, process)

    def wait(self, condition, process):
        limit = time.time() + 120
        while not condition():
            assert process.is_alive(), f'tools/train.py ended with {process.exitcode}'
            assert time.time() < limit
            time.sleep(0.0005)


def stress(folder, kills, seed):
    """Kills a run ``kills`` times while it writes; returns how many of the kills left a half-written file."""
    draw = random.Random(seed)
    newest_checkpoint = runpy.run_path(str(TOOLS / 'train.py'))['newest_checkpoint']
    run = Watched(folder)
    arguments = ('train.py', CONFIG, '--work-dir', folder, '--resume')
    duration, hits, expected = 0.0, 0, []
    for number in range(kills):
        loaded, steps, saved = (len(run.reported(kind)) for kind in ('loaded', 'step', 'saved'))
        run.since = time.time()
        process = start(*arguments)
        # Every fifth kill takes the first file, which may belong to the validation that the last kill interrupted.
        early = number % 5 == 4
        if not early:
            run.wait_until_more('step', steps, process)
        if number == 0:
            run.wait_until_more('saved', saved, process)
            run.wait(run.writing, process)
            begin = time.time()
            run.wait(lambda: not run.writing(), process)
            duration = time.time() - begin
        if not early:
            time.sleep(draw.uniform(0, 4 * duration))
        run.wait(run.writing, process)
        # Every other one a little later too: at the renaming, the removing, or between two files.
        time.sleep(draw.uniform(0, duration if number % 2 else duration / 4))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        hits += run.writing()

        # The process had gone on from where the last one was killed.
        assert run.reported('loaded')[loaded:] == expected, number
        assert early or run.reported('step')[steps:] == (expected or [0]), number
        # And so can the next.
        checkpoint = torch.load(newest_checkpoint(folder), weights_only=True)
        epoch = checkpoint['meta']['epoch']
        assert epoch >= max(run.reported('saved'))
        assert epoch >= max(expected, default=0)
        # Two iterations an epoch; a file put together from two would hold two values.
        assert checkpoint['meta']['iter'] == 2 * epoch
        assert checkpoint['state_dict']['padding'].unique().tolist() == [2 * epoch]
        assert {'optimizer', 'param_schedulers'} <= set(checkpoint)
        best = checkpoint['message_hub']['runtime_info'].get('best_ckpt')
        if best is not None:
            best = torch.load(best, weights_only=True)
            assert best['state_dict']['padding'].unique().tolist() == [2 * best['meta']['epoch']]
        expected = [epoch]

    last = expected[0] + 2
    finish(start(*arguments, '--cfg-options', f'train_cfg.max_epochs={last}'))
    assert run.reported('saved')[-1] == last
    # Nothing of what the killed runs left is left.
    best = last if last % 3 else last - 1
    assert sorted(path.name for path in folder.iterdir() if '.pth' in path.name) == [
        f'best_toy_JF_epoch_{best}.pth',
        f'epoch_{last}.pth',
    ]
    return hits


def test_killed_while_writing(tmp_path):
    stress(tmp_path, kills=2, seed=0)


@pytest.mark.slow
def test_killed_twenty_times_while_writing(tmp_path):
    hits = stress(tmp_path, kills=20, seed=1)
    print(f'{hits} of 20 kills left a half-written checkpoint')
    assert hits >= 7


def test_interrupted_validation_is_made_up_for(run, tmp_path):
    """Killed between the checkpoint of the last epoch and its validation: the resumed run still has a best one."""
    metrics = []

    def validated(name, kill=False, **options):
        runner = run(name, **{'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2, **options})
        val_loop = runner.build_val_loop(runner._val_loop)
        runner._val_loop = val_loop

        def evaluate():
            if kill:
                raise KeyboardInterrupt
            metrics.append(type(val_loop).run(val_loop))
            return metrics[-1]

        val_loop.run = evaluate
        last = tmp_path / name / 'epoch_2.pth'
        if last.is_file():
            runner._load_from, runner._resume = str(last), True
        return runner

    validated('unbroken').train()
    with pytest.raises(KeyboardInterrupt):
        validated('broken', kill=True).train()
    folder = tmp_path / 'broken'
    assert not list(folder.glob('best_*'))
    validated('broken').train()
    assert len(metrics) == 2 and metrics[0] == metrics[1]
    assert sorted(path.name for path in folder.glob('*.pth')) == sorted(
        path.name for path in (tmp_path / 'unbroken').glob('*.pth')
    )
    assert len(list(folder.glob('best_*'))) == 1
    # Not a second time, whether it was the best or not.
    validated('broken').train()
    validated('unbroken').train()
    assert len(metrics) == 2


def test_best_of_another_run_is_left_alone(run, tmp_path):
    run('one', **{'train_cfg.max_epochs': 1}).train()
    before = sorted(path.name for path in (tmp_path / 'one').glob('*.pth'))
    assert 'best_toy_JF_epoch_1.pth' in before
    runner = run('two', **{'train_cfg.max_epochs': 3, 'optim_wrapper.optimizer.lr': 0.02})
    runner._load_from, runner._resume = str(tmp_path / 'one' / 'epoch_1.pth'), True
    runner.load_or_resume()
    runner.message_hub.update_info('best_score', 0.0)  # so that there is a new best one
    runner.train()
    assert list((tmp_path / 'two').glob('best_*.pth'))
    assert sorted(path.name for path in (tmp_path / 'one').glob('*.pth')) == before


def losses(work_dir):
    """{iteration: all losses} of a run, from its log."""
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row['iter']: {k: v for k, v in row.items() if 'loss' in k} for row in rows if 'loss' in row}


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


def compare_resumed(data_root, folder, train_in, *, samples, epochs, steps):
    """Trains ``epochs`` epochs, then all but the first again from the first checkpoint, with random flips, drop-out
    everywhere, two workers per process and a validation in between; all losses of these ``steps`` must agree.
    """
    options = {'train_cfg.max_epochs': epochs, 'train_dataloader.dataset.indices': samples}
    options['val_dataloader.dataset.indices'] = 2
    config = write_config(folder / 'small.py', data_root, dropout=0.1, **options)
    train_in(config, '--work-dir', folder / 'unbroken')
    (folder / 'resumed').mkdir()
    # All that a kill at the border leaves to go on from.
    (folder / 'unbroken' / 'epoch_1.pth').rename(folder / 'resumed' / 'epoch_1.pth')
    (folder / 'resumed' / 'last_checkpoint').write_text(str(folder / 'resumed' / 'epoch_1.pth'))
    train_in(config, '--work-dir', folder / 'resumed', '--resume')

    unbroken, resumed = losses(folder / 'unbroken'), losses(folder / 'resumed')
    assert len(resumed) == steps and sorted(resumed) == sorted(unbroken)[-steps:]
    for step, found in resumed.items():
        assert len(found) > 10  # each loss of each decoder layer
        assert found == pytest.approx(unbroken[step], rel=0, abs=1e-5)
    largest = max(abs(value - unbroken[step][key]) for step, found in resumed.items() for key, value in found.items())
    print(f'largest difference of {steps} steps: {largest}')


def call(*command):
    env = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', HF_HUB_OFFLINE='1')
    result = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]


def test_resumed_run_equals_an_unbroken_one(data_root, tmp_path):

    def train_in(*arguments):
        finish(start('train.py', *arguments))

    compare_resumed(data_root, tmp_path, train_in, samples=4, epochs=2, steps=4)


@pytest.mark.slow
@pytest.mark.parametrize('processes, epochs', [(1, 2), (2, 3)])
def test_next_twenty_losses(data_root, tmp_path, processes, epochs):
    # 20 samples: 20 steps an epoch in one process, 10 in each of two

    def train_in(config, *arguments):
        call('bash', TOOLS / 'dist_train.sh', config, processes, *arguments)

    def train_alone(*arguments):
        call(sys.executable, TOOLS / 'train.py', *arguments)

    compare_resumed(
        data_root, tmp_path, train_alone if processes == 1 else train_in, samples=20, epochs=epochs, steps=20
    )
