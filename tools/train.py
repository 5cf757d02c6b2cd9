"""Train a model: ``python tools/train.py configs/soc/NAME.py``; several processes: tools/dist_train.sh."""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # lets a checkout run without installing mmsoc

from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from mmsoc.engine.cli import add_common_arguments, load_config, parse_arguments, require_file
from mmsoc.engine.dist import abort_on_failure, finish_distributed, prepare_distributed
from mmsoc.engine.preflight import DONE, preflight, report, without_unscored_validation
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.memory import keep_freed_memory
from mmsoc.weights import register_loader

# What --amp takes: AmpOptimWrapper's dtype and loss_scale. bfloat16 has float32's range and needs no scaling; a
# disabled scaler does not make the host wait to check for overflows.
AMP_DTYPES = dict(fp16=('float16', 'dynamic'), bf16=('bfloat16', dict(enabled=False)))


def _amp_dtype(name):
    if name not in AMP_DTYPES:
        raise argparse.ArgumentTypeError(f'expected one of {", ".join(AMP_DTYPES)}, found {name}')
    return name


def _amp_last(arguments):
    """Turns ``--amp CONFIG`` into ``CONFIG --amp``, as in other OpenMMLab tools: the config is not the option's value."""
    for index, argument in enumerate(arguments[:-1]):
        if argument == '--amp' and arguments[index + 1].endswith('.py'):
            return [*arguments[:index], *arguments[index + 1 :], '--amp']
    return arguments


def parse_args():
    parser = argparse.ArgumentParser(description='Train a model.')
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the newest one in the work dir if none (or "auto") is given',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const=True,
        type=_amp_dtype,
        metavar='DTYPE',
        help='mixed precision (needs a GPU): bf16 without loss scaling, or fp16 with dynamic loss scaling (the default)',
    )
    parser.add_argument(
        '--tf32',
        action='store_true',
        help='TF32 matrix products and convolutions on GPUs that have it (Ampere and newer)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by (processes x batch size) / auto_scale_lr.base_batch_size',
    )
    args = parse_arguments(parser, _amp_last(sys.argv[1:]))
    if args.resume not in (None, 'auto'):
        require_file(parser, args.resume, '--resume')
    if args.amp and get_device() == 'cpu':
        parser.error(
            '--amp: mixed precision needs a GPU, and this machine shows none (PyTorch: torch.cuda.is_available() is '
            'False); train without --amp'
        )
    return parser, args


def turn_on_amp(cfg, name):
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'--amp: optim_wrapper.type is {kind!r} in the config; expected OptimWrapper or AmpOptimWrapper'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    if name in AMP_DTYPES:
        cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale = AMP_DTYPES[name]
    else:  # --amp alone: the config's, else AmpOptimWrapper's default, float16
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def turn_on_tf32(cfg):
    # A hook, so that it also applies if another program runs the config.
    cfg.setdefault('default_hooks', {})
    cfg.default_hooks.tf32 = dict(type='mmsoc.TF32Hook', enabled=True)


def turn_on_lr_scaling(cfg):
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size (the batch size, over all processes, '
            'that its learning rate is for)'
        )
    cfg.auto_scale_lr.enable = True


def newest_checkpoint(work_dir):
    """The checkpoint named by ``work_dir/last_checkpoint``, even after the folder was moved; None in a new folder."""
    named = find_latest_checkpoint(work_dir)
    if not named or '://' in named:
        return named or None
    for path in (Path(named), Path(work_dir) / Path(named).name):
        if path.is_file():
            return str(path)
    raise FileNotFoundError(
        f'--resume: {Path(work_dir) / "last_checkpoint"} names {named}, which is not there (nor is '
        f'{Path(work_dir) / Path(named).name}); name a checkpoint: --resume PATH'
    )


def explicit(resume):
    """The checkpoint that ``--resume`` names, if it names one."""
    return None if resume in (None, 'auto') else resume


def set_resume(cfg, resume):
    if resume == 'auto':
        path = newest_checkpoint(cfg.work_dir)
        if path is None:
            # Keeps cfg.load_from, for the first start of a fine-tuning run.
            print_log(
                f'--resume: no last_checkpoint in {cfg.work_dir}, training starts from the beginning', logger='current'
            )
            return
        resume = path
    cfg.load_from, cfg.resume = resume, True


@user_errors(status=2)
def main():
    _, args = parse_args()
    cfg = load_config(args)
    if get_device() == 'cpu':
        keep_freed_memory()
    if args.amp:
        turn_on_amp(cfg, args.amp)
    if args.tf32:
        turn_on_tf32(cfg)
    if args.auto_scale_lr:
        turn_on_lr_scaling(cfg)
    if args.launcher == 'none' and not os.environ.get(DONE):
        report(preflight(cfg, 'train', checkpoint=explicit(args.resume), resume=args.resume is not None), args.config)
    reason = without_unscored_validation(cfg)
    if reason is not None and int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))) == 0:
        print_log(
            f'Nothing is validated, and no checkpoint is chosen as the best: {reason}',
            logger='current',
            level=logging.WARNING,
        )
    if args.resume is not None:
        set_resume(cfg, args.resume)
    register_loader()
    with abort_on_failure(args.launcher), user_errors(status=2):
        prepare_distributed(cfg, args.launcher)
        # FlexibleRunner: for the strategies of FSDP and DeepSpeed.
        (RUNNERS.build(cfg) if cfg.get('runner_type') else Runner.from_cfg(cfg)).train()
        finish_distributed()


if __name__ == '__main__':
    main()
