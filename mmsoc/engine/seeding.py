"""Random numbers that differ between epochs, ranks and workers, and that a resumed run reproduces.

Three streams matter: the main process (dropout, and the transforms where ``num_workers=0``), the workers (the
transforms), and the sampler (MMEngine seeds it from the seed and the epoch). ``EpochSeedHook`` sets the first at the
start of each epoch from (seed, epoch, rank) alone. PyTorch draws the workers' base seed from the first whenever it
starts them, i.e. once per epoch, and ``seed_worker`` passes it on to the libraries. So nothing depends on earlier
epochs, and no state needs saving.
"""

import random

import numpy as np
import torch

from mmsoc.registry import FUNCTIONS


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A 32-bit seed from the run's seed, the epoch and the rank (all >= 0); adjacent values give unrelated seeds."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators of this process (on CUDA: of every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """``worker_init_fn`` of a loader: seeds ``random`` and NumPy from the seed that PyTorch gave to this worker.

    MMEngine's default gives a worker the same seed in every epoch, so that every epoch repeats the first one's
    augmentations.
    """
    seed = torch.initial_seed()  # the main process' base seed of this epoch + worker_id
    random.seed(seed)
    np.random.seed(seed % 2**32)
