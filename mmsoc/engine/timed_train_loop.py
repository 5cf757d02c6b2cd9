import time
from collections.abc import Sequence
from typing import Any

from mmdet.engine.hooks import PipelineSwitchHook
from mmengine.dist import broadcast_object_list
from mmengine.optim import PolyParamScheduler
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmsoc.datasets.samplers import ShortEpochSampler
from mmsoc.registry import LOOPS
from mmsoc.utils.errors import UserError

_PLAN = 'timed_train_loop'
"""in the message hub, hence in checkpoints"""


@LOOPS.register_module()
class TimedTrainLoop(EpochBasedTrainLoop):
    """Trains for a given time: after each epoch it plans how many more fit, from the speed of the last one.

    What the config counts in epochs keeps its share of the planned epochs: the switch of `mmdet.PipelineSwitchHook`, the
    ``family_starts`` of `ShortEpochSampler`, ``val_begin``, and the begin and end of each parameter scheduler that ends with
    the training. What has begun stays where it was. A resumed run continues with the time that is left; what an interrupted
    one did after its checkpoint does not count.

    Args:
        minutes: of training, without validation.
        max_epochs: E, which the config's other numbers of epochs refer to; also the first plan if ``seconds`` is None.
        seconds: of an epoch before and after the switch of the pipeline, as expected. An epoch of either kind that was timed also
            corrects the expectation of the other.
        val_begin, val_interval, dynamic_intervals: as in `EpochBasedTrainLoop`.

    Raises:
        ValueError: ``minutes`` is not positive, ``seconds`` are not two positive numbers, or a scheduler that ends with the
            training is neither PolyLR nor independent of its end.
    """

    val_begin: int
    dataloader: DataLoader

    def __init__(
        self,
        *args: Any,
        minutes: float,
        max_epochs: int,
        seconds: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, max_epochs=max_epochs, **kwargs)
        if not minutes > 0:
            raise UserError(f'TimedTrainLoop: minutes must be positive, found {minutes}')
        if seconds is not None and (len(seconds) != 2 or not min(seconds) > 0):
            raise UserError(f'TimedTrainLoop: seconds must be two positive numbers, found {seconds}')
        self.budget = minutes * 60
        self.used = 0.0
        self.seconds = list(seconds) if seconds else None
        self._of_config = max_epochs
        self._epoch_start = 0.0

    def run(self) -> Any:
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, PipelineSwitchHook)]
        if len(hooks) > 1:
            raise UserError(f'TimedTrainLoop: expected at most one PipelineSwitchHook, found {len(hooks)}')
        self._switch = hooks[0] if hooks else None
        self._switch_of_config = self._switch.switch_epoch if self._switch else 0
        sampler = self.dataloader.sampler
        self._starts_of_config = dict(sampler.family_starts or {}) if isinstance(sampler, ShortEpochSampler) else {}
        self._val_begin_of_config = self.val_begin
        known = self.runner.message_hub.runtime_info.get(_PLAN)
        if known:
            self.used, self.seconds, self.val_begin = known['used'], known['seconds'], known['val_begin']
            if self._switch:
                self._switch.switch_epoch = known['switch']
            if self._starts_of_config:
                sampler.family_starts = dict(known['family_starts'])
            self._set_max_epochs(known['epochs'])
        self._check_schedulers()
        self._plan(self._epoch)
        return super().run()

    def run_epoch(self) -> None:
        self._epoch_start = time.monotonic()
        super().run_epoch()

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        super().run_iter(idx, data_batch)
        if idx + 1 == len(self.dataloader):
            # Before the hooks after the epoch, which write the checkpoint and ask whether it was the last one.
            self._account(time.monotonic() - self._epoch_start)
            self._plan(self._epoch + 1)

    def _account(self, seconds: float) -> None:
        taken = [seconds]
        broadcast_object_list(taken)  # all processes must plan the same
        (seconds,) = taken
        self.used += seconds
        kind = int(self._epoch >= self._switch_epoch)
        if self.seconds is None:
            self.seconds = [seconds, seconds]
        self.seconds = [value * seconds / self.seconds[kind] for value in self.seconds]

    def _remember(self) -> None:
        starts = dict(self.dataloader.sampler.family_starts) if self._starts_of_config else {}
        plan = dict(
            used=self.used,
            seconds=self.seconds,
            epochs=self._max_epochs,
            switch=self._switch_epoch,
            family_starts=starts,
            val_begin=self.val_begin,
        )
        self.runner.message_hub.update_info(_PLAN, plan)

    @property
    def _switch_epoch(self) -> int:
        return self._switch.switch_epoch if self._switch else 0

    def _plan(self, done: int) -> None:
        """Sets the number of epochs, and moves what has not happened after ``done`` of them."""
        if self.seconds is None:
            return
        epochs = done
        while self._left(done, epochs + 1) >= 0:
            epochs += 1
        if done == 0 or self._switch_epoch >= done > 0 and self._switch:
            # One of each kind, however late it is.
            epochs = max(epochs, done + 1, 2 if self._switch else 1)
        if self._switch:
            self._switch.switch_epoch = self._scaled(self._switch_of_config, epochs, self._switch.switch_epoch, done)
        if self._starts_of_config:
            sampler = self.dataloader.sampler
            sampler.family_starts = {
                family: self._scaled(start, epochs, sampler.family_starts[family], done)
                for family, start in self._starts_of_config.items()
            }
        # The last epoch is validated in any case.
        self.val_begin = self._scaled(self._val_begin_of_config - 1, epochs, self.val_begin - 1, done) + 1
        self._move_schedulers(done, epochs)
        self._set_max_epochs(epochs)
        self._remember()

    def _left(self, done: int, epochs: int) -> float:
        """Seconds that are left after training for so many epochs."""
        assert self.seconds is not None
        switch = self._scaled(self._switch_of_config, epochs, self._switch_epoch, done)
        before = max(switch - done, 0)
        return self.budget - self.used - before * self.seconds[0] - (epochs - done - before) * self.seconds[1]

    def _scaled(self, epoch: int, epochs: int, planned: int, done: int) -> int:
        """The epoch of the config, if training takes ``epochs``; ``planned`` if that has begun."""
        if planned < done or epoch == 0:
            return planned
        return min(max(round(epoch * epochs / self._of_config), 1, done), max(epochs - 1, 0))

    def _schedulers(self) -> list[Any]:
        """Those that end with the training."""
        of_runner = self.runner.param_schedulers or []
        every = of_runner if isinstance(of_runner, list) else sum(of_runner.values(), [])
        return [
            scheduler
            for scheduler in every
            if scheduler.end == (self._max_epochs if scheduler.by_epoch else self._max_iters)
        ]

    def _check_schedulers(self) -> None:
        for scheduler in self._schedulers():
            if not isinstance(scheduler, PolyParamScheduler) and {'total_iters', 'T_max'} & set(vars(scheduler)):
                raise UserError(
                    f'TimedTrainLoop: {type(scheduler).__name__} ends with the training and cannot be given another end; '
                    'use PolyLR'
                )

    def _move_schedulers(self, done: int, epochs: int) -> None:
        length = len(self.dataloader)
        for scheduler in self._schedulers():
            scale = 1 if scheduler.by_epoch else length
            if scheduler.begin > done * scale:
                planned = scheduler.end
                scheduler.begin = min(
                    max(round(scheduler.begin * epochs * scale / planned), done * scale), epochs * scale - 1
                )
            scheduler.end = epochs * scale
            if isinstance(scheduler, PolyParamScheduler):
                scheduler.total_iters = scheduler.end - scheduler.begin - 1  # as its constructor does

    def _set_max_epochs(self, epochs: int) -> None:
        self._max_epochs = epochs
        self._max_iters = epochs * len(self.dataloader)
