import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmsoc.registry import HOOKS


@HOOKS.register_module()
class StartingPointHook(Hook):
    """Says before training from which checkpoint it starts, and warns if a recipe that fine-tunes was given none.

    Args:
        wanted (str): what `load_from` should name, in words.
    """

    def __init__(self, *, wanted: str) -> None:
        self.wanted = wanted

    def before_train(self, runner: Runner) -> None:
        if runner._resume:
            return  # the resumed run said it
        if runner._load_from:
            print_log(f'Training starts from {runner._load_from}', logger=runner.logger)
            return
        print_log(
            f'load_from is None: this recipe starts from {self.wanted}. Training goes on without it and will not reach that '
            'number. To name a checkpoint: --cfg-options load_from=FILE',
            logger=runner.logger,
            level=logging.WARNING)
