"""User videos, masks and sentences as a data set: ``source`` reads, ``writer`` writes, `convert` does both."""

from .conversion import convert

__all__ = ['convert']
