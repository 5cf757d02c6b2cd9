from .mmf import MMF, CrossAttentionGate, PassThrough

__all__ = ['MMF', 'CrossAttentionGate', 'PassThrough']
