import random

import numpy as np
import pytest
import torch

from mmsoc.engine import epoch_seed, seed_everything


def test_epoch_seed():
    seeds = {epoch_seed(seed, epoch, rank) for seed in (0, 42) for epoch in range(20) for rank in range(4)}
    assert len(seeds) == 2 * 20 * 4 and all(0 <= seed < 2**32 for seed in seeds)
    assert epoch_seed(42, 3, 1) == epoch_seed(42, 3, 1)


def test_seed_everything():
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize('workers', [0, 2])
def test_every_epoch_and_worker_draws_other_numbers(run, workers):
    runner = run(f'workers{workers}', **{'train_cfg.max_epochs': 3, 'train_dataloader.num_workers': workers})
    runner.train()
    # 3 epochs of 8 samples, three generators each: a repeated draw would be a repeated seed.
    for generator in range(3):
        assert len({draws[generator] for draws in runner.model.seen}) == 24


def test_loaders_that_would_undo_it_are_refused(run):
    workers = {'train_dataloader.num_workers': 1}
    with pytest.raises(ValueError, match='persistent_workers is True: expected False'):
        run('persistent', **workers, **{'train_dataloader.persistent_workers': True}).train()
    with pytest.raises(
        ValueError, match=r"train_dataloader\.worker_init_fn is .*: expected dict\(type='mmsoc.seed_worker'\)"
    ):
        run('default', edit=lambda cfg: cfg.train_dataloader.pop('worker_init_fn'), **workers).train()
