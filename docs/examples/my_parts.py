"""Parts of a user's own, in a file of their own: a cluster, a backbone and a loss."""

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmengine.model import BaseModule
from torch import nn

from mmsoc.models.sim.clusters import BaseCluster
from mmsoc.registry import MODELS


@MODELS.register_module()
class AttentionPoolCluster(BaseCluster):
    """A query slot's video query is the mean of its frame queries, weighed by how well each fits the sentence."""

    def __init__(self, *, embed_dims=256, init_cfg=None):
        super().__init__(init_cfg)
        self.project = nn.Linear(embed_dims, embed_dims)

    def forward(self, queries, sentence):
        """queries (M, T, N, C), sentence (M, C) -> video queries (M, N, C)."""
        fit_MTN = torch.einsum('mtnc,mc->mtn', self.project(queries), sentence) / queries.shape[-1] ** 0.5
        return (fit_MTN.softmax(1)[..., None] * queries).sum(1)


@MODELS.register_module()
class ThreeConvBackbone(BaseModule):
    """Four maps at strides 4, 8, 16, 32 from an image; `FrameBackbone` runs it on every frame of a clip."""

    def __init__(self, *, channels=(32, 64, 128, 256), init_cfg=None):
        super().__init__(init_cfg)
        self.stem = nn.Conv2d(3, channels[0], 7, stride=4, padding=3)
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip(channels[:-1], channels[1:], strict=True)
        )

    def forward(self, images):
        """images (B, 3, H, W) -> four maps (B, C_i, ceil(H / s), ceil(W / s))."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1].relu()))
        return tuple(maps)


@MODELS.register_module()
class TverskyLoss(nn.Module):
    """Dice with a weight for each kind of error (Salehi et al., 2017); called as mmdet's DiceLoss is."""

    def __init__(self, *, false_positive=0.3, false_negative=0.7, reduction='mean', loss_weight=1.0):
        super().__init__()
        self.false_positive, self.false_negative = false_positive, false_negative
        self.reduction, self.loss_weight = reduction, loss_weight

    def forward(self, pred, target, weight=None, avg_factor=None, reduction_override=None):
        """pred (n, pixels) logits, target (n, pixels) in {0, 1}; a scalar, or one loss for each mask (reduction 'none')."""
        pred = pred.sigmoid()
        hit = (pred * target).sum(1)
        wrong = self.false_positive * (pred * (1 - target)).sum(1) + self.false_negative * ((1 - pred) * target).sum(1)
        loss = 1 - (hit + 1) / (hit + wrong + 1)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction_override or self.reduction, avg_factor)
