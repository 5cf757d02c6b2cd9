from .vl_contrastive_loss import VLContrastiveLoss

__all__ = ['VLContrastiveLoss']
