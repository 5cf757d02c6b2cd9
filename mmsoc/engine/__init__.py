from .dist import finish_distributed, prepare_distributed
from .hooks import (
    EpochSeedHook,
    PlainCheckpointHook,
    RVOSVisualizationHook,
    SafeCheckpointHook,
    StartingPointHook,
    StrictLoadHook,
    TF32Hook,
)
from .optim import FusedOptimWrapperConstructor
from .seeding import epoch_seed, seed_everything, seed_worker
from .sharding import FSDPStrategy, ShardedOptimWrapper, wrap_layers
from .timed_train_loop import TimedTrainLoop

__all__ = [
    'EpochSeedHook',
    'FSDPStrategy',
    'FusedOptimWrapperConstructor',
    'PlainCheckpointHook',
    'RVOSVisualizationHook',
    'SafeCheckpointHook',
    'ShardedOptimWrapper',
    'StartingPointHook',
    'StrictLoadHook',
    'TF32Hook',
    'TimedTrainLoop',
    'epoch_seed',
    'finish_distributed',
    'prepare_distributed',
    'seed_everything',
    'seed_worker',
    'wrap_layers',
]
