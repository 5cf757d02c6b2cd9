"""Weights of other implementations under mmsoc's names, and back."""

from .released import ReleasedStateDictAdapter

__all__ = ['ReleasedStateDictAdapter']
