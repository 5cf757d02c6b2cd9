"""Conversion of mask logits to masks of the original frames: the slot ``output`` of `PredictionConfig`."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError

# Pixels of full-size masks computed at once: 64 MiB of float32 logits on a CPU, 512 MiB on a GPU.
MAX_PIXELS, MAX_PIXELS_ON_GPU = 2**24, 2**27


class MaskSizes(NamedTuple):
    """(height, width) of a clip's frames."""

    input: tuple[int, int]
    """in the batch, padded"""
    image: tuple[int, int]
    """in the batch, without the padding"""
    original: tuple[int, int]
    """as read; the size of the masks"""


class Masks(NamedTuple):
    """An output's result for n masks."""

    masks: Tensor
    """(n, W, H) bool, columns first, as run-length codes need them; (n, H, W) with ``rows_first``"""
    logits: Tensor | None
    """(n, h, w), covering the un-padded frame; the masks are these, resized to its original size and thresholded. None
    if the output does not keep them"""


class MaskOutput(ABC):
    """Converts mask logits to masks.

    Args:
        mask_threshold: the probability, in (0, 1), above which a pixel belongs to the mask.

    Raises:
        UserError: the threshold is not between 0 and 1.
    """

    keeps_logits = False
    """Whether predictions also contain ``pred_logits``."""
    for_metric = False
    """Whether it serves only one data set's metric; users get `ThresholdedMasks` instead."""

    def __init__(self, mask_threshold: float = 0.5) -> None:
        if not 0 < mask_threshold < 1:
            raise UserError(
                f'model.test_cfg.output.mask_threshold={mask_threshold!r}: expected a number between 0 and 1'
            )
        self.mask_threshold = mask_threshold

    @property
    def logit_threshold(self) -> float:
        """The logit of ``mask_threshold``."""
        return math.log(self.mask_threshold / (1 - self.mask_threshold))

    @abstractmethod
    def __call__(self, logits: Tensor, sizes: MaskSizes, rows_first: bool = False) -> Masks:
        """
        Args:
            logits: (n, h, w) at stride 4 of the padded input.
            sizes: of the frames.
            rows_first: the masks as (n, H, W).
        """


@TASK_UTILS.register_module()
class ThresholdedMasks(MaskOutput):
    """Logits are resized to the original size (bilinear), then thresholded: as in the released inference on Ref-YouTube-VOS."""

    def __call__(self, logits: Tensor, sizes: MaskSizes, rows_first: bool = False) -> Masks:
        inside = self._without_padding(logits, sizes)
        return Masks(self._at_original_size(inside, sizes.original, rows_first), inside if self.keeps_logits else None)

    @staticmethod
    def _without_padding(logits: Tensor, sizes: MaskSizes) -> Tensor:
        """The logits unchanged if nothing was padded, else resized to the input's size and cropped to the frame."""
        if sizes.image == sizes.input:
            return logits
        height, width = sizes.image
        logits = F.interpolate(logits[None], size=sizes.input, mode='bilinear', align_corners=False)[0]
        return logits[..., :height, :width]

    def _at_original_size(self, logits: Tensor, size: tuple[int, int], rows_first: bool) -> Tensor:
        height, width = size
        found = torch.empty(
            (len(logits), *(size if rows_first else (width, height))), dtype=torch.bool, device=logits.device
        )
        # Some frames at a time: a long video at its original size is large.
        limit = MAX_PIXELS if logits.device.type == 'cpu' else MAX_PIXELS_ON_GPU
        step = max(1, limit // (height * width))
        for some, target in zip(logits.split(step), found.split(step), strict=True):
            full = F.interpolate(some[:, None], size=size, mode='bilinear', align_corners=False)[:, 0]
            torch.gt(full if rows_first else full.transpose(1, 2), self.logit_threshold, out=target)
        return found


@TASK_UTILS.register_module()
class MasksAndLogits(ThresholdedMasks):
    """Like `ThresholdedMasks`; predictions also contain ``pred_logits``, which `RefDAVIS17Metric` uses to assign
    pixels.

    They are large, and are moved to the CPU as float32.
    """

    keeps_logits = for_metric = True


@TASK_UTILS.register_module()
class A2DMasks(MaskOutput):
    """Thresholded at the size of the input, then resized by nearest neighbour: as in the released evaluation on A2D-Sentences."""

    for_metric = True

    def __call__(self, logits: Tensor, sizes: MaskSizes, rows_first: bool = False) -> Masks:
        height, width = sizes.image
        logits = F.interpolate(logits[None], size=sizes.input, mode='bilinear', align_corners=False)
        inside = (logits > self.logit_threshold)[..., :height, :width].float()
        full = F.interpolate(inside, size=sizes.original, mode='nearest')[0].bool()
        return Masks(full if rows_first else full.transpose(1, 2).contiguous(), None)
