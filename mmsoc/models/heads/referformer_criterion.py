from einops import rearrange
from torch import Tensor

from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets

from .clip_criterion import ClipCriterion


@MODELS.register_module()
class ReferFormerCriterion(ClipCriterion):
    """The released ReferFormer's losses: a clip's masks count as one image, at stride 4.

    Targets are every fourth pixel of the masks, from index 2. The mask loss is a mean over all pixels of the clip, and the
    dice loss has one coefficient for the clip. All sums are divided by the number of frames that show an object, averaged
    over the processes and at least 1, so both losses of the masks carry about 1/T of `ClipCriterion`'s weight.

    Its matching costs in `ClipAssigner`: `ClipFocalCost`, `ClipBoxL1Cost`, `ClipGIoUCost`, `WholeClipFocalCost`,
    `WholeClipDiceCost`.

    Args:
        kwargs: of `ClipCriterion`; ``loss_contrastive`` is None.
    """

    stride = 4

    def compared(self, masks: Tensor) -> Tensor:
        """Every fourth pixel."""
        first = self.stride // 2
        return masks[..., first :: self.stride, first :: self.stride]

    def num_masks(self, targets: ClipTargets) -> Tensor:
        """The number of frames that show an object."""
        return targets.visible.sum()

    def mask_values(self, masks: Tensor, targets: ClipTargets) -> dict[str, Tensor]:
        """``loss_mask`` and ``loss_dice`` of each clip, (D, M) each."""
        clips = rearrange(masks, '(m t) d h w -> m d t h w', t=targets.masks.shape[1])
        return self._mask_values(clips, targets.masks)
