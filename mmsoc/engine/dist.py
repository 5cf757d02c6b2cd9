"""Distributed runs on machines without an accelerator, which MMEngine 0.10 starts with CUDA calls."""

import gc
import os
from datetime import timedelta

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.device import get_device

from mmsoc.utils.errors import UserError

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
