from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError


def plain(value: Any, key: str) -> Any:
    """A copy of ``value`` in which everything is a tensor or a plain Python value.

    Tensors, ``None`` and values of exactly bool, int, float, complex, str or bytes are kept; NumPy scalars and
    instances of subclasses are converted to these types, arrays to nested lists, mappings to dicts (ordered ones stay
    ordered), sets to sorted lists, paths to strings.

    Raises:
        ValueError: naming ``key`` (the place in the checkpoint), for a value of any other type.
    """
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), key)
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), key)
    if isinstance(value, Mapping):
        pairs = [(plain(k, key), plain(v, f'{key}.{k}')) for k, v in value.items()]
        return OrderedDict(pairs) if isinstance(value, OrderedDict) else dict(pairs)
    if isinstance(value, (list, tuple)):
        items = [plain(v, f'{key}[{i}]') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v, key) for v in value), key=repr)
    if isinstance(value, (Path, torch.dtype, torch.device)):
        return str(value)
    for kind in (int, float, str):  # IntEnum and the like
        if isinstance(value, kind):
            return kind(value)
    raise UserError(
        f'checkpoint[{key}] is a {type(value).__module__}.{type(value).__qualname__}: expected a tensor or a plain '
        'Python value, so that torch.load(weights_only=True) can read the file'
    )


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Makes every checkpoint loadable by ``torch.load(weights_only=True)``, PyTorch's default since 2.6.

    MMEngine stores its message hub with the history of all logged scalars as Python objects, which that loader refuses,
    so the run cannot be resumed. The histories are dropped (a resumed run starts new smoothing windows), as are, with a
    warning, values of the hub's ``runtime_info`` that are not plain; everything else is converted by `plain`.

    Raises:
        ValueError: at the first checkpoint, naming the place of a value that has no plain form.
    """

    # After every hook that adds to the checkpoint (EMAHook: NORMAL).
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for key in list(checkpoint):
            if key == 'message_hub':
                checkpoint[key] = self._plain_message_hub(checkpoint[key])
            elif key == 'state_dict':
                # In place: a copy would lose `_metadata`, the modules' version numbers.
                for name, value in checkpoint[key].items():
                    checkpoint[key][name] = plain(value, f'state_dict.{name}')
            else:
                checkpoint[key] = plain(checkpoint[key], key)

    def _plain_message_hub(self, hub: dict) -> dict:
        info = OrderedDict()
        for key, value in hub['runtime_info'].items():
            try:
                info[key] = plain(value, key)
            except ValueError as error:
                if key not in self._warned:
                    self._warned.add(key)
                    print_log(
                        f'message_hub.runtime_info: left out of the checkpoint: {error}', logger='current', level=30
                    )
        resumed = OrderedDict((key, bool(value)) for key, value in hub['resumed_keys'].items() if key in info)
        return dict(log_scalars=OrderedDict(), runtime_info=info, resumed_keys=resumed)
