"""tools/train.py and tools/test.py as a user calls them: real processes, gloo, the small model of toy.py."""

import json
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / 'tests' / 'test_engine'
CONFIG = str(TOY / 'toy_config.py')


@pytest.fixture(scope='module')
def call():

    def run(script, *args, fails=False):
        env = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
        env['PYTHONPATH'] = os.pathsep.join([str(TOY), *filter(None, [os.environ.get('PYTHONPATH')])])
        result = subprocess.run(
            ['bash', str(ROOT / 'tools' / script), *map(str, args)],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        output = result.stdout + result.stderr
        assert (result.returncode != 0) == fails, output
        return output

    return run


@pytest.fixture(scope='module')
def trained(call, tmp_path_factory):
    """A work dir after two epochs on two processes, with what the run said."""
    work_dir = tmp_path_factory.mktemp('tools') / 'a work dir'
    output = call(
        'dist_train.sh',
        CONFIG,
        2,
        '--work-dir',
        work_dir,
        '--cfg-options',
        'model.note=two words',
        'train_cfg.max_epochs=2',
    )
    return work_dir, output


def test_two_processes_train(trained):
    work_dir, output = trained
    (config,) = work_dir.glob('toy_config.py')
    assert Config.fromfile(config).model.note == 'two words'
    # 8 samples / (2 processes x 2 per batch) = 2 iterations per epoch, with the time that is left
    assert 'Epoch(train) [2][2/2]' in output and ' eta: 0:00:' in output
    for epoch in (1, 2):
        checkpoint = torch.load(work_dir / f'epoch_{epoch}.pth', weights_only=True)
        assert checkpoint['meta']['epoch'] == epoch
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_2.pth')
    assert len(list(work_dir.glob('best_*.pth'))) == 1
    assert 'destroy_process_group' not in output


@pytest.mark.slow
def test_resume_and_test_on_two_processes(call, trained, tmp_path):
    work_dir = tmp_path / 'moved'  # `last_checkpoint` holds the old path
    work_dir.mkdir()
    source = trained[0]
    for name in ('epoch_2.pth', 'last_checkpoint'):
        (work_dir / name).write_bytes((source / name).read_bytes().replace(str(source).encode(), b'/nowhere'))
    (work_dir / 'epoch_2.pth').write_bytes((source / 'epoch_2.pth').read_bytes())
    output = call(
        'dist_train.sh', CONFIG, 2, '--work-dir', work_dir, '--resume', '--cfg-options', 'train_cfg.max_epochs=3'
    )
    assert f'Load checkpoint from {work_dir / "epoch_2.pth"}' in output and 'resumed epoch: 2, iter: 4' in output
    assert 'Epoch(train) [3][2/2]' in output and 'Epoch(train) [2]' not in output

    report = tmp_path / 'a report.json'
    output = call('dist_test.sh', CONFIG, work_dir / 'epoch_3.pth', 2, '--work-dir', work_dir, '--out', report)
    assert 'toy/J&F' in output
    # 5 items on 2 processes: the one that pads the last batch is not counted.
    assert json.loads(report.read_text())['items'] == 5


@pytest.fixture
def main(monkeypatch, capsys):
    """A function that runs a tool in this process until it ends with an error message, which it returns."""

    def run(script, *args):
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        monkeypatch.setattr(sys, 'path', [*sys.path])
        monkeypatch.setenv('LOCAL_RANK', '0')
        with pytest.raises(SystemExit) as error:
            runpy.run_path(str(ROOT / 'tools' / script), run_name='__main__')
        assert error.value.code == 2
        return capsys.readouterr().err

    return run


def test_predictions_of_one_process(trained, tmp_path, monkeypatch):
    out = tmp_path / 'predictions.pkl'
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'test.py',
            CONFIG,
            str(trained[0] / 'epoch_2.pth'),
            '--work-dir',
            str(tmp_path),
            '--out',
            str(out),
            '--cfg-options',
            'log_level=ERROR',
        ],
    )
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')
    assert len(pickle.loads(out.read_bytes())) == 5


def test_mistakes_are_named(main, trained, tmp_path):
    checkpoint = trained[0] / 'epoch_2.pth'
    assert 'config no_such.py: there is no such file' in main('train.py', 'no_such.py')
    assert f'config {tmp_path}: it is a folder' in main('train.py', tmp_path)
    assert 'checkpoint no_such.pth: there is no such file' in main('test.py', CONFIG, 'no_such.pth')
    assert '--resume no_such.pth: there is no such file' in main('train.py', CONFIG, '--resume', 'no_such.pth')
    assert '--out a.txt: expected a name that ends in .json' in main('test.py', CONFIG, checkpoint, '--out', 'a.txt')
    assert 'dist_train.sh' in main('train.py', CONFIG, '--launcher', 'pytorch')
    (tmp_path / 'last_checkpoint').write_text('/nowhere/epoch_7.pth')
    message = main('train.py', CONFIG, '--work-dir', tmp_path, '--resume')
    assert 'names /nowhere/epoch_7.pth, which is not there' in message
    assert 'no auto_scale_lr.base_batch_size' in main(
        'train.py', CONFIG, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'
    )
    report = main(
        'test.py', CONFIG, checkpoint, '--out', 'a.json', '--cfg-options', 'test_evaluator.type=mmengine.DumpResults'
    )
    assert 'no metric of test_evaluator writes a report' in report


@pytest.mark.skipif(torch.cuda.is_available(), reason='--amp works on this machine')
def test_amp_needs_a_gpu(main):
    assert '--amp: mixed precision needs a GPU' in main('train.py', CONFIG, '--amp')


