import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


def mean_over_processes(*counts: int | Tensor, device: torch.device) -> tuple[int | Tensor, ...]:
    """What a process divides its sums by, so that training minimises the mean over the sentences of all processes.

    DDP averages the gradients of W processes. If process r divides its sum by ``count / W``, ``count`` being that of all processes,
    the average is ``sum / count``, however the sentences are distributed. A mean per process would give a sentence more weight
    where there are fewer of them.

    One all-reduce for all counts, without a wait for the device. Every process must call it with the same number of counts.

    Args:
        counts: of this process; scalars on ``device``, or what the host knows.
        device: that of the losses.

    Returns:
        The mean of each count over the processes, 1 at least; scalars on ``device``, or the numbers given if there is one process.
    """
    if get_world_size() == 1:
        return tuple(count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1) for count in counts)
    # Filled on the device: a number from the host would be a transfer.
    filled = [
        count.float() if isinstance(count, Tensor) else torch.full((), float(count), device=device) for count in counts
    ]
    return reduce_mean(torch.stack(filled)).clamp(min=1).unbind()
