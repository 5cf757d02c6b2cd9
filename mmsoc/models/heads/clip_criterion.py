from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsoc.registry import MODELS, TASK_UTILS
from mmsoc.structures import ClipTargets, Predictions


@MODELS.register_module()
class ClipCriterion(nn.Module):
    """Instance matching and total loss (paper section 3.5, Eq. 8 and 9), for every decoder layer on its own.

    One trajectory of N is matched to the referred object of a clip; it alone is trained towards the mask and the box, in all
    frames, and towards the class in the frames where the object can be seen.  Where the object is absent its mask is empty and its
    box is zero, and both count, as in the released implementation.  All sums are divided by the number of target masks (sentences
    times frames), averaged over the processes.

    Args:
        assigner (dict): ``mmdet.HungarianAssigner`` with `ClipCost` s.
        loss_cls (dict): ``mmdet.FocalLoss``, on all logits.
        loss_mask (dict): ``mmdet.FocalLoss``, mean over the pixels of a mask.
        loss_dice (dict): ``mmdet.DiceLoss``.
        loss_bbox (dict): ``mmdet.L1Loss``, on cxcywh in [0, 1].
        loss_iou (dict): ``mmdet.GIoULoss``.
        loss_contrastive (dict, optional): `VLContrastiveLoss`; None to train without (paper Table 3, without VL).
    """

    def __init__(self,
                 *,
                 assigner: dict,
                 loss_cls: dict,
                 loss_mask: dict,
                 loss_dice: dict,
                 loss_bbox: dict,
                 loss_iou: dict,
                 loss_contrastive: dict | None) -> None:
        super().__init__()
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_mask = MODELS.build(loss_mask)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.loss_iou = MODELS.build(loss_iou)
        self.loss_contrastive = MODELS.build(loss_contrastive) if loss_contrastive is not None else None

    def forward(self, predictions: Sequence[Predictions], video_queries: Tensor, guidance: Tensor, features: Tensor,
                decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor], targets: ClipTargets) -> dict[str, Tensor]:
        """
        Args:
            predictions (Sequence[Predictions]): of each of the D decoder layers, the last one last.
            video_queries (Tensor): (D, M, N, C).
            guidance (Tensor): (M, C).
            features (Tensor): (M*T, mask_channels, h, w).
            decode_masks (Callable): `DynamicMaskHead.decode_masks`.
            targets (ClipTargets): M referred objects.

        Returns:
            dict[str, Tensor]: weighted scalars ``loss_cls``, ``loss_mask``, ``loss_dice``, ``loss_bbox``, ``loss_giou``,
            ``loss_contrastive`` of the last layer, and the same with a prefix ``d{layer}.`` of the others.
        """
        with torch.autocast(features.device.type, enabled=False):
            num_masks = reduce_mean(features.new_tensor(targets.visible.numel(), dtype=torch.float32)).clamp(min=1).item()
            losses = {}
            for layer, (prediction, video) in enumerate(zip(predictions, video_queries, strict=True)):
                prediction = Predictions(*(tensor.float() for tensor in prediction))
                matched = self.match(prediction, features, decode_masks, targets)
                prefix = '' if layer == len(predictions) - 1 else f'd{layer}.'
                for name, value in self._layer_losses(
                        prediction, matched, features, decode_masks, targets, num_masks).items():
                    losses[prefix + name] = value
                if self.loss_contrastive is not None:
                    losses[prefix + 'loss_contrastive'] = self.loss_contrastive(video.float(), guidance.float(), matched)
            return losses

    @torch.no_grad()
    def match(self, prediction: Predictions, features: Tensor, decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor],
              targets: ClipTargets) -> Tensor:
        """(M,) int64: the query whose trajectory is assigned to each sentence's object.

        Masks are compared at the input's resolution: at stride 4 other queries win.
        """
        num_sentences, num_frames = targets.visible.shape
        features_MT = features.unflatten(0, (num_sentences, num_frames))
        matched = []
        for m in range(num_sentences):
            masks_1TNHW = decode_masks(features_MT[m], prediction.kernels[m:m + 1], prediction.points[m:m + 1])
            masks_TNHW = self._upsample(masks_1TNHW[0], targets)
            trajectories = InstanceData(
                scores=prediction.logits[m].transpose(0, 1),
                bboxes=bbox_cxcywh_to_xyxy(prediction.boxes[m]).transpose(0, 1),
                masks=masks_TNHW.transpose(0, 1))
            target = InstanceData(
                labels=targets.labels[m:m + 1],
                bboxes=bbox_cxcywh_to_xyxy(targets.boxes[m:m + 1]),
                masks=targets.masks[m:m + 1],
                visible=targets.visible[m:m + 1])
            # Boxes are in [0, 1] already; mmdet's costs divide by the shape of the image.
            assigned = self.assigner.assign(trajectories, target, img_meta=dict(img_shape=(1, 1)))
            matched.append(assigned.gt_inds.argmax())
        return torch.stack(matched)

    def _layer_losses(self, prediction: Predictions, matched: Tensor, features: Tensor,
                      decode_masks: Callable[[Tensor, Tensor, Tensor], Tensor], targets: ClipTargets,
                      num_masks: float) -> dict[str, Tensor]:
        sentence = torch.arange(len(matched), device=matched.device)
        # Only the matched trajectory's masks carry gradient, so only they are decoded with it.
        mask_MT1 = decode_masks(features, prediction.kernels[sentence, :, matched, None],
                                prediction.points[sentence, :, matched, None])
        mask = self._upsample(mask_MT1, targets).flatten(0, 2).flatten(1)
        target_mask = targets.masks.flatten(0, 1).flatten(1)
        box = prediction.boxes[sentence, :, matched].flatten(0, 1)
        target_box = targets.boxes.flatten(0, 1)

        positive_MTNK = torch.zeros_like(prediction.logits)
        positive_MTNK[sentence, :, matched, targets.labels] = targets.visible.to(positive_MTNK.dtype)
        return dict(
            loss_cls=self.loss_cls(
                prediction.logits.flatten(0, 2), positive_MTNK.flatten(0, 2), avg_factor=num_masks),
            loss_mask=self.loss_mask(mask, target_mask, avg_factor=num_masks * mask.shape[1]),
            loss_dice=self.loss_dice(mask, target_mask, avg_factor=num_masks),
            loss_bbox=self.loss_bbox(box, target_box, avg_factor=num_masks),
            loss_giou=self.loss_iou(
                bbox_cxcywh_to_xyxy(box), bbox_cxcywh_to_xyxy(target_box), avg_factor=num_masks))

    @staticmethod
    def _upsample(masks: Tensor, targets: ClipTargets) -> Tensor:
        """(..., Q, h, w) logits -> (..., Q, H, W) of the padded input."""
        size = targets.masks.shape[-2:]
        folded = F.interpolate(masks.flatten(0, -4) if masks.dim() > 4 else masks, size=size, mode='bilinear',
                               align_corners=False)
        return folded.unflatten(0, masks.shape[:-3]) if masks.dim() > 4 else folded
