import logging
import re
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError

from .strict_load_hook import whole_state_dict


@HOOKS.register_module()
class StartingPointHook(Hook):
    """Logs the checkpoint that training starts from, and warns if a fine-tuning recipe was given none.

    Args:
        wanted: description of what `load_from` should name.
        from_scratch: regular expressions (``re.search``) of names that start from the model's initial values, ignoring
            the checkpoint's values, whose shapes may differ. A resumed run and a test load everything.

    Raises:
        ValueError: an expression of `from_scratch` matches no name of the model.
    """

    # Before StrictLoadHook, which then finds the model's own values.
    priority = 'ABOVE_NORMAL'

    def __init__(self, *, wanted: str, from_scratch: Sequence[str] = ()) -> None:
        if isinstance(from_scratch, str):
            raise UserError(
                f'StartingPointHook.from_scratch is the string {from_scratch!r}: expected a list of regular expressions'
            )
        self.wanted = wanted
        self.from_scratch = list(from_scratch)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        starts = (
            isinstance(runner._train_loop, BaseLoop) and not runner._resume
        )  # MMEngine builds the loop before it loads
        if not (starts and self.from_scratch):
            return
        own = whole_state_dict(runner.model)
        found = checkpoint.get('state_dict', checkpoint)
        for pattern in self.from_scratch:
            names = [name for name in own if re.search(pattern, name)]
            if not names:
                raise UserError(f'StartingPointHook.from_scratch: no tensor of the model has a name like {pattern!r}')
            for name in names:
                found.pop(f'module.{name}', None)  # DistributedDataParallel's name for it
                found[name] = own[name]
            print_log(
                f'Not taken from the checkpoint: {len(names)} tensors, {names[0]} to {names[-1]}', logger=runner.logger
            )

    def before_train(self, runner: Runner) -> None:
        if runner._resume:
            return  # the resumed run logged it
        if runner._load_from:
            print_log(f'Training starts from {runner._load_from}', logger=runner.logger)
            return
        print_log(
            f'load_from is None: this recipe starts from {self.wanted}. Training continues without it and will not reach the '
            "paper's number. To name a checkpoint: --cfg-options load_from=FILE",
            logger=runner.logger,
            level=logging.WARNING,
        )
