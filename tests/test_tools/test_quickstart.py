"""The quickstart's plan and what it says; the whole of it is too long for a test."""

import json
import sys
from types import SimpleNamespace

import pytest
from mmengine import Config

from tools import quickstart


@pytest.mark.parametrize('epochs', [2, 7, 17, 200])
def test_the_stages_keep_their_shares(epochs):
    cfg = Config.fromfile(quickstart.CONFIG)
    own = dict(cfg.family_starts)
    cfg.merge_from_dict(dict(option_value(option) for option in quickstart.stages(cfg, epochs)))
    starts = cfg.train_dataloader.sampler.family_starts
    switch = next(hook for hook in cfg.custom_hooks if hook.type == 'mmdet.PipelineSwitchHook').switch_epoch
    assert starts['appearance'] == 0 and 0 < switch < epochs
    # sentences about time never meet single frames
    assert switch <= starts['change'] <= starts['order'] < epochs
    for family, start in own.items():
        # ... but for a last stage that would round to nothing: it has one epoch
        assert abs(starts[family] / epochs - start / cfg.max_epochs) <= 0.5 / epochs or starts[family] == epochs - 1


def option_value(option):
    key, value = option.split('=')
    return key, int(value)


def test_the_config_knows_the_generator_s_categories():
    from mmsoc.preparation.moving_shapes.scene import SHAPES

    assert Config.fromfile(quickstart.CONFIG).categories == list(SHAPES)


def write_scalars(folder, name, records):
    (folder / name / 'vis_data').mkdir(parents=True)
    (folder / name / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n{"loss": 0.')


def test_training_time_of_an_interrupted_run(tmp_path):
    """Steps that were repeated after an interruption count once, and a line that is being written not at all."""
    write_scalars(tmp_path, '1', [dict(step=10, loss=3.0, time=0.6), dict(step=20, loss=2.0, time=0.6), dict(coco=1.0)])
    write_scalars(tmp_path, '2', [dict(step=20, loss=2.0, time=1.2), dict(step=30, loss=1.0, time=1.2)])
    assert [record['step'] for record in quickstart.scalars(tmp_path)] == [10, 20, 30]
    assert quickstart.minutes_of(tmp_path) == pytest.approx(10 * (0.6 + 1.2 + 1.2) / 60)
    assert quickstart.minutes_of(tmp_path / 'none') == 0


def test_progress_says_how_long_it_will_take(tmp_path, monkeypatch, capsys):
    """One process: half of the second of three epochs is over."""
    said = []
    monkeypatch.setattr(quickstart, 'run', lambda *command, progress, **kwargs: said.append(progress()))
    args = SimpleNamespace(procs=1, gpus=0)
    quickstart.train(args, quickstart.CONFIG, tmp_path, (), 3, seconds=[60, 60, 120])
    cfg = Config.fromfile(quickstart.CONFIG)
    write_scalars(tmp_path, '1', [dict(step=3 * cfg.epoch_size // cfg.batch_size // 2, loss=3.0, time=0.6)])
    quickstart.train(args, quickstart.CONFIG, tmp_path, (), 3, seconds=[60, 60, 120])
    assert said == [f'starting (log: {tmp_path / "train.log"})', 'epoch 2 of 3, loss 3.00, about 2.5 min left']


def test_a_command_that_fails_is_shown_with_its_log(tmp_path, capsys):
    log = tmp_path / 'logs' / 'x.log'
    with pytest.raises(
        SystemExit, match='(?s)ended with status 3 .*the whole log: .*x.log.*Run the same command again'
    ):
        quickstart.run(sys.executable, '-c', 'print("what went wrong"); raise SystemExit(3)', log=log)
    assert 'what went wrong' in capsys.readouterr().err
    quickstart.run(sys.executable, '-c', '', log=log, progress=lambda: 'busy')
    assert log.read_text() == ''
