from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# 64 MiB of float32: what is smaller is not worth the second run.
MAX_ELEMENTS = 2**24
# On a CPU a chunk without a gradient costs nothing, and one of 16 MiB is still in the cache for the next step.
MAX_ELEMENTS_IN_CACHE = 2**22
# torch.compile writes out every chunk; where PyTorch does not say so, that takes it longer.
_is_compiling: Callable[[], bool] = getattr(torch.compiler, 'is_compiling', lambda: False)


def map_chunks(function: Callable[..., Tensor], tensors: tuple[Tensor | None, ...], elements: int, chunk_always: bool) -> Tensor:
    """``function(*tensors)``, where that makes a large intermediate result: in chunks of the first dimension, and with a gradient
    each chunk is run again in the backward pass instead of being kept.

    Args:
        function (Callable): maps tensors (n, ...) to a tensor (n, ...), each entry of the first dimension on its own.
        tensors (tuple[Tensor | None]): (n, ...) each.
        elements (int): of the intermediate result, for all n.  Up to `MAX_ELEMENTS` (or `MAX_ELEMENTS_IN_CACHE`) nothing is done
            differently.
        chunk_always (bool): in chunks without a gradient as well (False: where ``function`` itself needs no such memory then).
    """
    with_gradient = torch.is_grad_enabled()
    first = next(tensor for tensor in tensors if tensor is not None)
    in_cache = first.device.type == 'cpu' and not with_gradient and not _is_compiling()
    limit = min(MAX_ELEMENTS_IN_CACHE, MAX_ELEMENTS) if in_cache else MAX_ELEMENTS
    if elements <= limit or not (with_gradient or chunk_always):
        return function(*tensors)
    step = max(1, len(first) * limit // elements)
    chunks = [[tensor[start:start + step] if tensor is not None else None for tensor in tensors]
              for start in range(0, len(first), step)]
    if with_gradient:
        return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])
    output = None
    for start, chunk in zip(range(0, len(first), step), chunks, strict=True):
        part = function(*chunk)
        if output is None:  # in place: joined in the end, all of it would be there twice
            output = part.new_empty((len(first), *part.shape[1:]))
        output[start:start + step] = part
    assert output is not None
    return output
