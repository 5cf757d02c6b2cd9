from .dist import finish_distributed, prepare_distributed
from .hooks import EpochSeedHook, PlainCheckpointHook, RVOSVisualizationHook, SafeCheckpointHook, StrictLoadHook
from .seeding import epoch_seed, seed_everything, seed_worker

__all__ = [
    'EpochSeedHook',
    'PlainCheckpointHook',
    'RVOSVisualizationHook',
    'SafeCheckpointHook',
    'StrictLoadHook',
    'epoch_seed',
    'finish_distributed',
    'prepare_distributed',
    'seed_everything',
    'seed_worker',
]
