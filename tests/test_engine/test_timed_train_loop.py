"""Training for a given time, on a clock that the tests set."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook

from mmsoc.engine import timed_train_loop

ITERATIONS = 4  # of an epoch of the toy config: 8 samples in batches of 2
EPOCHS = 10  # of the config


class ClockHook(Hook):
    """Advances the clock in each iteration, by seconds that depend on the epoch; notes what the epoch was like."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds
        self.rates, self.pipelines, self.planned, self.starts = [], [], [], []

    def before_train_epoch(self, runner):
        switch = next((hook for hook in runner.hooks if type(hook).__name__ == 'PipelineSwitchHook'), None)
        self.pipelines.append(switch is not None and runner.epoch >= switch.switch_epoch)
        self.planned.append(runner.max_epochs)
        self.starts.append(getattr(runner.train_dataloader.sampler, 'family_starts', None))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][-1])
        self.clock.now += self.seconds(runner.epoch) / ITERATIONS


@pytest.fixture
def train(run, monkeypatch):
    """Trains for some minutes; returns the runner and its ClockHook."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(timed_train_loop, 'time', clock)

    def start(name, of_epoch, minutes, *, switch=None, edit=None, **options):
        def make(cfg):
            cfg.train_cfg = dict(type='TimedTrainLoop', minutes=minutes, max_epochs=EPOCHS, **options)
            cfg.param_scheduler = [
                dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=2),
                dict(type='PolyLR', power=1.0, begin=0, end=EPOCHS, eta_min=0.0, convert_to_iter_based=True),
            ]
            if switch is not None:
                cfg.custom_hooks.append(dict(type='mmdet.PipelineSwitchHook', switch_epoch=switch, switch_pipeline=[]))
            if edit is not None:
                edit(cfg)

        runner = run(name, make)
        hook = ClockHook(clock, of_epoch)
        runner.register_hook(hook, priority='VERY_HIGH')
        runner.train()
        return runner, hook

    return start


def test_a_steady_machine_trains_for_the_time(train):
    runner, hook = train('a', lambda epoch: 30, minutes=6)
    assert runner.epoch == 12
    # Linear from the first iteration to 0 after the last, though the config says 10 epochs.
    rates = torch.tensor(hook.rates[4:])
    expected = 0.01 * (1 - torch.arange(4, 48) / 48)
    torch.testing.assert_close(rates, expected, atol=1e-3, rtol=0)
    assert hook.rates[-1] < 3e-4 and runner.optim_wrapper.get_lr()['lr'][-1] == pytest.approx(0, abs=1e-9)


def test_seconds_give_the_first_plan(train):
    # It was thought to be twice as fast: the plan is corrected after one epoch.
    runner, hook = train('a', lambda epoch: 30, minutes=4, seconds=(15, 15))
    assert hook.planned == [16] + [8] * 7 and runner.epoch == 8


def test_a_machine_that_slows_down_gets_fewer_epochs(train):
    runner, hook = train('a', lambda epoch: 30 if epoch < 4 else 60, minutes=6)
    # 4 x 30 s, then 4 x 60 s
    assert runner.epoch == 8 and hook.rates[-1] < 1e-3


def test_stages_keep_their_shares(train):
    # Of ten epochs six on images. 12 minutes: s * (0.6 * 20 + 0.4 * 60) = 720 for 20 epochs.
    runner, hook = train(
        'a', lambda epoch: 20 if epoch < 12 else 60, minutes=12, switch=6, seconds=(20, 60), val_begin=7
    )
    assert runner.epoch == 20
    assert hook.pipelines == [False] * 12 + [True] * 8
    assert runner.train_loop.val_begin == 13
    # Twice as slow as expected: half of the epochs, with the same shares.
    runner, hook = train('b', lambda epoch: 40 if epoch < 6 else 120, minutes=12, switch=6, seconds=(20, 60))
    assert runner.epoch == 10 and hook.pipelines == [False] * 6 + [True] * 4
    # The time is over before the switch: still one epoch of the other kind.
    runner, hook = train('c', lambda epoch: 1000, minutes=12, switch=6, seconds=(20, 60))
    assert hook.pipelines == [False, True]


def test_families_begin_with_their_stage(train):
    def edit(cfg):
        cfg.train_dataloader.dataset = dict(type='ToyFamilies')
        cfg.train_dataloader.sampler = dict(
            type='ShortEpochSampler', epoch_size=8, family_starts=dict(easy=0, hard=4, last=8)
        )

    runner, hook = train('a', lambda epoch: 30 if epoch < 4 else 60, minutes=5, edit=edit, seconds=(30, 30))
    assert runner.epoch == 7
    assert hook.starts[0] == dict(easy=0, hard=4, last=8)
    # `hard` has begun when the machine slows down; `last` has not.
    assert hook.starts[-1] == dict(easy=0, hard=4, last=6)


def test_a_resumed_run_has_the_time_that_is_left(train, tmp_path):
    runner, _ = train('a', lambda epoch: 30, minutes=4)
    assert runner.epoch == 8

    def edit(cfg):
        cfg.load_from, cfg.resume = str(tmp_path / 'a' / 'epoch_3.pth'), True

    def keep(cfg):
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1

    train('a', lambda epoch: 30, minutes=4, edit=keep)
    runner, hook = train('b', lambda epoch: 30, minutes=4, edit=edit)
    assert runner.epoch == 8 and len(hook.pipelines) == 5
    # On a slower machine
    runner, hook = train('c', lambda epoch: 50, minutes=4, edit=edit)
    assert len(hook.pipelines) == 3 and hook.rates[-1] < 1e-3
    # With more time
    runner, hook = train('d', lambda epoch: 30, minutes=6, edit=edit)
    assert runner.epoch == 12


def test_a_resumed_run_keeps_its_stages(train, tmp_path):
    """Twenty epochs are planned instead of ten, so the switch is at 12 and the families start later than in the config."""

    def edit(cfg):
        cfg.train_dataloader.dataset = dict(type='ToyFamilies')
        cfg.train_dataloader.sampler = dict(
            type='ShortEpochSampler', epoch_size=8, family_starts=dict(easy=0, hard=6, last=7)
        )
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1

    def resumed(epoch):
        def change(cfg):
            edit(cfg)
            cfg.load_from, cfg.resume = str(tmp_path / 'a' / f'epoch_{epoch}.pth'), True

        return change

    def speed(epoch):
        return 20 if epoch < 12 else 60

    options = dict(minutes=12, switch=6, seconds=(20, 60))
    runner, whole = train('a', speed, edit=edit, **options)
    assert runner.epoch == 20 and whole.starts[-1] == dict(easy=0, hard=12, last=14)
    for epoch in (8, 13):
        runner, hook = train(f'b{epoch}', speed, edit=resumed(epoch), **options)
        assert runner.epoch == 20
        assert hook.pipelines == whole.pipelines[epoch:] and hook.starts == whole.starts[epoch:]
        assert hook.rates == pytest.approx(whole.rates[epoch * ITERATIONS :])
    # A finished run stays finished.
    runner, hook = train('c', speed, edit=resumed(20), **options)
    assert hook.pipelines == []


def test_the_last_epoch_is_known_to_the_hooks(train, tmp_path):
    """The machine becomes so slow that the running epoch is the last: it is saved, though the interval does not ask for it."""

    def edit(cfg):
        cfg.default_hooks.checkpoint.interval = 4

    runner, _ = train('a', lambda epoch: 30 if epoch < 4 else 500, minutes=6, edit=edit)
    assert runner.epoch == 5 and (tmp_path / 'a' / 'epoch_5.pth').is_file()


def test_the_beginning_of_a_schedule_moves_as_well(train):
    def edit(cfg):
        cfg.param_scheduler[1].begin = 8

    runner, hook = train('a', lambda epoch: 30, minutes=10, edit=edit)
    assert runner.epoch == 20
    constant = [rate == pytest.approx(0.01) for rate in hook.rates[8:]]
    assert all(constant[: 16 * ITERATIONS - 8]) and not any(constant[16 * ITERATIONS - 7 :])


def test_other_schedules_are_refused(train):
    def edit(cfg):
        cfg.param_scheduler[1] = dict(type='CosineAnnealingLR', begin=0, end=EPOCHS, T_max=EPOCHS)

    with pytest.raises(ValueError, match='TimedTrainLoop: CosineAnnealingLR ends with the training .* use PolyLR'):
        train('a', lambda epoch: 30, minutes=10, edit=edit)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(minutes=0), 'minutes must be positive, found 0'),
        (dict(minutes=1, seconds=(1, 0)), r'seconds must be two positive numbers, found \(1, 0\)'),
        (dict(minutes=1, seconds=(1,)), r'seconds must be two positive numbers, found \(1,\)'),
    ],
)
def test_arguments(train, options, message):
    with pytest.raises(ValueError, match=f'TimedTrainLoop: {message}'):
        train('a', lambda epoch: 1, **options)
