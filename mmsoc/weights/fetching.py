import os
from collections.abc import Sequence
from pathlib import Path

import torch

from .download import Address, WeightsNotFoundError, download
from .table import Weights, find

MIRROR = 'MMSOC_WEIGHTS'
"""environment variable: a folder, or the address of one, that has the files of the table; it is tried first"""
SUFFIXES = ('.pth', '.pt', '.safetensors', '.bin')


def is_name(source: str) -> bool:
    """Whether this can only be the name of weights: no path, no suffix of a checkpoint, and no file in the working directory."""
    return not ('/' in source or os.sep in source or source.endswith(SUFFIXES) or os.path.exists(source))


def cache_dir() -> Path:
    """PyTorch's, which ``TORCH_HOME`` moves."""
    return Path(torch.hub.get_dir()) / 'checkpoints'


def fetch(name: str) -> Path:
    """The file of these weights, downloaded to PyTorch's cache if it is neither there nor in the package; for a text encoder its
    folder.

    Raises:
        WeightsNotFoundError: there are no weights of this name, or they cannot be downloaded.
        UserError: the file cannot be written.
    """
    weights = find(name)
    if weights.shipped_path is not None:
        return weights.shipped_path
    if weights.layout == 'hub':
        return _from_hub(weights)
    return download([*_mirrors(weights), *weights.addresses], cache_dir(), f'weights {name}', record_sum=True)


def _mirrors(weights: Weights) -> Sequence[Address]:
    base = os.environ.get(MIRROR)
    if not base:
        return []
    return [
        address._replace(url=f'{base.rstrip("/")}/{address.file}', name=address.file) for address in weights.addresses
    ]


def _from_hub(weights: Weights) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository = weights.addresses[0].url.removeprefix('hf://')
    try:
        return Path(snapshot_download(repository, allow_patterns=['*.json', '*.txt', '*.safetensors']))
    except (LocalEntryNotFoundError, OSError) as error:
        raise WeightsNotFoundError(
            f'weights {weights.name}: {repository} cannot be downloaded from the hub: {error}'
        ) from error
