from . import transformer  # registers mmdet's layers
from .positional_encoding import sine_positional_encoding_1d

__all__ = ['sine_positional_encoding_1d', 'transformer']
