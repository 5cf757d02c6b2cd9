from .positional_encoding import sine_positional_encoding_1d
from .transformer import register_mmdet_transformers

__all__ = ['register_mmdet_transformers', 'sine_positional_encoding_1d']
