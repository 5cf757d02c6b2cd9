import os
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path

_HALF_WRITTEN = '.*-????????.pth'  # the temporary names of `atomic_path`
# In the message hub, hence in the checkpoint: files to remove once this one is complete; the last validated step.
_OUTDATED = 'outdated_ckpts'
_VALIDATED = 'validated_step'


@register_backend('mmsoc_atomic', force=True)
class AtomicLocalBackend(LocalBackend):
    """MMEngine's local backend, with atomic writes: a reader finds either the old file or the complete new one."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        try:
            with atomic_path(filepath) as temporary, temporary.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # otherwise a power cut can leave an empty file under the new name
        except OSError as error:
            raise OSError(
                error.errno,
                f'{os.strerror(error.errno or 0)} while writing {filepath} ({len(obj) / 2**20:.0f} MiB); '
                'what was saved before is untouched',
            ) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


def _shell_safe(key: str) -> str:
    return key.replace('&', '')


def _progress(runner: Runner) -> tuple[int, int]:
    """Steps done and total steps: iterations of an `IterBasedTrainLoop`, else epochs."""
    loop = runner.train_loop
    return (loop.iter, loop.max_iters) if isinstance(loop, IterBasedTrainLoop) else (loop.epoch, loop.max_epochs)


class _Removals:
    """Wraps a file backend and defers removals until they are safe."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)

    rmtree = remove

    def carry_out(self, keep: set[str]) -> None:
        for path in self.paths:
            if path in keep:
                continue
            if self.backend.isfile(path):
                self.backend.remove(path)
            elif self.backend.isdir(path):
                self.backend.rmtree(path)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook that is safe to kill at any moment: a new file is written under a temporary name and
    renamed when complete; only then are old ones removed and ``last_checkpoint`` updated.

    MMEngine removes the old checkpoint first, so with ``max_keep_ckpts=1`` a kill at that moment leaves none. Atomic
    writes apply to local folders; other storage (``backend_args``, or ``out_dir`` with a scheme) is used directly, in
    the same order.

    A resumed run first completes what the killed one left unfinished: it removes files that the checkpoint lists as
    outdated, and runs a validation that was due at the checkpoint's step but is not recorded in it. (MMEngine would
    skip it, so the best checkpoint could be missing or duplicated.)

    Higher is better for this package's scores, J&F, J, F and IoU: ``save_best`` needs no ``rule`` for them. File names
    omit the ``&`` (``best_rvos_JF_epoch_3.pth``), because shells interpret it.

    Raises:
        ValueError: after the first validation, if ``save_best`` names a score that no metric returned.
    """

    backend_args: dict | None
    file_backend: Any
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]

    _default_greater_keys = [*CheckpointHook._default_greater_keys, 'JF', 'J-', 'F-', 'rvos/J', 'rvos/F', 'IoU', 'P@']

    def __init__(self, *args: Any, save_best: str | list[str] | None = None, **kwargs: Any) -> None:
        if save_best is not None:
            save_best = (
                _shell_safe(save_best) if isinstance(save_best, str) else [_shell_safe(key) for key in save_best]
            )
        super().__init__(*args, save_best=save_best, **kwargs)
        self._meta: dict | None = None
        if self.backend_args is None and self.file_client_args is None and '://' not in str(self.out_dir or ''):
            self.backend_args = dict(backend='mmsoc_atomic')

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if is_main_process() and isinstance(self.file_backend, AtomicLocalBackend):
            for leftover in Path(self.out_dir).glob(_HALF_WRITTEN):
                runner.logger.warning(f'{leftover} is what a killed run left half-written: removed')
                leftover.unlink()
        if self.save_best is not None:
            self._move_best(runner)
        if runner.iter > 0:
            self._finish_interrupted(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # FlexibleRunner overwrites the given count with its own, which is one too high after a validation.
        if self._meta is not None:
            checkpoint['meta'].update(self._meta)

    def _move_best(self, runner: Runner) -> None:
        # The work dir may have been moved, and resuming another run's checkpoint must not remove that run's best one.
        def moved(path: str | None) -> str | None:
            return path and self.file_backend.join_path(self.out_dir, os.path.basename(path))

        if len(self.key_indicators) == 1:
            self.best_ckpt_path = moved(self.best_ckpt_path)
        else:
            self.best_ckpt_path_dict = {key: moved(path) for key, path in self.best_ckpt_path_dict.items()}

    def _finish_interrupted(self, runner: Runner) -> None:
        self.last_ckpt = self._path(runner.epoch if self.by_epoch else runner.iter)
        info = runner.message_hub.runtime_info
        if is_main_process():
            removals = _Removals(self.file_backend)
            removals.paths = [self.file_backend.join_path(self.out_dir, name) for name in info.get(_OUTDATED, [])]
            removals.carry_out(keep={self.last_ckpt, str(runner._load_from), *self._best_paths()})
        loop = runner.train_loop
        if runner.val_loop is None or not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
            return
        step, last = _progress(runner)
        loop._decide_current_val_interval()
        due = step >= loop.val_begin and (step % loop.val_interval == 0 or step == last)
        if due and info.get(_VALIDATED) != step:
            runner.logger.info(f'The checkpoint was saved before the validation of step {step}, which is run now')
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        runner.message_hub.update_info(_VALIDATED, _progress(runner)[0])
        self._saved = False  # MMEngine saves again if the best checkpoint changed
        super().after_val_epoch(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        if not self._saved and self.last_ckpt is not None and self.last_ckpt == self._path(step):
            # Otherwise a run resumed from here would validate again.
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated: list[str] = []
        if self.max_keep_ckpts > 0 and not (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self._path(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        replaced_best = self.file_backend.paths if isinstance(self.file_backend, _Removals) else []
        runner.message_hub.update_info(_OUTDATED, [os.path.basename(path) for path in (*outdated, *replaced_best)])
        self._meta = dict(meta)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._saved = True
        self._meta = None
        if not is_main_process():
            return
        AtomicLocalBackend().put_text(self.last_ckpt, os.path.join(runner.work_dir, 'last_checkpoint'))
        removals = _Removals(self.file_backend)
        removals.paths = outdated
        removals.carry_out(keep={self.last_ckpt})

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        metrics = {_shell_safe(key): value for key, value in metrics.items()}
        absent = [key for key in self.save_best or [] if key != 'auto' and key not in metrics]
        if absent:
            raise UserError(
                f'default_hooks.checkpoint.save_best names {absent}: expected scores of val_evaluator, which are '
                f'{sorted(metrics)}'
            )
        backend = self.file_backend
        removals = _Removals(backend)
        self.file_backend = removals
        self._meta = dict(epoch=runner.epoch, iter=runner.iter)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
            self._meta = None
        removals.carry_out(keep=self._best_paths())

    def _best_paths(self) -> set[str]:
        best = getattr(self, 'best_ckpt_path_dict', None) or {'': getattr(self, 'best_ckpt_path', None)}
        return {str(path) for path in best.values()}

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
