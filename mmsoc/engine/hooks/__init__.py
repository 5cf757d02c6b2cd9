from .epoch_seed_hook import EpochSeedHook
from .plain_checkpoint_hook import PlainCheckpointHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .starting_point_hook import StartingPointHook
from .strict_load_hook import StrictLoadHook
from .tf32_hook import TF32Hook
from .visualization_hook import RVOSVisualizationHook

__all__ = [
    'EpochSeedHook',
    'PlainCheckpointHook',
    'RVOSVisualizationHook',
    'SafeCheckpointHook',
    'StartingPointHook',
    'StrictLoadHook',
    'TF32Hook',
]
