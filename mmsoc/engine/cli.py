"""What the tools' command lines have in common."""

import argparse
import ast
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner


class OptionAction(DictAction):
    """MMEngine's ``KEY=VALUE`` options, except that spaces inside a value are kept (there ``'a b'`` becomes ``'ab'``).

    Values are read like there (numbers, True, None, ``1,2``, ``[a,b]``), and as Python if they start with a bracket or
    a quote: ``"['a b', 'c']"``.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or ():
            key, equals, value = pair.partition('=')
            if not (key and equals):
                parser.error(f'{option_string} {pair}: expected KEY=VALUE')
            options[key] = self._value(value)
        setattr(namespace, self.dest, options)

    def _value(self, text: str) -> Any:
        if text[:1] in tuple('[({"\''):
            try:
                return ast.literal_eval(text)
            except (ValueError, SyntaxError):
                pass  # [a,b] without quotes
        if ',' in text or text[:1] in tuple('[('):
            return self._parse_iterable(text)
        return self._parse_int_float_bool(text)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """``config``, ``--work-dir``, ``--cfg-options``, ``--launcher``, ``--local_rank``."""
    parser.add_argument('config', help='config file (configs/soc/*.py)')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='override config settings, e.g. train_cfg.max_epochs=1 "work_dir=/a folder" \'model.names=["a b", "c"]\'',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Not used: torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a config that is not there ends the program with a message that names it."""
    args = parser.parse_args(arguments)
    require_file(parser, args.config, 'config')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def require_file(parser: argparse.ArgumentParser, path: str, what: str) -> None:
    """End the program with a message if ``path`` is not a file; addresses with a scheme are left to MMEngine."""
    if '://' in path or Path(path).is_file():
        return
    found = 'it is a folder' if Path(path).is_dir() else f'there is no such file (looked in {Path.cwd()})'
    parser.error(f'{what} {path}: {found}')


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """``--precision``, ``--compile``; what they say to the config: `speed_options`."""
    parser.add_argument(
        '--precision',
        type=_precision,
        metavar='NAME',
        help='of predictions: fp32, tf32, bf16 or fp16 (model.test_cfg.precision)',
    )
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile for the backbone (model.test_cfg.compile)'
    )


def speed_options(args: argparse.Namespace) -> dict[str, Any]:
    """``--precision`` and ``--compile`` as options of the config; empty where neither was given."""
    given = dict(precision=args.precision, compile=args.compile or None)
    return {f'model.test_cfg.{key}': value for key, value in given.items() if value is not None}


def _precision(name: str) -> str:
    from mmsoc.models.soc import PRECISIONS  # here, since it takes seconds

    if name not in PRECISIONS:
        raise argparse.ArgumentTypeError(f'expected one of {", ".join(PRECISIONS)}, found {name}')
    return name


# What MMEngine's runners read at a config's top level, and what this package's tools do.
_TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    *inspect.signature(FlexibleRunner.__init__).parameters,
    'auto_scale_lr',
    'custom_imports',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
    'log_level',
    'model_path',
}


def warn_of_variables(cfg: Config, options: dict[str, Any]) -> None:
    """Warn of options that change a variable which the config file has used up when it was read: nothing would come of them."""
    for key, value in options.items():
        old = cfg.get(key)
        if '.' in key or key in _TOP_LEVEL or key not in cfg or isinstance(old, dict):
            continue
        places = [
            path
            for path, found in _leaves(cfg._cfg_dict.to_dict())
            if path != key
            and (path.rsplit('.', 1)[-1] == key or (old is not None and not isinstance(old, bool) and found == old))
        ]
        print_log(
            f'--cfg-options {key}={value}: {key!r} is a variable of the config file, which was used when the file was read; '
            'nothing reads it now. '
            + (
                f'Set what it stands for: {", ".join(places[:8])}'
                if places
                else 'Set what it stands for (tools/analysis_tools/print_config.py shows the config)'
            ),
            logger='current',
            level=logging.WARNING,
        )


def _leaves(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """The values of a nested config with their dotted paths; a list of plain values counts as one."""
    if isinstance(node, dict):
        items: Iterable[tuple[Any, Any]] = node.items()
    elif isinstance(node, list | tuple) and any(isinstance(item, dict) for item in node):
        items = enumerate(node)
    else:
        yield path, node
        return
    for key, value in items:
        yield from _leaves(value, f'{path}.{key}' if path else str(key))


def load_config(args: argparse.Namespace) -> Config:
    """The config with ``--cfg-options``, launcher and work_dir (command line, else config, else its name) set.

    Where there is a GPU, loaders pin memory unless the config says otherwise.
    """
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    warn_of_variables(cfg, args.cfg_options)
    cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    if get_device() == 'cuda':
        # Not in the configs: without a GPU, PyTorch warns of it for every loader.
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(key):
                cfg[key].setdefault('pin_memory', True)
    return cfg
