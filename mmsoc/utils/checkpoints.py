"""Reads untrusted checkpoints: nothing in the file is executed, and the result is validated."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmsoc.utils.checkpoint_format import check_format
from mmsoc.utils.config_text import MAX_CHARACTERS, config_of_text
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path, listed
from mmsoc.version import __version__

_DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
}
_SHOWN = 5
_CONFIG = 'config'  # key of the metadata of safetensors
# Tensors that share a storage, as a module under two names does, may sum up to this many times the file's size.
_MAX_SHARING = 16


def read_checkpoint(
    source: str | Path, *, weights_key: str = 'state_dict', what: str = 'weights', name: str | None = None
) -> dict[str, Any]:
    """A checkpoint whose weights can be loaded into a model, on the CPU.

    The file was written by `torch.save`, or ends in ``.safetensors`` (which needs the package safetensors). It is
    checked by `check_format` and read with ``weights_only=True``. MMEngine's loader executes code in the file if
    PyTorch is older than 2.6 or the source is a URL.

    Args:
        source: file.
        weights_key: key of the weights; a checkpoint without this key is the state dict itself.
        what: kind of file, for messages.
        name: name or URL that the user gave for the file, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not a checkpoint, declares more than it contains, or contains anything but tensors and plain
            values; the weights are not named dense tensors of finite real numbers; its config is too long.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        found = 'it is a folder' if path.is_dir() else f'there is no such file (looked in {Path.cwd()})'
        raise FileNotFoundError(f'{what} {source}: {found}')
    where = f'{what} {source}' if name is None else f'{what} {name} (in {path})'
    if not os.access(path, os.R_OK):
        raise UserError(f'{where} cannot be read: permission denied')
    if path.suffix == '.safetensors':
        checkpoint: Any = _read_safetensors(path, where, weights_key)
    else:
        checkpoint = _read_torch(path, where)
    if not isinstance(checkpoint, dict):
        raise UserError(f'{where}: expected a dict, found a value of type {type(checkpoint).__name__}')
    weights = weights_of(checkpoint, weights_key)
    place = f'the key {weights_key}' if weights_key in checkpoint else f'the key {weights_key}, or a state dict alone'
    _check_weights(weights, place, where)
    _check_size(weights, path.stat().st_size, where)
    _check_finite(weights, where)
    text = _config_text(checkpoint)
    if text is not None and len(text) > MAX_CHARACTERS:
        raise UserError(
            f'{where}: its config (meta.cfg) has {len(text):,} characters: expected at most {MAX_CHARACTERS:,}'
        )
    return checkpoint


def weights_of(checkpoint: Mapping[str, Any], weights_key: str = 'state_dict') -> dict[str, Tensor]:
    """The weights of a checkpoint by name: the value of ``weights_key``, else the checkpoint itself."""
    return checkpoint.get(weights_key, checkpoint)


def config_of_checkpoint(checkpoint: Mapping[str, Any], source: str | Path, allow_imports: bool = False) -> Config:
    """The config that MMEngine keeps in its checkpoints (``meta.cfg``), read by `config_of_text`.

    Args:
        source: the checkpoint's file, for messages.
        allow_imports: import what the config's ``custom_imports`` list, and accept import paths as types.

    Raises:
        UserError: there is no config in the checkpoint, it is not data, or it imports modules.
    """
    text = _config_text(checkpoint)
    if text is None:
        raise UserError(
            f'weights {source} hold no config (meta.cfg), like all that were converted or published alone; name it: '
            '--config configs/soc/NAME.py (in Python config=)'
        )
    return config_of_text(text, f'weights {source}: config (meta.cfg)', allow_imports)


def _read_torch(path: Path, where: str) -> Any:
    check_format(path, f'{where} cannot be read')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a broken pickle can raise anything
        raise UserError(
            f'{where} cannot be read: expected what torch.save wrote, tensors and plain values only; {_first_line(error)}'
        ) from error


