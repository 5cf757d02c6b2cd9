"""Heads for training only: each has ``loss(visual, fused, targets, data_samples)``, whose losses SOC adds.

The published SOC has none, since its backbone and text encoder are pre-trained. With them, a network that starts from
random weights learns in minutes how a sentence's words relate to the image.
"""

from collections.abc import Sequence
from typing import Any

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
        num_classes: K categories, as in `LoadCategoryMaps`. With its ``events`` the number of both,
            ``dict(category=6, event=16)``: one prediction for each map, whose losses are weighted equally.
        embed_dims: C.
        num_levels: number of levels, finest first.
        loss_weight: weight of the cross-entropy over background and K categories, averaged over a level's cells with a
            target in all processes (`mean_over_processes`) and summed over the levels.
    """

    def __init__(
        self,
        *,
        num_classes: int | dict[str, int],
        embed_dims: int = 256,
        num_levels: int = 3,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = {'category': num_classes} if isinstance(num_classes, int) else dict(num_classes)
        outputs = sum(self.num_classes.values()) + len(self.num_classes)  # with background
        self.convs = nn.ModuleList(nn.Conv2d(embed_dims, outputs, 1) for _ in range(num_levels))
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
            levels; the same for each further map.

        Raises:
            ValueError: the samples lack maps of `LoadCategoryMaps`, or these have more classes.
        """
        maps_FKHW = to_device(self._maps(data_samples), levels[0].device).float()
        sums, cells = [], []
        right = dict.fromkeys(self.num_classes, 0.0)
        counted = dict.fromkeys(self.num_classes, 0.0)
        for conv, level in zip(self.convs, levels, strict=False):
            targets = F.interpolate(maps_FKHW, size=level.shape[-2:], mode='nearest').long()
            parts = conv(level).float().split([number + 1 for number in self.num_classes.values()], 1)
            for name, target, logits in zip(self.num_classes, targets.unbind(1), parts, strict=True):
                has_target = target != _IGNORED
                sums.append(F.cross_entropy(logits, target, ignore_index=_IGNORED, reduction='sum'))
                cells.append(has_target.sum())
                of_object = (target > 0) & has_target
                right[name] = right[name] + ((logits.detach().argmax(1) == target) & of_object).sum()
                counted[name] = counted[name] + of_object.sum()
        num_cells = torch.stack(mean_over_processes(*cells, device=maps_FKHW.device))
        means_LK = (torch.stack(sums) / num_cells).view(-1, len(self.num_classes))
        found = {}
        for index, name in enumerate(self.num_classes):
            found[f'aux.loss_{name}'] = self.loss_weight * means_LK[:, index].sum()
            found[f'aux.acc_{name}'] = 100 * right[name] / torch.as_tensor(counted[name]).clamp(min=1)
        return found

    def _maps(self, data_samples: Sequence[TrackDataSample]) -> Tensor:
        """Uint8 (F, K, H, W): K maps of each frame, padded to the batch."""
        maps = []
        for sample in data_samples:
            for index in getattr(sample, 'key_frames_inds', range(len(sample))):
                frame = sample[index]
                found: Any = frame.gt_sem_seg.sem_seg if 'gt_sem_seg' in frame else ()
                if len(found) < len(self.num_classes):
                    raise UserError(
                        f'CategoryMapHead: expected maps of {", ".join(self.num_classes)}, and the samples have {len(found)}; '
                        'LoadCategoryMaps in the pipeline makes the first, its `events` the second'
                    )
                found = found[: len(self.num_classes)]
                height, width = frame.batch_input_shape
                maps.append(F.pad(found, (0, width - found.shape[-1], 0, height - found.shape[-2]), value=_IGNORED))
        maps_FKHW = torch.stack(maps)
        # On a GPU it would make the host wait; there the loss fails on a wrong class.
        if maps_FKHW.device.type == 'cpu':
            highest = torch.where(maps_FKHW == _IGNORED, 0, maps_FKHW).amax((0, 2, 3)).tolist()
            for (name, number), value in zip(self.num_classes.items(), highest, strict=True):
                if value > number:
                    raise UserError(
                        f'CategoryMapHead: num_classes has {number} for {name}, but the samples have {name} {value} '
                        '(counted from 1); the transform that loads the maps names more'
                    )
        return maps_FKHW
