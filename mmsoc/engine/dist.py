"""Distributed runs: on machines without an accelerator, which MMEngine 0.10 starts with CUDA calls, and their common end."""

import gc
import logging
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank
from mmengine.logging import print_log

from mmsoc.utils.errors import UserError

POLL_SECONDS = 1.0
"""how often a process asks whether another one has failed"""

_PYTORCH_VARIABLES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def prepare_distributed(cfg: Config, launcher: str) -> None:
    """Prepare process group and ``cfg`` for ``launcher``, before a Runner is built from ``cfg``.

    With an accelerator nothing changes: MMEngine initialises NCCL by ``env_cfg.dist_cfg``. Without one, ``pytorch``
    starts gloo here and wraps the model without device ids.

    Raises:
        ValueError: the launcher's environment variables are absent, it starts more processes than there are GPUs, or it
            is ``slurm`` or ``mpi`` on a machine without an accelerator.
    """
    if launcher == 'none':
        return
    device = get_device()
    if launcher == 'pytorch':
        absent = [name for name in _PYTORCH_VARIABLES if name not in os.environ]
        if absent:
            raise UserError(
                f'--launcher pytorch: the environment variables {", ".join(absent)} are not set; expected to be '
                'started by torchrun: use tools/dist_train.sh or tools/dist_test.sh'
            )
        local_rank = int(os.environ['LOCAL_RANK'])
        if device == 'cuda' and local_rank >= torch.cuda.device_count():
            raise UserError(
                f'process {local_rank + 1} of this machine has no GPU: {torch.cuda.device_count()} are visible. '
                'Start at most that many processes, or set CUDA_VISIBLE_DEVICES= to run on the CPU'
            )
    if device != 'cpu':
        return
    if launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs GPUs and this machine shows none. On the CPU use --launcher pytorch '
            '(tools/dist_train.sh), which runs on gloo'
        )
    flexible = cfg.get('runner_type') == 'FlexibleRunner'
    if flexible and cfg.strategy.type != 'mmsoc.FSDPStrategy':
        raise UserError(
            f'strategy.type={cfg.strategy.type!r}: on a machine without GPUs expected mmsoc.FSDPStrategy (or no '
            'runner_type)'
        )
    # environ: torchrun's variables name the rendezvous.
    seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=seconds))
    if flexible:  # mmsoc.FSDPStrategy does the rest
        return
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    # MMEngine's default is the local rank, a CUDA device.
    cfg.model_wrapper_cfg.device_ids = None


def finish_distributed() -> None:
    """Leave the process group, if there is one, together: torch warns about processes that just end.

    DDP and its reducer keep the group alive until they are collected, and a group whose threads still run when the interpreter ends
    can abort a process that has done all its work.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        gc.collect()
        torch.distributed.destroy_process_group()


@contextmanager
def abort_on_failure(launcher: str) -> Iterator[None]:
    """Ends all processes of a distributed run when one fails, with status 1 and a message that names its rank and its error.

    The others would wait for it in a collective: with NCCL until ``env_cfg.dist_cfg.timeout``, two hours in mmsoc's configs; with
    gloo until its process is gone, which its threads can delay. The failing process writes its error to the store of the
    rendezvous, where a thread of each process looks for one, so that a training step has no further collective and no further wait.

    For the ``main`` of a tool: around everything that can fail in one process alone, with `finish_distributed` as the last
    statement, so that processes that wait there for the others learn of a failure, too. An error does not leave the block: its
    traceback is printed, or the message alone of a SystemExit (`user_errors`), and the process ends without Python's cleanup. An
    error before there is a process group passes through, and so does ``SystemExit(0)``.

    Args:
        launcher: as in `prepare_distributed`; with ``'none'`` nothing changes.
    """
    if launcher == 'none':
        yield
        return
    watch = _PeerWatch()
    watch.start()
    try:
        yield
    except BaseException as error:
        if not torch.distributed.is_initialized() or (isinstance(error, SystemExit) and not error.code):
            raise
        _report(error, watch)
        _exit()
    finally:
        watch.stop()


class _PeerWatch(threading.Thread):
    """Looks in the store of the rendezvous, over a connection of its own, for the error of another process, and ends this one."""

    def __init__(self) -> None:
        super().__init__(name='mmsoc-peer-watch', daemon=True)
        self._store: torch.distributed.Store | None = None
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join(POLL_SECONDS)

    def publish(self, message: str) -> str:
        """Tells the other processes; returns the first message of all processes.

        Raises:
            RuntimeError: the store has ended, with the process that held it.
        """
        self._store = self._store or _connect()
        return self._store.compare_set(_key(), '', message).decode()

    def run(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            if not torch.distributed.is_initialized():  # the Runner does it where `prepare_distributed` does not
                continue
            try:
                self._store = self._store or _connect()
            except (RuntimeError, KeyError) as error:
                print_log(f'failures of other processes will not be noticed: {error!r}', 'current', logging.WARNING)
                return
            failure = self._failure(self._store)
            if failure:
                _log(f'{failure}; rank {get_rank()} ends, too')
                # The failing process ends first: torchrun takes the first one that ends for the cause.
                if not self._stopped.wait(4 * POLL_SECONDS):
                    _exit()
                return

    def _failure(self, store: torch.distributed.Store) -> str | None:
        try:
            return store.get(_key()).decode() if store.check([_key()]) else None
        except RuntimeError as error:
            # The process that held the store has ended, as it should after the last barrier.
            if self._stopped.wait(4 * POLL_SECONDS) or not torch.distributed.is_initialized():
                return None
            return f'rank 0 (or torchrun), which held the rendezvous, ended without a message ({error})'


def _key() -> str:
    return f'mmsoc/failure/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}'  # torchrun's store outlives a restart


def _connect() -> torch.distributed.Store:
    """A connection to the store of the rendezvous, which torchrun or rank 0 holds."""
    address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    timeout = timedelta(seconds=10)
    return torch.distributed.TCPStore(address, port, is_master=False, timeout=timeout, wait_for_workers=False)


def _report(error: BaseException, watch: _PeerWatch) -> None:
    """Publishes, prints and logs this process's error, and gives the others the time to read it."""
    watch.stop()
    first = message = f'rank {get_rank()} failed: {_summary(error)}'
    # Without a store the others have noticed its end, or they have logged that they will notice nothing.
    with suppress(RuntimeError, KeyError):
        first = watch.publish(message)
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    elif isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    _log(message if first == message else f'{message}\nbefore that, {first}')
    time.sleep(2 * POLL_SECONDS)


def _summary(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            return error.code
        error = error.__context__ or error  # `user_errors` has printed its message
    return ''.join(traceback.format_exception_only(error)).strip()


def _log(message: str) -> None:
    print_log(message, logger='current', level=logging.ERROR)


def _exit() -> NoReturn:
    """Python's way out would wait for other threads and for NCCL."""
    # Workers of data loaders have copies of the sockets by whose end gloo notices that a process is gone.
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
