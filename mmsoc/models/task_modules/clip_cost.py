import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmsoc.registry import TASK_UTILS


@TASK_UTILS.register_module()
class ClipCost:
    """An mmdet match cost between trajectories: the mean of its per-frame costs.

    (mmdet's costs have no time axis; `mmdet.DiceCost` would treat a clip as one large image, which gives a different
    value.)

    Args:
        cost: config of a match cost, e.g. ``dict(type='mmdet.DiceCost', weight=5., pred_act=True, eps=1.)``.
        visible_only: average over the frames that show the object, or over all frames if none does.
    """

    def __init__(self, *, cost: dict, visible_only: bool = False) -> None:
        self.cost = TASK_UTILS.build(cost)
        self.visible_only = visible_only

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None, **kwargs
    ) -> Tensor:
        """
        Args:
            pred_instances: N trajectories: ``scores`` (N, T, K) logits, ``bboxes`` (N, T, 4) xyxy,
                ``masks`` (N, T, H, W) logits.
            gt_instances: G trajectories: ``labels`` (G,), ``bboxes`` (G, T, 4), ``masks`` (G, T, H, W),
                ``visible`` (G, T) bool.
            img_meta: passed on.

        Returns:
            (N, G).
        """
        cost_TNG = torch.stack(
            [
                self.cost(
                    InstanceData(**{key: value[:, frame] for key, value in pred_instances.items()}),
                    InstanceData(
                        **{key: value if key == 'labels' else value[:, frame] for key, value in gt_instances.items()}
                    ),
                    img_meta,
                )
                for frame in range(gt_instances.visible.shape[1])
            ]
        )
        if not self.visible_only:
            return cost_TNG.mean(0)
        counted_GT = gt_instances.visible
        counted_GT = counted_GT | ~counted_GT.any(1, keepdim=True)
        weight_T1G = counted_GT.to(cost_TNG.dtype).t()[:, None]
        return (cost_TNG * weight_T1G).sum(0) / weight_T1G.sum(0)