def _read_safetensors(path: Path, where: str, weights_key: str) -> dict[str, Any]:
    """Weights, and the config that `write_safetensors` stored, where MMEngine keeps it."""
    try:
        from safetensors import safe_open
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(
            f'{where} cannot be read: .safetensors needs the package safetensors (pip install safetensors)'
        ) from None
    try:
        weights = load_file(path)
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
    except Exception as error:  # apart from Python's file errors, safetensors has a single exception
        raise UserError(f'{where} cannot be read: it is not a safetensors file; {_first_line(error)}') from error
    meta = {'meta': {'cfg': metadata[_CONFIG]}} if _CONFIG in metadata else {}
    return {weights_key: weights, **meta}


def write_safetensors(
    path: str | Path, weights: Mapping[str, Tensor], config: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes weights with the text of their config, so that the file alone makes a model.

    Args:
        path: ends in ``.safetensors``; appears when it is complete.
        weights: tensors that share a storage are written separately.
        config: text that `config_of_text` reads.
        metadata: further texts, beside mmsoc's version.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    with atomic_path(path) as temporary:
        save_file(
            tensors,
            temporary,
            metadata={'format': 'pt', 'mmsoc_version': __version__, _CONFIG: config, **(metadata or {})},
        )


def _first_line(error: Exception) -> str:
    """The first line of an error; PyTorch's further lines recommend unsafe ways to read the file."""
    reason = str(error).rpartition('WeightsUnpickler error:')[2].strip()
    return reason.partition('\n')[0] or type(error).__name__


def _check_weights(weights: Any, place: str, where: str) -> None:
    if not isinstance(weights, dict):
        raise UserError(f'{where}: expected weights under {place}, found a value of type {type(weights).__name__}')
    unnamed = [name for name in weights if not isinstance(name, str)]
    if unnamed:
        raise UserError(f'{where}: expected weights by name, found a key of type {type(unnamed[0]).__name__}')
    others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if others or not weights:
        names = listed(sorted(others)) or 'nothing'
        raise UserError(f'{where}: expected weights under {place}, found {names}')
    faults = [f'{name} ({fault})' for name, tensor in weights.items() if (fault := _fault(tensor))]
    if faults:
        raise UserError(
            f'{where}: {len(faults)} of its {len(weights)} weights cannot be used: {listed(faults, _SHOWN)}; expected '
            'dense tensors of floating-point numbers (16, 32 or 64 bits), integers or booleans'
        )


def _fault(tensor: Tensor) -> str:
    """Why a tensor cannot be a weight; '' if it can."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return 'nested' if tensor.is_nested else str(tensor.layout).removeprefix('torch.')
    if tensor.device.type != 'cpu':
        return f'on the device {tensor.device}, without values'
    if tensor.dtype not in _DTYPES:
        return str(tensor.dtype).removeprefix('torch.')
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > held:
        return f'{tensor.numel():,} values of shape {tuple(tensor.shape)}, of which the file holds {held:,}'
    return ''


def _check_size(weights: dict[str, Tensor], size: int, where: str) -> None:
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    if total > _MAX_SHARING * size:
        raise UserError(f'{where}: its weights declare {total:,} bytes, the file has {size:,}')


def _check_finite(weights: dict[str, Tensor], where: str) -> None:
    broken = [name for name, tensor in weights.items() if not _is_finite(tensor)]
    if broken:
        counts = [f'{name} ({_count_not_finite(weights[name])} of {weights[name].numel()})' for name in broken[:_SHOWN]]
        raise UserError(
            f'{where}: {len(broken)} of its {len(weights)} weights have values that are NaN or infinite: '
            f'{", ".join(counts)}{", ..." if len(broken) > _SHOWN else ""}. Training diverged, or the file is damaged: '
            'give an earlier checkpoint'
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    # The sum needs no memory, but can overflow although every value is finite.
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def _count_not_finite(tensor: Tensor) -> int:
    return int(tensor.isfinite().logical_not().sum())


def _config_text(checkpoint: Mapping[str, Any]) -> str | None:
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    return text if isinstance(text, str) else None
