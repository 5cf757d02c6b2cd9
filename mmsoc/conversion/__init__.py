"""Weights of other implementations under mmsoc's names, and back."""

from .referformer import ReferFormerStateDictAdapter
from .released import ReleasedStateDictAdapter

__all__ = ['ReferFormerStateDictAdapter', 'ReleasedStateDictAdapter']
