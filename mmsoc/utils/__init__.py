from .memory import keep_freed_memory
from .precision import set_tf32, use_tf32

__all__ = ['keep_freed_memory', 'set_tf32', 'use_tf32']
