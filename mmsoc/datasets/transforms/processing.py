"""Augmentation of clips. Image transforms of mmcv and mmdet run inside `ForEachFrame`; texts stay outside."""

import re
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform, RandomChoice, RandomChoiceResize, TransformBroadcaster
from mmdet.datasets.transforms import PhotoMetricDistortion, RandomCrop, Resize

from mmsoc.registry import TRANSFORMS

_ANY_LENGTH = 1 << 20
# Keys that image transforms may read or write. All others describe the clip and are not split over its frames.
FRAME_KEYS = (
    'img',
    'img_shape',
    'gt_masks',
    'gt_bboxes',
    'gt_bboxes_labels',
    'gt_seg_map',
    'scale_factor',
    'flip',
    'flip_direction',
)


@TRANSFORMS.register_module()
class ForEachFrame(TransformBroadcaster):
    """Applies image transforms to each frame of a clip.

    Args:
        share_random_params: the same random decisions for all frames of the clip; False draws them per frame.
    """

    def __init__(self, *, transforms: Sequence[dict], share_random_params: bool = True) -> None:
        super().__init__(transforms=list(transforms), share_random_params=share_random_params)

    def transform(self, results: dict) -> dict:
        results.update(super().transform({key: results[key] for key in FRAME_KEYS if key in results}))
        return results

    def _apply_transforms(self, inputs: dict) -> dict:
        # Transforms add keys, some of them only when they act; all frames must return the same keys.
        outputs = super()._apply_transforms(inputs)
        return {key: outputs[key] for key in inputs}


@TRANSFORMS.register_module()
class ShortSideResize(Resize):
    """Resizes to the sizes that DETR and its descendants use.

    The short side becomes ``min(scale)``, unless the long side would then exceed ``max(scale)``: then the short side
    becomes ``max(scale) * short / long``, rounded. The long side is truncated to an integer, where mmcv rounds: 718x406
    with ``scale=(640, 360)`` becomes 636x360 instead of 637x360. Masks are resized by nearest neighbour.

    Args:
        scale: (longest allowed long side, short side) in pixels.
        backend: 'pillow' averages when shrinking, like the published models' loader; 'cv2' interpolates neighbouring
            pixels only.
    """

    def __init__(
        self, *, scale: int | tuple[int, int], backend: str = 'pillow', interpolation: str = 'bilinear'
    ) -> None:
        super().__init__(scale=scale, keep_ratio=False, backend=backend, interpolation=interpolation)

    def _resize_img(self, results: dict) -> None:
        height, width = results['img'].shape[:2]
        results['scale'] = self.target_size(width, height, results['scale'])
        super()._resize_img(results)

    @staticmethod
    def target_size(width: int, height: int, scale: tuple[int, int]) -> tuple[int, int]:
        """Returns (width, height) after resizing."""
        short, long = sorted((width, height))
        target = min(scale)
        if long / short * target > max(scale):
            target = round(max(scale) * short / long)
        if width < height:
            return target, int(target * height / width)
        return int(target * width / height), target


@TRANSFORMS.register_module()
class RandomShortSideResize(RandomChoiceResize):
    """`ShortSideResize` to one of several sizes: a config with each of mmcv's ``scales`` would be long.

    Args:
        sides: short sides in pixels.
        longest: longest allowed long side; None: any.
    """

    def __init__(self, *, sides: Sequence[int], longest: int | None = None) -> None:
        scales = [(longest or _ANY_LENGTH, side) for side in sides]
        super().__init__(scales=scales, resize_type='mmsoc.ShortSideResize')


@TRANSFORMS.register_module()
class RandomClipChoice(RandomChoice):
    """mmcv's ``RandomChoice`` for use in `ForEachFrame`."""

    # mmcv keeps these names in a list that subclasses share; mmdet's RandomOrder adds the name a second time, after
    # which mmcv counts every call twice and refuses to share the choice between frames.
    _methods_with_randomness = ['random_pipeline_index']


@TRANSFORMS.register_module()
class RandomClipCrop(RandomCrop):
    """Cuts the same random rectangle, each side between ``min_size`` and ``max_size`` pixels, out of every frame.

    Unlike in mmdet's ``RandomCrop``, an object that is cut away stays in the sample, with an empty mask and a box of
    zeros.
    """

    def __init__(self, *, min_size: int = 384, max_size: int = 600) -> None:
        super().__init__(crop_size=(min_size, max_size), crop_type='absolute_range', allow_negative_crop=True)

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        crop_height, crop_width = self._get_crop_size((height, width))
        top, left = self._rand_offset((height - crop_height, width - crop_width))
        bottom, right = top + crop_height, left + crop_width
        results['img'] = results['img'][top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        if 'gt_seg_map' in results:
            results['gt_seg_map'] = results['gt_seg_map'][top:bottom, left:right]
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].crop(np.array([left, top, right, bottom]))
            shifted = results['gt_bboxes'] - np.array([left, top, left, top], np.float32)
            limit = np.array([crop_width, crop_height] * 2, np.float32)
            inside = results['gt_masks'].masks.any((1, 2))
            results['gt_bboxes'] = np.where(inside[:, None], shifted.clip(0, limit), 0).astype(np.float32)
        return results


@TRANSFORMS.register_module()
class PhotometricDistort(PhotoMetricDistortion):
    """mmdet's ``PhotoMetricDistortion`` with a uint8 result.

    Values are clipped to 0..255. (ReferFormer's loader casts without clipping, so that bright pixels wrap to dark
    ones.) mmdet's code expects BGR; on RGB it has the same effect, since the hue shift is symmetric.
    """

    def transform(self, results: dict) -> dict:
        results = super().transform(results)
        results['img'] = results['img'].clip(0, 255).astype(np.uint8)
        return results


@TRANSFORMS.register_module()
class SwapLeftRight(BaseTransform):
    """Exchanges left and right in ``texts`` if the clip was flipped horizontally (lower-case text).

    Args:
        whole_words: also exchanges leftmost/rightmost, leftward(s), lefthand and the like, but leaves "bright" alone.
            False also replaces letters inside words ("bright" becomes "bleft"), as the released code of SOC and
            ReferFormer does.
    """

    _SUBSTRING = re.compile('left|right')
    _WORD = re.compile(r'\b(left|right)(?=(?:most|wards?|hand|handed|side)?\b)')
    _OTHER = {'left': 'right', 'right': 'left'}

    def __init__(self, *, whole_words: bool = True) -> None:
        self.pattern = self._WORD if whole_words else self._SUBSTRING

    def transform(self, results: dict) -> dict:
        if results['flip'][0] and results['flip_direction'][0] in ('horizontal', 'diagonal'):
            results['texts'] = [
                self.pattern.sub(lambda match: self._OTHER[match[0]], text) for text in results['texts']
            ]
        return results
