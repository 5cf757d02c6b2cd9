"""Files of weights to be passed on."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from mmsoc.utils.checkpoints import write_safetensors
from mmsoc.utils.config_text import config_of_text
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name

from .download import sha256_of


def publish(
    weights: Mapping[str, Tensor],
    config: Config,
    folder: Path,
    name: str,
    *,
    scores: Mapping[str, float] | None = None,
    half: bool = False,
) -> Path:
    """Writes weights, config and scores to ``folder/NAME-<first eight digits of the sha256>.safetensors``.

    Args:
        weights: a state dict.
        config: is stored as text; what only training needs stays in it.
        folder: it is made.
        name: of the file.
        scores: by name.
        half: store floating-point weights as float16.

    Raises:
        UserError: the config holds more than data, or a weight does not fit into float16.
    """
    check_file_name(name, 'name of the weights')
    text = config.pretty_text
    config_of_text(text, f'config of {name}')
    if half:
        weights = {key: _half(key, value) for key, value in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}.safetensors'
    write_safetensors(path, weights, text, {'scores': json.dumps(dict(scores or {}))})
    return path.rename(folder / f'{name}-{sha256_of(path)[:8]}.safetensors')


def _half(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    found = value.half()
    if not torch.isfinite(found).all():
        raise UserError(
            f'{name} does not fit into float16: its largest value is {value.abs().max():g}; publish without half'
        )
    return found
