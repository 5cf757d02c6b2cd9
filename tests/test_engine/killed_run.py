"""What makes a training run spend most of its time writing checkpoints, and report how far it is."""

from pathlib import Path

import torch
from mmengine.hooks import Hook
from toy import ToyMetric, ToyModel

from mmsoc.registry import HOOKS, METRICS, MODELS

REPORT = 'report.txt'


@MODELS.register_module()
class HeavyToyModel(ToyModel):
    """The toy model with a large buffer whose every value is the number of training steps."""

    def __init__(self, *, megabytes, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer('padding', torch.zeros(megabytes * 2**18))

    def forward(self, *args, mode='tensor', **kwargs):
        if mode == 'loss':
            self.padding += 1
            return super().forward(*args, mode=mode, **kwargs)
        return [dict(steps=int(self.padding[0]))]


@METRICS.register_module()
class RisingMetric(ToyMetric):
    """The number of steps, and 0 in every third epoch: in the others a new best checkpoint replaces the old one."""

    def process(self, data_batch, data_samples):
        self.results += [sample['steps'] for sample in data_samples]

    def compute_metrics(self, results):
        return {'J&F': float(max(results) if max(results) // 2 % 3 else 0)}


@HOOKS.register_module()
class ReportHook(Hook):
    """Appends to work_dir/report.txt: ``loaded E`` after a checkpoint was read, ``step E`` after the first iteration
    of a process (E epochs were done before), ``saved E`` after the checkpoint of epoch E was written.
    """

    priority = 'LOWEST'
    stepped = False

    def _write(self, runner, line):
        with open(Path(runner.work_dir) / REPORT, 'a') as f:
            f.write(line + '\n')

    def after_load_checkpoint(self, runner, checkpoint):
        self._write(runner, f'loaded {checkpoint["meta"]["epoch"]}')

    def after_train_iter(self, runner, *args, **kwargs):
        if not self.stepped:
            self.stepped = True
            self._write(runner, f'step {runner.epoch}')

    def after_train_epoch(self, runner):
        self._write(runner, f'saved {runner.epoch + 1}')