@pytest.fixture
def parsed(monkeypatch):
    """A function: the config of a `tools/train.py` call up to the start of training, on a machine that has a GPU."""

    def parse(*args, **optim_wrapper):
        tool = runpy.run_path(str(ROOT / 'tools' / 'train.py'))
        monkeypatch.setitem(tool['parse_args'].__globals__, 'get_device', lambda: 'cuda')
        monkeypatch.setattr(sys, 'argv', ['train.py', *args])
        monkeypatch.setenv('LOCAL_RANK', '0')
        _, options = tool['parse_args']()
        assert options.config == CONFIG
        cfg = Config.fromfile(CONFIG)
        cfg.optim_wrapper.update(optim_wrapper)
        if options.amp:
            tool['turn_on_amp'](cfg, options.amp)
        return cfg.optim_wrapper

    return parse


@pytest.mark.parametrize(
    'args, optim_wrapper, dtype, loss_scale',
    [
        ((CONFIG, '--amp'), {}, None, 'dynamic'),  # AmpOptimWrapper's default: float16
        (('--amp', CONFIG), {}, None, 'dynamic'),
        ((CONFIG, '--amp'), dict(dtype='bfloat16', loss_scale=512.0), 'bfloat16', 512.0),  # the config's own
        ((CONFIG, '--amp', 'fp16'), dict(dtype='bfloat16', loss_scale=1.0), 'float16', 'dynamic'),
        (('--amp', 'bf16', CONFIG), {}, 'bfloat16', dict(enabled=False)),
        (
            (CONFIG, '--amp', 'bf16'),
            dict(type='AmpOptimWrapper', loss_scale='dynamic'),
            'bfloat16',
            dict(enabled=False),
        ),
    ],
)
def test_amp_takes_a_dtype(parsed, args, optim_wrapper, dtype, loss_scale):
    found = parsed(*args, **optim_wrapper)
    assert found.type == 'AmpOptimWrapper'
    assert (found.get('dtype'), found.loss_scale) == (dtype, loss_scale)


def test_amp_in_bfloat16_neither_scales_nor_looks_for_overflows(parsed, monkeypatch):
    """The wrapper that `--amp bf16` builds, on a machine that pretends to have a GPU."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    from mmsoc.registry import OPTIM_WRAPPERS

    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    weight = torch.nn.Parameter(torch.ones(1))
    kwargs = {
        key: value for key, value in parsed(CONFIG, '--amp', 'bf16').items() if key in ('type', 'dtype', 'loss_scale')
    }
    wrapper = OPTIM_WRAPPERS.build(
        dict(kwargs, optimizer=torch.optim.SGD([weight], lr=1.0), clip_grad=dict(max_norm=10.0))
    )
    assert wrapper.cast_dtype is torch.bfloat16 and not wrapper.loss_scaler.is_enabled()
    wrapper.update_params((2 * weight).sum())
    assert weight.item() == -1
    wrapper.load_state_dict(wrapper.state_dict())


def test_amp_names_the_dtypes_that_it_takes(main):
    for wrong in ('bfloat16', 'int8'):
        message = main('train.py', CONFIG, '--amp', wrong)
        assert f'argument --amp: expected one of fp16, bf16, found {wrong}' in message


def test_checkpoint_that_does_not_fit(main, trained, tmp_path):
    checkpoint = trained[0] / 'epoch_2.pth'
    options = ('model.width=5', 'log_level=ERROR')
    message = main('test.py', CONFIG, checkpoint, '--work-dir', tmp_path, '--cfg-options', *options)
    assert 'epoch_2.pth does not fit the model ToyModel' in message and 'Traceback' not in message


@pytest.mark.parametrize('script, more', [('train.py', ()), ('test.py', ('CHECKPOINT',))])
def test_configs_and_options_that_cannot_be_used_are_named(main, trained, tmp_path, script, more):
    more = [trained[0] / 'epoch_2.pth' for _ in more]
    (tmp_path / 'broken.py').write_text('a = b\n')
    message = main(script, tmp_path / 'broken.py', *more)
    assert f"error: config {tmp_path}/broken.py cannot be read: NameError: name 'b' is not defined" in message
    message = main(script, CONFIG, *more, '--cfg-options', 'train_cfg.max_epochs.x=5')
    assert 'error: --cfg-options train_cfg.max_epochs.x=5: expected keys of the config' in message


def test_a_fault_of_the_program_keeps_its_traceback(trained, tmp_path, monkeypatch):
    """Also a ValueError."""
    from mmengine.runner import Runner

    def fails(_):
        raise ValueError('a bug')

    monkeypatch.setattr(Runner, 'test', fails)
    arguments = ['test.py', CONFIG, str(trained[0] / 'epoch_2.pth'), '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', arguments)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(ValueError, match='a bug'):
        runpy.run_path(str(ROOT / 'tools' / 'test.py'), run_name='__main__')


def test_show_dir_and_out_reach_the_config():
    tool = runpy.run_path(str(ROOT / 'tools' / 'test.py'))
    cfg = Config.fromfile(CONFIG)
    tool['set_show_dir'](cfg, 'shown')
    assert cfg.default_hooks.visualization.show_dir == 'shown' and 'show_dir' not in cfg.custom_hooks[0]
    cfg.default_hooks.pop('visualization')
    tool['set_show_dir'](cfg, 'shown')
    assert cfg.custom_hooks[-1] == dict(type='mmsoc.RVOSVisualizationHook', show_dir='shown')
    cfg.test_evaluator = [dict(type='ToyMetric'), dict(type='ToyMetric')]
    __import__('toy')
    tool['set_out'](cfg, 'a/report.json')
    assert [evaluator.out_file for evaluator in cfg.test_evaluator] == ['a/report_0.json', 'a/report_1.json']
