import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


def mean_over_processes(*counts: int | Tensor, device: torch.device) -> tuple[int | Tensor, ...]:
    """The divisors of a process's sums that make training minimize the mean over the sentences of all processes.

    DDP averages the gradients of W processes. If each process divides its sum by ``count / W``, where ``count`` is the
    total of all processes, the average is ``sum / count``, however the sentences are distributed. Per-process means
    would give sentences more weight in processes with fewer of them.

    One all-reduce for all counts, without a wait for the device. Every process must call it with the same number of counts.

    Args:
        counts: of this process; scalars on ``device``, or numbers on the host.
        device: that of the losses.

    Returns:
        The mean of each count over the processes, at least 1; scalars on ``device``, or the given numbers if there is
        one process.
    """
    if get_world_size() == 1:
        return tuple(count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1) for count in counts)
    # Filled on the device, which avoids a transfer from the host.
    filled = [
        count.float() if isinstance(count, Tensor) else torch.full((), float(count), device=device) for count in counts
    ]
    return reduce_mean(torch.stack(filled)).clamp(min=1).unbind()
