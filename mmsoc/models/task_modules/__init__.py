from .clip_assigner import (
    BaseClipCost,
    ClipAssigner,
    ClipBoxL1Cost,
    ClipDiceCost,
    ClipFocalCost,
    ClipGIoUCost,
    OneByOneAssigner,
    Trajectories,
    WholeClipDiceCost,
    WholeClipFocalCost,
)
from .clip_cost import ClipCost

__all__ = [
    'BaseClipCost',
    'ClipAssigner',
    'ClipBoxL1Cost',
    'ClipCost',
    'ClipDiceCost',
    'ClipFocalCost',
    'ClipGIoUCost',
    'OneByOneAssigner',
    'Trajectories',
    'WholeClipDiceCost',
    'WholeClipFocalCost',
]
