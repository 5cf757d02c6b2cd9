"""COCO masks, and pseudo-clips made from one image (RefCOCO, RefCOCO+, RefCOCOg)."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask

from mmsoc.registry import TRANSFORMS
from mmsoc.utils.errors import UserError
from mmsoc.utils.masks import box_of_mask, run_totals

from .loading import place_of


def segmentation_to_rle(segmentation: Any, height: int, width: int, where: str) -> dict:
    """Converts a COCO segmentation to one run-length code.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, whose union is the mask (none: an empty mask), or a
            run-length code ``dict(size=[height, width], counts=...)`` with plain or compressed counts.
        height, width: of the image, in pixels.
        where: what it belongs to; becomes part of the error.

    Returns:
        ``size`` and compressed ``counts`` (bytes).

    Raises:
        ValueError: it is neither, a polygon has fewer than three corners, or a code is broken or of the wrong size.
    """
    if isinstance(segmentation, dict):
        return _check_rle(segmentation, height, width, where)
    if not isinstance(segmentation, list):
        raise UserError(
            f"{where}: 'segmentation' must be polygons or a run-length code, found {str(segmentation)[:80]!r}"
        )
    if not segmentation:
        return coco_mask.encode(np.zeros((height, width), np.uint8, order='F'))
    for polygon in segmentation:
        # pycocotools would interpret four numbers as a box.
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise UserError(
                f"{where}: 'segmentation' must be polygons of three corners x, y at least, found {str(polygon)[:80]!r} among them"
            )
    try:
        if not all(np.isfinite(polygon).all() for polygon in segmentation):
            raise UserError('not all numbers are finite')
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: the polygons of 'segmentation' cannot be drawn: {error}") from None


def _check_rle(code: dict, height: int, width: int, where: str) -> dict:
    size, counts = code.get('size'), code.get('counts')
    if (
        not isinstance(size, list | tuple)
        or list(size) != [height, width]
        or not isinstance(counts, list | str | bytes)
    ):
        raise UserError(
            f"{where}: expected a run-length code with 'counts' and the 'size' {[height, width]} (height, width), as the image "
            f'is, found the keys {sorted(code)} and the size {size}'
        )
    try:
        if isinstance(counts, list):
            if sum(counts) != height * width:
                raise UserError(f'the counts sum up to {sum(counts)} pixels of {height * width}')
            return coco_mask.frPyObjects(code, height, width)
        text = counts.encode() if isinstance(counts, str) else counts
        ((total,), _) = run_totals([text])  # pycocotools may never return from a code that is too short
        if total != height * width:
            raise UserError(
                f'its runs cover {total} pixels of {height * width}' if total >= 0 else 'it is no such code'
            )
        return dict(size=[height, width], counts=text)
    except (ValueError, TypeError) as error:
        raise UserError(f'{where}: the run-length code cannot be read: {error}') from None


@TRANSFORMS.register_module()
class LoadRefCOCOMasks(BaseTransform):
    """Draws ``segmentations``, one per sentence, of the clip's only frame.

    Args:
        evaluation: add ``gt_rles``, per sentence a run-length code at the image's size, which
            `mmsoc.evaluation.RefCOCOMetric` compares with. False: add the targets of training as
            `LoadReferredMasks` does, ``gt_masks`` (BitmapMasks (E, H, W)), ``gt_bboxes`` and ``gt_bboxes_labels`` (zeros:
            "referred").

    Raises:
        ValueError: a segmentation cannot be read, or a run-length code is not of the image's size.
    """

    def __init__(self, *, evaluation: bool = False) -> None:
        self.evaluation = evaluation

    def transform(self, results: dict) -> dict:
        height, width = results['img'][0].shape[:2]
        where = f'image {results["img_paths"][0]} ({place_of(results)})'
        rles = [segmentation_to_rle(segmentation, height, width, where) for segmentation in results['segmentations']]
        if self.evaluation:
            results['gt_rles'] = rles
            return results
        masks = np.ascontiguousarray(coco_mask.decode(rles).transpose(2, 0, 1))
        results.update(
            gt_masks=[BitmapMasks(masks, height, width)],
            gt_bboxes=[np.stack([box_of_mask(mask) for mask in masks])],
            gt_bboxes_labels=[np.zeros(len(masks), np.int64)],
        )
        return results


@TRANSFORMS.register_module()
class PseudoClip(BaseTransform):
    """Makes a clip of T frames from one image with masks: the image and T - 1 augmented copies, in random order.

    Each copy is made independently from the image:

    1. brightness: a whole number from U(-40, 40) is added to all values;
    2. perspective: each corner moves inwards by abs(N(0, 0.08)) of the width and of the height, and the quadrilateral
       is stretched to the frame (imgaug's ``PerspectiveTransform`` with ``keep_size``);
    3. a rotation by U(-20, 20) degrees about the centre, and a shift by U(-0.1, 0.1) of the width to the right and by
       the same share of the height downwards; uncovered areas are black;
    4. with probability 0.25 motion blur of 9 or 11 pixels, of any direction, that fades towards one of its ends.

    The masks go through 2 and 3. The image is interpolated linearly, masks by nearest neighbour. Both steps are one
    homography, so the image is interpolated once, where imgaug does it two or three times and blurs slightly more;
    areas that the first step cut off stay black, as in imgaug.

    These values are not in the paper: they are those of the released joint training, taken from ReferFormer's (which
    also changes the hue). All random numbers come from numpy's global generator. A copy may lose the object: then its
    mask is empty and its box zeros, as in any frame that does not show it; the image always shows it.

    ``frames`` distinguish the copies: the name with ``_0`` is the image. ``frame_ids`` become 0..T-1.

    Args:
        num_frames: T.
        brightness: greatest change, 0..255.
        perspective: standard deviation of the corners, as a share of the side, 0..0.25 (corners move by 0.45 at most).
        rotate: greatest angle, in degrees.
        translate: greatest shift, as a share of the side.
        blur_prob: probability of motion blur, 0..1.
        blur_kernels: its possible lengths in pixels, odd; one is drawn.

    Raises:
        ValueError: an argument is out of its range, or the sample has several frames or no masks.
    """

    def __init__(
        self,
        *,
        num_frames: int = 8,
        brightness: float = 40.0,
        perspective: float = 0.08,
        rotate: float = 20.0,
        translate: float = 0.1,
        blur_prob: float = 0.25,
        blur_kernels: Sequence[int] = (9, 11),
    ) -> None:
        for name, value, least, most in (
            ('num_frames', num_frames, 1, float('inf')),
            ('brightness', brightness, 0, 255),
            ('perspective', perspective, 0, 0.25),
            ('rotate', rotate, 0, 180),
            ('translate', translate, 0, 1),
            ('blur_prob', blur_prob, 0, 1),
        ):
            if not least <= value <= most:
                raise UserError(f'PseudoClip: {name} must be in {least}..{most}, found {value}')
        if not blur_kernels or any(size < 3 or size % 2 == 0 for size in blur_kernels):
            raise UserError(f'PseudoClip: blur_kernels must be odd numbers from 3 on, found {blur_kernels}')
        self.num_frames = num_frames
        self.brightness = brightness
        self.perspective = perspective
        self.rotate = rotate
        self.translate = translate
        self.blur_prob = blur_prob
        self.blur_kernels = tuple(blur_kernels)

    def transform(self, results: dict) -> dict:
        if len(results['img']) != 1 or 'gt_masks' not in results:
            found = 'masks' if 'gt_masks' in results else 'no masks; LoadRefCOCOMasks must come before'
            raise UserError(
                f'PseudoClip: expected one frame with masks, found {len(results["img"])} with {found} ({place_of(results)})'
            )
        image, masks = results['img'][0], results['gt_masks'][0]
        clip = [(image, masks)] + [self._copy(image, masks) for _ in range(self.num_frames - 1)]
        order = np.random.permutation(self.num_frames).tolist()
        (name,) = results['frames']
        # All other per-frame values are the same for all frames.
        for key in ('img_paths', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'):
            results[key] = list(results[key]) * self.num_frames
        results.update(
            img=[clip[i][0] for i in order],
            gt_masks=[clip[i][1] for i in order],
            gt_bboxes=[np.stack([box_of_mask(mask) for mask in clip[i][1].masks]) for i in order],
            gt_bboxes_labels=[results['gt_bboxes_labels'][0].copy() for _ in order],
            frames=[f'{name}_{i}' for i in order],
            frame_ids=list(range(self.num_frames)),
        )
        return results

    def _copy(self, image: np.ndarray, masks: BitmapMasks) -> tuple[np.ndarray, BitmapMasks]:
        height, width = size = image.shape[:2]
        brighter = image + np.int16(np.rint(np.random.uniform(-self.brightness, self.brightness)))
        copy = brighter.clip(0, 255).astype(np.uint8)
        distortion = perspective_matrix(size, np.random.normal(0, self.perspective, (4, 2)))
        movement = affine_matrix(
            size, np.random.uniform(-self.rotate, self.rotate), np.random.uniform(-self.translate, self.translate)
        )
        matrix = movement @ distortion
        inside = _warp(np.ones(size, np.uint8), movement, cv2.INTER_NEAREST)
        copy = _warp(copy, matrix, cv2.INTER_LINEAR) * inside[..., None]
        copied = [_warp(mask, matrix, cv2.INTER_NEAREST) * inside for mask in masks.masks]
        if np.random.uniform() < self.blur_prob:
            kernel = motion_kernel(
                int(np.random.choice(self.blur_kernels)), np.random.uniform(0, 360), np.random.uniform(0, 1)
            )
            copy = cv2.filter2D(copy, -1, kernel)
        return copy, BitmapMasks(np.stack(copied), height, width)


def _warp(image: np.ndarray, matrix: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.warpPerspective(image, matrix, image.shape[1::-1], flags=interpolation)


def perspective_matrix(size: Sequence[int], jitter: np.ndarray) -> np.ndarray:
    """The homography that stretches the quadrilateral between four corners to the frame.

    Args:
        size: height, width.
        jitter: (4, 2), how far the corners upper left, upper right, lower right and lower left move inwards, as shares of the
            width (x) and of the height (y); the sign does not matter.

    Returns:
        float64 (3, 3), from pixels (x, y) of the image to those of the frame.
    """
    sides = np.array([size[1], size[0]])
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    inwards = 1 - 2 * corners
    moved = corners + inwards * np.minimum(np.abs(jitter), 0.45)  # beyond the middle they would meet
    return cv2.getPerspectiveTransform((moved * sides).astype(np.float32), (corners * sides).astype(np.float32))


def affine_matrix(size: Sequence[int], angle: float, shift: float) -> np.ndarray:
    """A rotation about the frame's centre, then a shift.

    Args:
        size: height, width.
        angle: in degrees, clockwise as one sees the frame.
        shift: share of the width to the right, and of the height downwards.

    Returns:
        float64 (3, 3), of pixels (x, y).
    """
    height, width = size
    # OpenCV counts angles the other way.
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)
    rotation[:, 2] += shift * width, shift * height
    return np.vstack([rotation, [0, 0, 1]])


def motion_kernel(size: int, angle: float, balance: float) -> np.ndarray:
    """A line of ``size`` pixels whose weights go from ``balance`` to 1 - ``balance``, turned by ``angle`` degrees.

    Returns:
        float32 (size, size), at least 0, with the sum 1.
    """
    line: np.ndarray = np.zeros((size, size), np.float32)
    line[:, size // 2] = np.linspace(balance, 1 - balance, size)
    turned = _warp(line, affine_matrix((size, size), angle, 0), cv2.INTER_LINEAR)
    return turned / turned.sum()
