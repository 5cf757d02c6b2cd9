"""Matching of trajectories to objects for all sentences and decoder layers at once."""

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.models.task_modules import BaseAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from mmsoc.models.losses import cxcywh_to_xyxy, generalized_iou
from mmsoc.registry import TASK_UTILS
from mmsoc.structures import ClipTargets


class Trajectories(NamedTuple):
    """N trajectories of each of S decoder layers, to be matched to the object of each of M sentences."""

    logits: Tensor
    """(S, M, T, N, K)"""
    boxes: Tensor
    """(S, M, T, N, 4) cxcywh in [0, 1]"""
    masks: Tensor
    """(M, T, S, N, H, W) logits at the size of the targets; fastest with the queries innermost in memory"""


class BaseClipCost(metaclass=ABCMeta):
    """A match cost for `ClipAssigner`.

    Args:
        weight: weight of the cost.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        self.weight = weight

    @abstractmethod
    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        """(S, M, N), the weighted cost of assigning each trajectory to its sentence's object, a mean over frames."""


@TASK_UTILS.register_module()
class ClipFocalCost(BaseClipCost):
    """Focal loss of the object's class as a positive minus that as a negative (``mmdet.FocalLossCost``).

    Averaged over the frames that show the object, or over all frames if none does.

    Args:
        weight: weight of the cost.
        alpha, gamma: parameters of the focal loss.
        eps: inside the logarithms.
    """

    def __init__(self, *, weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-8) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        logit = trajectories.logits.take_along_dim(targets.labels[None, :, None, None, None], -1)[..., 0]
        chance = logit.sigmoid()
        positive = -(chance + self.eps).log() * self.alpha * (1 - chance) ** self.gamma
        negative = -(1 - chance + self.eps).log() * (1 - self.alpha) * chance**self.gamma
        counted = targets.visible | ~targets.visible.any(1, keepdim=True)
        share = counted / counted.sum(1, keepdim=True)
        return self.weight * ((positive - negative) * share[..., None]).sum(2)


@TASK_UTILS.register_module()
class ClipDiceCost(BaseClipCost):
    """One minus the dice coefficient of a frame's mask (``mmdet.DiceCost`` with ``pred_act=True``).

    Args:
        weight: weight of the cost.
        eps: added to numerator and denominator.
    """

    def __init__(self, *, weight: float = 1.0, eps: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.eps = eps

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        num_layers, num_queries = trajectories.masks.shape[2:4]
        share = trajectories.masks.sigmoid().permute(0, 1, 4, 5, 2, 3).flatten(4, 5).flatten(2, 3)  # (M, T, H*W, S*N)
        target = targets.masks.flatten(2)
        # Each mask's intersection with the target, and its area, in one product.
        overlap, area = (torch.stack([target, torch.ones_like(target)], 2) @ share).unbind(2)
        dice = (2 * overlap + self.eps) / (area + target.sum(-1, keepdim=True) + self.eps)
        return self.weight * (1 - dice).mean(1).unflatten(-1, (num_layers, num_queries)).movedim(1, 0)


@TASK_UTILS.register_module()
class WholeClipDiceCost(ClipDiceCost):
    """Minus the dice coefficient of all frames' masks as one image, as in the released ReferFormer."""

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        share = trajectories.masks.sigmoid()  # (M, T, S, N, H, W)
        target = targets.masks[:, :, None, None]
        overlap, area = ((part * share).sum((1, 4, 5)) for part in (target, torch.ones_like(target)))
        dice = (2 * overlap + self.eps) / (area + target.sum((1, 4, 5)) + self.eps)
        return -self.weight * dice.transpose(0, 1)


@TASK_UTILS.register_module()
class WholeClipFocalCost(BaseClipCost):
    """Focal loss of the masks, averaged over all pixels of a clip, as in the released ReferFormer.

    Args:
        weight: weight of the cost.
        alpha, gamma: parameters of the focal loss.
    """

    def __init__(self, *, weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.gamma = gamma

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        target = targets.masks[:, :, None, None].expand_as(trajectories.masks)
        loss = py_sigmoid_focal_loss(trajectories.masks, target, alpha=self.alpha, gamma=self.gamma, reduction='none')
        return self.weight * loss.mean((1, 4, 5)).transpose(0, 1)


@TASK_UTILS.register_module()
class ClipBoxL1Cost(BaseClipCost):
    """L1 distance of boxes as cxcywh (``mmdet.BBoxL1Cost`` with ``box_format='xywh'``)."""

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        return self.weight * (trajectories.boxes - targets.boxes[:, :, None]).abs().sum(-1).mean(2)


@TASK_UTILS.register_module()
class ClipGIoUCost(BaseClipCost):
    """Minus the generalized IoU of the boxes (``mmdet.IoUCost`` with ``iou_mode='giou'``)."""

    def __call__(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        iou = generalized_iou(cxcywh_to_xyxy(trajectories.boxes), cxcywh_to_xyxy(targets.boxes)[:, :, None])
        return -self.weight * iou.mean(2)


@TASK_UTILS.register_module()
class ClipAssigner:
    """Instance matching (paper Eq. 8) for all sentences and decoder layers at once, without waiting for the device.

    Each sentence has one object, and the Hungarian assignment of N trajectories to one object is the trajectory with the lowest
    cost.

    Args:
        match_costs: configs of `BaseClipCost` s; the costs are summed.
    """

    def __init__(self, *, match_costs: Sequence[dict]) -> None:
        self.match_costs = [TASK_UTILS.build(cost) for cost in match_costs]

    def assign_clips(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        """(S, M) int64: the query whose trajectory is assigned to each sentence's object (ties: the first)."""
        return sum(cost(trajectories, targets) for cost in self.match_costs).argmin(-1)


class OneByOneAssigner:
    """Adapts an mmdet assigner to the interface of `ClipAssigner`, sentence by sentence and layer by layer.

    Args:
        assigner: e.g. ``mmdet.HungarianAssigner`` with `ClipCost` s.
    """

    def __init__(self, assigner: BaseAssigner) -> None:
        self.assigner = assigner

    def assign_clips(self, trajectories: Trajectories, targets: ClipTargets) -> Tensor:
        """As `ClipAssigner.assign_clips`."""
        return torch.stack(
            [
                torch.stack(
                    [self._assign(trajectories, targets, layer, sentence) for sentence in range(len(targets.labels))]
                )
                for layer in range(len(trajectories.logits))
            ]
        )

    def _assign(self, trajectories: Trajectories, targets: ClipTargets, layer: int, sentence: int) -> Tensor:
        one = slice(sentence, sentence + 1)
        found = InstanceData(
            scores=trajectories.logits[layer, sentence].transpose(0, 1),
            bboxes=cxcywh_to_xyxy(trajectories.boxes[layer, sentence]).transpose(0, 1),
            masks=trajectories.masks[sentence, :, layer].transpose(0, 1),
        )
        target = InstanceData(
            labels=targets.labels[one],
            bboxes=cxcywh_to_xyxy(targets.boxes[one]),
            masks=targets.masks[one],
            visible=targets.visible[one],
        )
        # mmdet's costs divide boxes by the shape of the image; these are in [0, 1] already.
        return self.assigner.assign(found, target, img_meta=dict(img_shape=(1, 1))).gt_inds.argmax()
