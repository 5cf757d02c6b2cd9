import torch
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from mmsoc.registry import MODELS


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Converts boxes (..., 4) to corners, like mmdet's ``bbox_cxcywh_to_xyxy`` in a third of the operations."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def generalized_iou(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalized IoU (Rezatofighi et al., CVPR 2019) of pairs of boxes.

    The same as mmdet's ``bbox_overlaps`` for aligned boxes, which creates a tensor from ``eps`` and so makes the host
    wait for a GPU.

    Args:
        a, b: (..., 4) xyxy, broadcast to each other.
        eps: minimum area of a union and of a hull.

    Returns:
        (...) in [-1, 1].
    """
    size_a, size_b = (box[..., 2:] - box[..., :2] for box in (a, b))
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    overlap = inner[..., 0] * inner[..., 1]
    union = (size_a[..., 0] * size_a[..., 1] + size_b[..., 0] * size_b[..., 1] - overlap).clamp(min=eps)
    hull = (outer[..., 0] * outer[..., 1]).clamp(min=eps)
    return overlap / union - (hull - union) / hull


@MODELS.register_module()
class GIoULoss(nn.Module):
    """``1 - GIoU`` with the interface and values of mmdet's loss of this name, without waiting for the device.

    Args:
        eps: minimum area of a union and of a hull.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        loss_weight: of the loss.
    """

    def __init__(self, *, eps: float = 1e-6, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """
        Args:
            pred, target: (n, 4) xyxy.
            weight: (n,), weight of each box.
            avg_factor: divisor of a mean, instead of n.
            reduction_override: instead of ``reduction``.

        Returns:
            A scalar; (n,) for the reduction ``'none'``.
        """
        loss = 1 - generalized_iou(pred, target, self.eps)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction_override or self.reduction, avg_factor)
