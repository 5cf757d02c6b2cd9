from .precision import set_tf32, use_tf32

__all__ = ['set_tf32', 'use_tf32']
