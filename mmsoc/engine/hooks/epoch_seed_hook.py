from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError

from ..seeding import epoch_seed, seed_everything, seed_worker


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds the main process at the start of each training epoch from (seed, epoch, rank); see
    ``mmsoc.engine.seeding``.

    Raises:
        ValueError: before training, if the training loader would defeat this: ``persistent_workers`` (workers are
            seeded only when they start) or a ``worker_init_fn`` other than ``seed_worker``.
    """

    # The last hook before the loader is iterated, so that no other hook draws a number in between.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        if loader.num_workers == 0:
            return
        if loader.persistent_workers:
            raise UserError(
                'train_dataloader.persistent_workers is True: expected False. Persistent workers are seeded once, so a '
                'resumed run would draw other augmentations than an unbroken one. (Or drop EpochSeedHook from '
                'custom_hooks.)'
            )
        function = getattr(loader.worker_init_fn, 'func', loader.worker_init_fn)
        if function is not seed_worker:
            raise UserError(
                f'train_dataloader.worker_init_fn is {getattr(function, "__qualname__", function)}: expected '
                "dict(type='mmsoc.seed_worker'). MMEngine's default gives each worker the same seed in every epoch, so "
                'every epoch would repeat the same augmentations. (Or drop EpochSeedHook from custom_hooks.)'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        seed_everything(epoch_seed(runner.seed, runner.epoch, get_rank()))
