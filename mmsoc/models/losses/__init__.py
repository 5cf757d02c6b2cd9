from .averaging import mean_over_processes
from .giou_loss import GIoULoss, cxcywh_to_xyxy, generalized_iou
from .vl_contrastive_loss import VLContrastiveLoss

__all__ = ['GIoULoss', 'VLContrastiveLoss', 'cxcywh_to_xyxy', 'generalized_iou', 'mean_over_processes']
