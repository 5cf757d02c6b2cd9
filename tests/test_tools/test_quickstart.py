"""The quickstart's plan and what it says; the whole of it is too long for a test."""

import json
import sys
from types import SimpleNamespace

import pytest
from mmengine import Config

from tools import quickstart

RECIPES = {'pretrained': quickstart.PRETRAINED, 'scratch': quickstart.FROM_SCRATCH}


@pytest.mark.parametrize('recipe', RECIPES.values(), ids=RECIPES)
def test_the_expectation_is_interpolated(recipe):
    known = sorted(recipe.expected)
    assert recipe.expectation(known[0]) == recipe.expectation(known[0] / 10)
    assert recipe.expectation(known[-1]) == recipe.expectation(known[-1] * 10)
    for low, high in zip(known[:-1], known[1:], strict=True):
        middle = recipe.expectation((low * high) ** 0.5)
        assert list(middle) == list(quickstart.FAMILIES)
        for value, a, b in zip(middle.values(), recipe.expected[low], recipe.expected[high], strict=True):
            assert value == pytest.approx((a + b) / 2)
    assert recipe.clips_for(0) == known[0] and recipe.clips_for(100) == float('inf')
    first, second = (recipe.expected[clips][0] for clips in known[:2])
    assert first < second and recipe.clips_for((first + second) / 2) == pytest.approx((known[0] * known[1]) ** 0.5)


@pytest.mark.parametrize('recipe', RECIPES.values(), ids=RECIPES)
def test_sentences_about_time_meet_whole_videos_only(recipe):
    cfg = Config.fromfile(recipe.config)
    starts = quickstart.starts(cfg)
    switch = next(hook for hook in cfg.custom_hooks if hook.type == 'mmdet.PipelineSwitchHook').switch_epoch
    assert starts['appearance'] == 0 < switch < cfg.train_cfg.max_epochs
    assert switch <= starts['change'] <= starts['order'] < cfg.train_cfg.max_epochs


def test_the_config_knows_the_generator_s_categories():
    from mmsoc.preparation.moving_shapes.scene import SHAPES

    for recipe in RECIPES.values():
        assert Config.fromfile(recipe.config).categories == list(SHAPES)


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


def test_progress_says_how_long_it_will_take(tmp_path, monkeypatch):
    """One process: half of the second epoch is over, after 0.6 s per iteration."""
    said = []
    monkeypatch.setattr(quickstart, 'run', lambda *command, progress, **kwargs: said.append(progress()))
    args = SimpleNamespace(procs=1, gpus=0)
    config = quickstart.FROM_SCRATCH.config
    quickstart.train(args, config, tmp_path, (), 4)
    step = 3 * Config.fromfile(config).epoch_size // quickstart.total_batch(Config.fromfile(config)) // 2
    write_scalars(tmp_path, '1', [dict(step=step - 1, loss=3.0, time=60), dict(step=step, loss=3.0, time=60)])
    quickstart.train(args, config, tmp_path, (), 4)
    assert said == [f'starting (log: {tmp_path / "train.log"})', 'epoch 2, loss 3.00, about 2.0 min left']


@pytest.mark.parametrize(('slow', 'epoch_size'), [(1, 800), (5, 448), (50, 320)])
def test_a_slow_machine_gets_shorter_epochs(slow, epoch_size, tmp_path, monkeypatch, capsys):
    """5.6 minutes hold 33 epochs of 800 clips, 6.7, or two thirds of one."""
    monkeypatch.setattr(quickstart, 'run', lambda *command, **kwargs: None)
    times = [dict(epoch=epoch, time=0.1 * slow) for epoch in (1, 2) for _ in range(4)]
    monkeypatch.setattr(quickstart, 'scalars', lambda folder: times if folder.name == 'probe' else [])
    args = SimpleNamespace(recipe=quickstart.PRETRAINED, work_dir=tmp_path, procs=2, gpus=0, minutes=5.6)
    steps = quickstart.Steps(tmp_path, 1)
    quickstart.measure_speed(args, steps)
    assert steps.state['epoch_size'] == epoch_size
    assert steps.state['seconds'] == pytest.approx([10 * slow * epoch_size / 800] * 2)
    assert ('the fewest that was measured' in capsys.readouterr().out) == (slow == 50)
    args.minutes = 0.1
    quickstart.measure_speed(args, steps)
    assert steps.state['epoch_size'] == epoch_size  # training may have begun


def test_a_command_that_fails_is_shown_with_its_log(tmp_path, capsys):
    log = tmp_path / 'logs' / 'x.log'
    with pytest.raises(
        SystemExit, match='(?s)ended with status 3 .*the whole log: .*x.log.*Run the same command again'
    ):
        quickstart.run(sys.executable, '-c', 'print("what went wrong"); raise SystemExit(3)', log=log)
    assert 'what went wrong' in capsys.readouterr().err
    quickstart.run(sys.executable, '-c', '', log=log, progress=lambda: 'busy')
    assert log.read_text() == ''
