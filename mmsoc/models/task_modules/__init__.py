from .clip_cost import ClipCost

__all__ = ['ClipCost']
