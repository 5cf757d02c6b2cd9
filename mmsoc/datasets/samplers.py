from collections.abc import Iterator, Sized

import torch
from mmengine.dataset import DefaultSampler

from mmsoc.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ShortEpochSampler(DefaultSampler):
    """Epochs of a fixed number of samples, for data sets that are larger than what fits between two checkpoints.

    Epoch e takes its part of an endless row of shuffles, so that every sample is seen equally often; what it takes depends on
    (seed, e) alone, and a resumed run sees what an unbroken one would.

    Args:
        epoch_size (int): samples per epoch, over all processes.
        seed (int, optional): of the shuffles, the same in all processes.
    """

    def __init__(self, dataset: Sized, *, epoch_size: int, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle=True, seed=seed)
        if epoch_size < self.world_size or epoch_size % self.world_size:
            raise ValueError(f'ShortEpochSampler: epoch_size must be a multiple of the number of processes '
                             f'({self.world_size}), found {epoch_size}')
        self.epoch_size = epoch_size
        self.num_samples = epoch_size // self.world_size

    def __iter__(self) -> Iterator[int]:
        length = len(self.dataset)
        first = self.epoch * self.epoch_size
        taken: list[int] = []
        while len(taken) < self.epoch_size:
            position = first + len(taken)
            generator = torch.Generator().manual_seed(self.seed + position // length)
            shuffle = torch.randperm(length, generator=generator).tolist()
            taken += shuffle[position % length:][:self.epoch_size - len(taken)]
        return iter(taken[self.rank::self.world_size])
