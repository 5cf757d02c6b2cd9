"""From a name, an address or a path to a checkpoint whose weights can be loaded."""

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mmengine.runner.checkpoint import CheckpointLoader

from mmsoc.conversion import ReleasedStateDictAdapter
from mmsoc.utils.checkpoints import read_checkpoint, weights_of
from mmsoc.utils.errors import UserError

from .download import address_of, download
from .fetching import cache_dir, fetch, is_name
from .table import find

_RELEASED = 'model_state_dict'


def load_checkpoint(source: str | Path, *, what: str = 'weights') -> dict[str, Any]:
    """A checkpoint with the names of mmsoc, on the CPU.

    Args:
        source: a file; the name of weights of the table; or a URL, which is downloaded to PyTorch's cache.
        what: what the messages call it.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: see `read_checkpoint`, `fetch` and `download`.
    """
    if is_name(str(source)):
        weights = find(str(source))
        path, name = fetch(weights.name), weights.name
        if weights.layout == 'hub':
            raise UserError(f'{what} {source}: expected weights of a SOC or a backbone, found a text encoder')
        if weights.layout == 'released':
            released = weights_of(read_checkpoint(path, weights_key=_RELEASED, what=what, name=name), _RELEASED)
            try:
                return {'state_dict': ReleasedStateDictAdapter().to_mmsoc(released)}
            except UserError as error:
                raise UserError(f'{what} {name} (in {path}): {error}') from None
        return read_checkpoint(path, what=what, name=name)
    if '://' in str(source):
        return read_checkpoint(_downloaded(str(source), what), what=what, name=str(source))
    return read_checkpoint(source, what=what)


def register_loader() -> None:
    """Makes MMEngine read with `load_checkpoint`: ``load_from``, ``resume``, ``init_cfg=dict(type='Pretrained')``.

    It applies to the whole process. Sources of another scheme than http and https (``s3://``) keep MMEngine's loader.
    """
    CheckpointLoader.register_scheme(('', 'http://', 'https://'), _load_for_mmengine, force=True)


def _load_for_mmengine(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Tensors stay on the CPU, and modules and optimizers copy them from there."""
    return load_checkpoint(filename, what='checkpoint')


def _downloaded(url: str, what: str) -> Path:
    if Path(urlparse(url).path).name in ('', '..'):
        raise UserError(f'{what} {url}: expected a URL that ends in a file name')
    if urlparse(url).scheme not in ('http', 'https', 'file'):
        raise UserError(f'{what} {url}: expected a URL of http, https or file')
    return download([address_of(url)], cache_dir(), f'{what} {url}')
