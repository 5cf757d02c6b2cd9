"""Shared parts of the tools' command lines."""

import argparse
import ast
import copy
import inspect
import logging
import os
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner

from mmsoc.utils.errors import UserError
from mmsoc.weights import find, is_name


class OptionAction(DictAction):
    """MMEngine's ``KEY=VALUE`` options, but keeps spaces inside a value (MMEngine turns ``'a b'`` into ``'ab'``).

    Values are parsed as in MMEngine (numbers, True, None, ``1,2``, ``[a,b]``), and as Python if they start with a
    bracket or a quote: ``"['a b', 'c']"``.
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
    # Unused: torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def parse_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; end the program with a message if the config file is missing."""
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


def require_weights(parser: argparse.ArgumentParser, source: str, what: str) -> None:
    """End the program with a message if ``source`` is neither a file nor the name of weights (`mmsoc.weights`)."""
    if not is_name(source):
        require_file(parser, source, what)
        return
    try:
        find(source)
    except UserError as error:
        parser.error(f'{what}: {error}')


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """``--weights``, ``--config``, ``--cfg-options``: what `SOCInferencer` loads; `check_model_arguments` checks them."""
    parser.add_argument(
        '--weights',
        required=True,
        metavar='FILE_OR_NAME',
        help='checkpoint, or a name that `tools/weights.py list` shows',
    )
    parser.add_argument('--config', metavar='FILE', help='config file (default: the config in the checkpoint)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='override config settings, e.g. model.test_cfg.output.mask_threshold=0.4',
    )


def check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program with a message if the weights or the config are not there."""
    require_weights(parser, args.weights, '--weights')
    if args.config is not None and '::' not in args.config:
        require_file(parser, args.config, '--config')


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """``--precision``, ``--compile``; `speed_options` turns them into options of the config."""
    parser.add_argument(
        '--precision',
        type=_precision,
        metavar='NAME',
        help='precision of predictions: fp32, tf32, bf16 or fp16 (model.test_cfg.precision)',
    )
    parser.add_argument(
        '--compile', action='store_true', help='torch.compile for the backbone (model.test_cfg.compile)'
    )


def speed_options(args: argparse.Namespace) -> dict[str, Any]:
    """``--precision`` and ``--compile`` as options of the config; empty where neither was given."""
    given = dict(precision=args.precision, compile=args.compile or None)
    return {f'model.test_cfg.{key}': value for key, value in given.items() if value is not None}


def _precision(name: str) -> str:
    from mmsoc.inference import PRECISIONS  # imported here, because it takes seconds

    if name not in PRECISIONS:
        raise argparse.ArgumentTypeError(f'expected one of {", ".join(PRECISIONS)}, found {name}')
    return name


# Top-level keys of a config that MMEngine's runners or this package's tools read.
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
    """Warn about overrides of variables that were already expanded: they have no effect."""
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
            f'--cfg-options {key}={value}: {key!r} is a variable of the config file that was already expanded; the override '
            'has no effect. '
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


def read_config(path: str) -> Config:
    """Reads the config file. Any error while it is read and run is the fault of it or of the files that it inherits or
    imports.

    Raises:
        FileNotFoundError: one of these files does not exist.
        UserError: anything else; the message has the exception, and the line if it has one.
    """
    try:
        return Config.fromfile(path)
    except FileNotFoundError as error:
        found = f'there is no file {error.filename}' if error.filename else error
        raise FileNotFoundError(f'config {path}: {found}') from error
    except Exception as error:
        # KeyError prints its argument with quotes.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        # Configs and the modules that they import run at module level.
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>']
        where = f' ({lines[-1].filename}, line {lines[-1].lineno})' if lines else ''
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {text}{where}') from error


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merges ``--cfg-options`` into a config, in place.

    Raises:
        UserError: an option does not fit the config, such as a key below a number; the config is unchanged.
    """
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        given = ' '.join(f'{key}={value}' for key, value in _misfits(cfg, options).items())
        raise UserError(
            f'--cfg-options {given}: expected keys of the config (tools/analysis_tools/print_config.py shows them); '
            f'found {error.args[0] if error.args else type(error).__name__}'
        ) from error


def _misfits(cfg: Config, options: dict[str, Any]) -> dict[str, Any]:
    """The options that cannot be merged individually; all of them if each can."""
    found = {}
    for key, value in options.items():
        try:
            copy.deepcopy(cfg).merge_from_dict({key: value})
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            found[key] = value
    return found or options


def load_config(args: argparse.Namespace) -> Config:
    """The config with ``--cfg-options``, launcher and work_dir (command line, else config, else its name) set.

    If there is a GPU, loaders pin memory unless the config sets it.

    Raises:
        FileNotFoundError, UserError: the config cannot be read (`read_config`), or an option does not fit (`merge_options`).
    """
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    warn_of_variables(cfg, args.cfg_options)
    merge_options(cfg, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    if get_device() == 'cuda':
        # Not in the configs: without a GPU, PyTorch warns about it for every loader.
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(key):
                cfg[key].setdefault('pin_memory', True)
    return cfg
