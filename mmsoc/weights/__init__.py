"""Weights by name: a table, downloads into PyTorch's cache, and checkpoints from names, URLs and files."""

from .download import WeightsNotFoundError
from .fetching import fetch, is_name
from .loading import load_checkpoint, register_loader
from .table import TABLE, Weights, find, markdown_table

__all__ = [
    'TABLE',
    'WeightsNotFoundError',
    'Weights',
    'fetch',
    'find',
    'is_name',
    'load_checkpoint',
    'markdown_table',
    'register_loader',
]
