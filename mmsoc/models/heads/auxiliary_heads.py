"""Heads for training only: each has ``loss(visual, fused, targets, data_samples)``, whose losses SOC adds.

The published SOC has none, since its backbone and text encoder are pre-trained. With them, a network that starts from
random weights learns in minutes how a sentence's words relate to the image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.structures import TrackDataSample
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsoc.models.losses import mean_over_processes
from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, FusedFeatures, VisualFeatures
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError

_IGNORED = 255  # no target: padding, the convention of OpenMMLab


@MODELS.register_module()
class FusionMaskHead(BaseModule):
    """Deep supervision of the fusion: predicts the named object's mask from each fused level by a 1x1 convolution.

    It supervises every cell directly, whereas the matched query's losses reach the fusion only through the deformable
    encoder and decoder.

    Args:
        embed_dims: C.
        num_levels: number of fused levels, finest first.
        loss_bce_weight, loss_dice_weight: of the two losses, each summed over the levels and averaged over the M*T masks of all
            processes (`mean_over_processes`).
    """

    def __init__(
        self,
        *,
        embed_dims: int = 256,
        num_levels: int = 3,
        loss_bce_weight: float = 4.0,
        loss_dice_weight: float = 2.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.convs = nn.ModuleList(nn.Conv2d(embed_dims, 1, 1) for _ in range(num_levels))
        self.loss_bce_weight = loss_bce_weight
        self.loss_dice = MODELS.build(
            dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, reduction='sum', loss_weight=loss_dice_weight)
        )

    def loss(
        self,
        visual: VisualFeatures,
        fused: FusedFeatures,
        targets: ClipTargets,
        data_samples: Sequence[TrackDataSample],
    ) -> dict[str, Tensor]:
        """``aux.loss_fusion_bce`` and ``aux.loss_fusion_dice``; a cell's target is its fraction inside the mask."""
        mask = targets.masks.flatten(0, 1)[:, None]
        levels = fused.levels[: len(self.convs)]
        (num_masks,) = mean_over_processes(len(mask), device=mask.device)
        bce, dice = 0.0, 0.0
        for conv, level in zip(self.convs, levels, strict=True):
            logit_FP = conv(level).flatten(1).float()
            target_FP = F.adaptive_avg_pool2d(mask, level.shape[-2:]).flatten(1)
            bce_FP = F.binary_cross_entropy_with_logits(logit_FP, target_FP, reduction='none')
            bce = bce + bce_FP.sum(-1).sum() / num_masks / bce_FP.shape[1]
            dice = dice + self.loss_dice(logit_FP, target_FP) / num_masks
        return {'aux.loss_fusion_bce': self.loss_bce_weight * bce, 'aux.loss_fusion_dice': dice}


@MODELS.register_module()
class CategoryMapHead(BaseModule):
    """Predicts the category of the object in every cell, from each visual level by a 1x1 convolution.

    It replaces pre-training, alone (`BackbonePretrainer`) or with the other losses: the gate of `MMF` multiplies the
    visual channels, so it quickly learns words whose meaning is linear in them.

    Args:
        num_classes: K categories, as in `LoadCategoryMaps`.
        embed_dims: C.
        num_levels: number of levels, finest first.
        loss_weight: weight of the cross-entropy over background and K categories, averaged over a level's cells with a
            target in all processes (`mean_over_processes`) and summed over the levels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_levels: int = 3,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = num_classes
        self.convs = nn.ModuleList(nn.Conv2d(embed_dims, num_classes + 1, 1) for _ in range(num_levels))
        self.loss_weight = loss_weight

    def loss(
        self,
        visual: VisualFeatures,
        fused: FusedFeatures,
        targets: ClipTargets,
        data_samples: Sequence[TrackDataSample],
    ) -> dict[str, Tensor]:
        """`loss_by_level` of the B clips."""
        return self.loss_by_level(visual.levels, data_samples)

    def loss_by_level(self, levels: Sequence[Tensor], data_samples: Sequence[TrackDataSample]) -> dict[str, Tensor]:
        """
        Args:
            levels: (B*T, C, h_i, w_i).
            data_samples: B, with ``gt_sem_seg``; a cell's target is that of the pixel at its centre.

        Returns:
            ``aux.loss_category``, and ``aux.acc_category``, the accuracy in percent on cells with an object, over all
            levels.

        Raises:
            ValueError: the samples were loaded without `LoadCategoryMaps`.
        """
        maps = []
        for sample in data_samples:
            for index in getattr(sample, 'key_frames_inds', range(len(sample))):
                frame = sample[index]
                if 'gt_sem_seg' not in frame:
                    raise UserError(
                        'CategoryMapHead: the samples have no gt_sem_seg; add LoadCategoryMaps to the pipeline'
                    )
                category = frame.gt_sem_seg.sem_seg
                height, width = frame.batch_input_shape
                maps.append(
                    F.pad(category, (0, width - category.shape[-1], 0, height - category.shape[-2]), value=_IGNORED)
                )
        map_F1HW = torch.stack(maps)
        if map_F1HW.device.type == 'cpu':  # on a GPU it would make the host wait; there the loss fails on a wrong class
            highest = int(torch.where(map_F1HW == _IGNORED, 0, map_F1HW).max())
            if highest > self.num_classes:
                raise UserError(
                    f'CategoryMapHead: num_classes={self.num_classes}, but the samples have category {highest} '
                    '(counted from 1); `LoadCategoryMaps.classes` names more'
                )
        map_F1HW = to_device(map_F1HW, levels[0].device).float()
        sums, cells, right, counted = [], [], 0.0, 0.0
        for conv, level in zip(self.convs, levels, strict=False):
            target = F.interpolate(map_F1HW, size=level.shape[-2:], mode='nearest')[:, 0].long()
            logits = conv(level).float()
            has_target = target != _IGNORED
            sums.append(F.cross_entropy(logits, target, ignore_index=_IGNORED, reduction='sum'))
            cells.append(has_target.sum())
            of_object = (target > 0) & has_target
            right = right + ((logits.detach().argmax(1) == target) & of_object).sum()
            counted = counted + of_object.sum()
        num_cells = torch.stack(mean_over_processes(*cells, device=map_F1HW.device))
        return {
            'aux.loss_category': self.loss_weight * (torch.stack(sums) / num_cells).sum(),
            'aux.acc_category': 100 * right / torch.as_tensor(counted).clamp(min=1),
        }
