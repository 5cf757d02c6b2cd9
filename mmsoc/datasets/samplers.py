from collections.abc import Iterator

import torch
from mmengine.dataset import BaseDataset, DefaultSampler

from mmsoc.registry import DATA_SAMPLERS
from mmsoc.utils.errors import UserError


@DATA_SAMPLERS.register_module()
class ShortEpochSampler(DefaultSampler):
    """Epochs of a fixed number of samples, for data sets too large for one epoch between two checkpoints.

    Epoch e takes its part of an endless sequence of shuffles, so that every sample is seen equally often; its samples
    depend on (seed, e) alone, and a resumed run sees the same samples as an uninterrupted one.

    Args:
        epoch_size: samples per epoch, over all processes.
        family_starts: a curriculum: the first epoch (counted from 0) in which sentences of a family
            are drawn, for every family of the data set (the first of the item's ``families``; '(none)' without one).
            When the set of samples grows, the sequence of shuffles restarts. None: all samples from the start. Starts that are
            still to come may be changed between epochs (`TimedTrainLoop`).
        seed: of the shuffles, the same in all processes.

    Raises:
        ValueError: if ``epoch_size`` is not a multiple of the number of processes, or ``family_starts`` and the families of the
            data set differ, or nothing starts in epoch 0.
    """

    def __init__(
        self,
        dataset: BaseDataset,
        *,
        epoch_size: int,
        family_starts: dict[str, int] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(dataset, shuffle=True, seed=seed)
        if epoch_size < self.world_size or epoch_size % self.world_size:
            raise UserError(
                f'ShortEpochSampler: epoch_size must be a multiple of the number of processes '
                f'({self.world_size}), found {epoch_size}'
            )
        self.epoch_size = epoch_size
        self.num_samples = epoch_size // self.world_size
        self.family_starts = family_starts
        self._families = None if family_starts is None else _families(dataset, family_starts)

    def __iter__(self) -> Iterator[int]:
        stage, pool = 0, list(range(len(self.dataset)))
        if self._families is not None:
            assert self.family_starts is not None
            stage = max(start for start in self.family_starts.values() if start <= self.epoch)
            pool = [index for index in pool if self.family_starts[self._families[index]] <= stage]
        first = (self.epoch - stage) * self.epoch_size
        taken: list[int] = []
        while len(taken) < self.epoch_size:
            position = first + len(taken)
            generator = torch.Generator().manual_seed(self.seed + position // len(pool))
            shuffle = torch.randperm(len(pool), generator=generator).tolist()
            start = position % len(pool)
            taken += [pool[index] for index in shuffle[start : start + self.epoch_size - len(taken)]]
        return iter(taken[self.rank :: self.world_size])


def _families(dataset: BaseDataset, family_starts: dict[str, int]) -> list[str]:
    """The family of each item."""
    families = [
        (dataset.get_data_info(index).get('families') or [None])[0] or '(none)' for index in range(len(dataset))
    ]
    if set(families) != set(family_starts):
        raise UserError(
            f'ShortEpochSampler: family_starts names {sorted(family_starts)}, the families of the data set are '
            f'{sorted(set(families))}'
        )
    if min(family_starts.values()) != 0:
        raise UserError(f'ShortEpochSampler: some family of family_starts must start in epoch 0, found {family_starts}')
    return families
