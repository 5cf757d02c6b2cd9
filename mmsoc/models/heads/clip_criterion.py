from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.task_modules import BaseAssigner
from torch import Tensor, nn

from mmsoc.models.layers.recompute import max_elements
from mmsoc.models.losses import cxcywh_to_xyxy, mean_over_processes
from mmsoc.models.task_modules import OneByOneAssigner, Trajectories
from mmsoc.registry import MODELS, TASK_UTILS
from mmsoc.structures import ClipTargets, Predictions


@MODELS.register_module()
class ClipCriterion(nn.Module):
    """Instance matching and total loss (paper section 3.5, Eq. 8 and 9), for every decoder layer separately.

    One of N trajectories is matched to the referred object of a clip; only this one is supervised by the mask and the
    box, in all frames, and by the class in frames where the object is visible. In other frames the mask is empty and
    the box is zero, and both count, as in the released implementation. Sums are divided by the number of target masks
    (sentences times frames), that of the contrastive loss by the number of sentences, both averaged over the processes
    (`mean_over_processes`).

    Each loss is called once for all layers, as mmdet's are, with ``reduction_override='none'``; the contrastive loss with
    ``avg_factor``.

    Args:
        assigner: `ClipAssigner`, or an mmdet assigner, e.g. ``mmdet.HungarianAssigner`` with `ClipCost` s, which is
            called for each sentence and layer.
        loss_cls: ``mmdet.FocalLoss``, on logits (n, K).
        loss_mask: ``mmdet.FocalLoss``, on logits (n, pixels); averaged over the pixels of a mask.
        loss_dice: ``mmdet.DiceLoss``, on logits (n, pixels).
        loss_bbox: ``mmdet.L1Loss``, on cxcywh (n, 4) in [0, 1].
        loss_iou: `GIoULoss` or ``mmdet.GIoULoss``, on xyxy (n, 4) in [0, 1].
        loss_contrastive: `VLContrastiveLoss`; None to train without it (paper Table 3, without VL).
    """

    def __init__(
        self,
        *,
        assigner: dict,
        loss_cls: dict,
        loss_mask: dict,
        loss_dice: dict,
        loss_bbox: dict,
        loss_iou: dict,
        loss_contrastive: dict | None,
    ) -> None:
        super().__init__()
        built = TASK_UTILS.build(assigner)
        self.assigner = OneByOneAssigner(built) if isinstance(built, BaseAssigner) else built
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.loss_contrastive = MODELS.build(loss_contrastive) if loss_contrastive is not None else None

    def forward(
        self,
        predictions: Predictions,
        video_queries: Tensor,
        guidance: Tensor,
        features: Tensor,
        decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor],
        targets: ClipTargets,
    ) -> dict[str, Tensor]:
        """
        Args:
            predictions: of the D decoder layers.
            video_queries: (D, M, N, C).
            guidance: (M, C).
            features: (M*T, mask_channels, h, w).
            decode_masks: `DynamicMaskHead.decode_masks`.
            targets: M referred objects.

        Returns:
            Weighted scalars ``loss_cls``, ``loss_mask``, ``loss_dice``, ``loss_bbox``, ``loss_giou``,
            ``loss_contrastive`` of the last layer, and of the others the same with a prefix ``d{layer}.``.
        """
        with torch.autocast(features.device.type, enabled=False):
            predictions = Predictions(*(tensor.float() for tensor in predictions))
            targets = targets._replace(masks=self.compared(targets.masks))
            matched = self.match(predictions, features, decode_masks, targets)
            num_masks, num_sentences = mean_over_processes(
                self.num_masks(targets), len(targets.visible), device=features.device
            )
            losses = self._losses(predictions, matched, features, decode_masks, targets, num_masks)
            if self.loss_contrastive is not None:
                losses['loss_contrastive'] = self.loss_contrastive(
                    video_queries.float(), guidance.float(), matched, avg_factor=num_sentences
                )
        num_layers = len(matched)
        prefixes = [*(f'd{layer}.' for layer in range(num_layers - 1)), '']
        by_layer = {name: loss.unbind() for name, loss in losses.items()}
        return {
            prefix + name: of_layers[layer]
            for layer, prefix in enumerate(prefixes)
            for name, of_layers in by_layer.items()
        }

    def compared(self, masks: Tensor) -> Tensor:
        """The target masks (M, T, H, W) at the resolution of the comparison: the input's, since stride 4 would match other
        queries."""
        return masks

    def num_masks(self, targets: ClipTargets) -> int | Tensor:
        """What sums over masks are divided by."""
        return targets.visible.numel()

    @torch.no_grad()
    def match(
        self,
        predictions: Predictions,
        features: Tensor,
        decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor],
        targets: ClipTargets,
    ) -> Tensor:
        """(D, M) int64: the query whose trajectory each sentence's object is assigned to, in each decoder layer.

        Args:
            targets: their masks at the resolution of the comparison.
        """
        num_layers, num_sentences, num_frames, num_queries = predictions.logits.shape[:4]
        pixels = targets.masks[0, 0].numel()
        elements = num_layers * num_sentences * num_frames * num_queries * pixels
        # As many layers at once as fit into memory: all of them in a small model and on a GPU.
        step = max(1, num_layers * max_elements(features.device) // elements)
        matched = []
        for start in range(0, num_layers, step):
            part = Predictions(*(tensor[start : start + step] for tensor in predictions))
            # The layers of a frame are decoded as queries of that frame.
            kernels, points = (tensor.permute(1, 2, 0, 3, 4).flatten(2, 3) for tensor in (part.kernels, part.points))
            masks = decode_masks(features, kernels, points).flatten(0, 1)
            # With the queries innermost, resizing takes a third of the time.
            masks = upsample(masks.contiguous(memory_format=torch.channels_last), targets.masks.shape[-2:])
            trajectories = Trajectories(
                logits=part.logits,
                boxes=part.boxes,
                masks=masks.unflatten(1, (-1, num_queries)).unflatten(0, (num_sentences, num_frames)),
            )
            matched.append(self.assigner.assign_clips(trajectories, targets))
        return torch.cat(matched)

    def _losses(
        self,
        predictions: Predictions,
        matched: Tensor,
        features: Tensor,
        decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor],
        targets: ClipTargets,
        num_masks: int | Tensor,
    ) -> dict[str, Tensor]:
        """The losses, (D,) each; every loss is called once for all layers."""
        num_layers = len(predictions.logits)
        chosen = matched[:, :, None, None, None]  # in every frame
        # Only the matched trajectory's masks need a gradient, so only they are decoded with one, the layers as queries.
        kernels, points = (
            tensor.take_along_dim(chosen, 3)[..., 0, :].movedim(0, 2)
            for tensor in (predictions.kernels, predictions.points)
        )
        mask = upsample(
            decode_masks(features, kernels, points).flatten(0, 1), targets.masks.shape[-2:]
        )  # (M*T, D, H, W)
        box = predictions.boxes.take_along_dim(chosen, 3)[..., 0, :]  # (D, M, T, 4)
        target_box = targets.boxes.expand_as(box)
        corners, target_corners = cxcywh_to_xyxy(box), cxcywh_to_xyxy(targets.boxes).expand_as(box)

        # 1 at the matched query and the object's class in the frames where the object is visible.
        shape = predictions.logits.shape
        queries = torch.arange(shape[3], device=matched.device)
        classes = torch.arange(shape[4], device=matched.device)
        is_query = (matched[..., None] == queries)[:, :, None, :, None]  # (D, M, 1, N, 1)
        is_class = (targets.labels[:, None] == classes)[:, None, None]  # (M, 1, 1, K)
        positive = (is_query & is_class & targets.visible[:, :, None, None]).to(predictions.logits.dtype)

        by_layer = dict(  # values of a layer are adjacent
            loss_cls=self._values(self.loss_cls, predictions.logits.flatten(0, 3), positive.flatten(0, 3)).view(
                num_layers, -1
            ),
            **self.mask_values(mask, targets),
            loss_bbox=self._values(self.loss_bbox, box.flatten(0, 2), target_box.flatten(0, 2)).view(num_layers, -1),
            loss_giou=self._values(self.loss_iou, corners.flatten(0, 2), target_corners.flatten(0, 2)).view(
                num_layers, -1
            ),
        )
        return {name: values.sum(1) / num_masks for name, values in by_layer.items()}

    def mask_values(self, masks: Tensor, targets: ClipTargets) -> dict[str, Tensor]:
        """``loss_mask`` and ``loss_dice`` of each frame, (D, M*T) each.

        Args:
            masks: (M*T, D, H, W) logits.
            targets: with masks of the same size.
        """
        return self._mask_values(masks, targets.masks.flatten(0, 1))

    def _mask_values(self, masks: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """(n, D, ...) logits and (n, ...) targets -> (D, n) each."""
        num_layers = masks.shape[1]
        logits, target = (tensor.flatten(0, 1).flatten(1) for tensor in (masks, targets[:, None].expand_as(masks)))
        return dict(
            loss_mask=self._values(self.loss_mask, logits, target).mean(1).view(-1, num_layers).t(),
            loss_dice=self._values(self.loss_dice, logits, target).view(-1, num_layers).t(),
        )

    @staticmethod
    def _values(loss: nn.Module, pred: Tensor, target: Tensor) -> Tensor:
        return loss(pred, target, reduction_override='none')


def upsample(masks: Tensor, size: Sequence[int]) -> Tensor:
    """(F, Q, h, w) logits -> (F, Q, H, W)."""
    return F.interpolate(masks, size=tuple(size), mode='bilinear', align_corners=False)
