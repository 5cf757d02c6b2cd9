"""What tools/train.py and tools/test.py have in common."""

import argparse
import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction


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
        help='override config settings, e.g. train_cfg.max_epochs=1 "data_root=/a folder" \'names=["a b", "c"]\'',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Not used: torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; a config that is not there ends the program with a message that names it."""
    args = parser.parse_args()
    require_file(parser, args.config, 'config')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def require_file(parser: argparse.ArgumentParser, path: str, what: str) -> None:
    """End the program with a message if ``path`` is not a file; addresses with a scheme are left to MMEngine."""
    if '://' in path or Path(path).is_file():
        return
    found = 'it is a folder' if Path(path).is_dir() else f'there is no such file (looked in {Path.cwd()})'
    parser.error(f'{what} {path}: {found}')


def load_config(args: argparse.Namespace) -> Config:
    """The config with ``--cfg-options``, launcher and work_dir (command line, else config, else its name) set."""
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg
