"""From paths to frames and to the mask and box of the referred object.

Between loading and packing, what belongs to one frame is a list over the T frames (the keys that `ForEachFrame`
hands to image transforms); what belongs to the clip (``texts``, ``video_id``, ...) is left as it is.
"""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks

from mmsoc.registry import TRANSFORMS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import read_frame, read_ids
from mmsoc.utils.masks import box_of_mask


def place_of(results: dict) -> str:
    """The video and the sentence of a sample, for error messages."""
    texts = results['texts']
    return f'video {results["video_id"]}, ' + (
        f'sentence {texts[0]!r}' if len(texts) == 1 else f'{len(texts)} sentences'
    )


@TRANSFORMS.register_module()
class RandomFrames(BaseTransform):
    """Keeps some of a clip's frames, before they are read; with one frame, a video data set trains like an image data
    set.

    Args:
        num_frames: how many, drawn without replacement and kept in order, from numpy's global generator.

    Raises:
        ValueError: the clip has fewer frames.
    """

    def __init__(self, *, num_frames: int = 1) -> None:
        if num_frames < 1:
            raise UserError(f'RandomFrames: num_frames must be at least 1, found {num_frames}')
        self.num_frames = num_frames

    def transform(self, results: dict) -> dict:
        length = len(results['img_paths'])
        if length < self.num_frames:
            raise UserError(
                f'RandomFrames: num_frames={self.num_frames}, but the clip has {length} ({place_of(results)})'
            )
        kept = sorted(np.random.choice(length, self.num_frames, replace=False).tolist())
        for key in ('frames', 'frame_ids', 'img_paths', 'mask_paths'):
            if results.get(key) is not None:
                results[key] = [results[key][i] for i in kept]
        return results


@TRANSFORMS.register_module()
class LoadVideoFrames(BaseTransform):
    """Reads ``img_paths``.

    Adds, as lists over frames: ``img`` (uint8 (H, W, 3), RGB), ``ori_shape``, ``img_shape``, ``img_path``,
    ``scale_factor``, ``flip``, ``flip_direction``.

    Raises:
        FileNotFoundError, ValueError: a frame is missing, broken, or of another size than the first one.
    """

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        paths = results['img_paths']
        images = [read_frame(path, where) for path in paths]
        for path, image in zip(paths, images):
            if image.shape != images[0].shape:
                raise UserError(
                    f'frame {path} is {image.shape[1]}x{image.shape[0]}, but {paths[0]} of the same clip is '
                    f'{images[0].shape[1]}x{images[0].shape[0]} ({where})'
                )
        shapes = [image.shape[:2] for image in images]
        results.update(
            img=images,
            img_path=list(paths),
            ori_shape=shapes,
            img_shape=list(shapes),
            scale_factor=[(1.0, 1.0)] * len(images),
            flip=[False] * len(images),
            flip_direction=[None] * len(images),
        )
        return results


@TRANSFORMS.register_module()
class LoadReferredMasks(BaseTransform):
    """Reads ``mask_paths`` and keeps the objects that the E sentences name, in their order.

    Adds, as lists over frames: ``gt_masks`` (BitmapMasks (E, H, W)), ``gt_bboxes`` (float32 (E, 4); zeros where the
    object is absent) and ``gt_bboxes_labels`` (int64 (E,)).

    Raises:
        FileNotFoundError, ValueError: a mask is missing, broken, or of another size than its frame.
    """

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        obj_ids = np.array(results['obj_ids'], int)[:, None, None]
        masks, boxes = [], []
        for path, frame_path, image in zip(results['mask_paths'], results['img_paths'], results['img'], strict=True):
            ids = read_ids(path, where)
            height, width = ids.shape
            if (height, width) != image.shape[:2]:
                raise UserError(
                    f'mask {path} is {width}x{height}, but its frame {frame_path} is '
                    f'{image.shape[1]}x{image.shape[0]} ({where})'
                )
            of_objects = (ids == obj_ids).astype(np.uint8)
            masks.append(BitmapMasks(of_objects, height, width))
            boxes.append(np.stack([box_of_mask(mask) for mask in of_objects]))
        results.update(
            gt_masks=masks, gt_bboxes=boxes, gt_bboxes_labels=[np.array(results['labels'], np.int64) for _ in masks]
        )
        return results


@TRANSFORMS.register_module()
class LoadCategoryMaps(BaseTransform):
    """The category of every object in the frames, also of those that no sentence names, and what objects do.

    Adds ``gt_seg_map``, a list over frames of uint8 (H, W): 0 is background, k + 1 is ``classes[k]``. With ``events`` it is
    (H, W, 2). In the second map 0 is background, k + 1 is ``events[k]``, and 255 an object whose event is unknown: no sentence of
    the sample names it, or its event is not among ``events``.

    Args:
        classes: the categories, at most 254.
        events: at most 254, of the expressions' optional key ``event``.

    Raises:
        ValueError: the data set has no ``meta_file``, or a mask shows an object whose category is missing there or is
            not among ``classes``.
    """

    def __init__(self, *, classes: Sequence[str], events: Sequence[str] | None = None) -> None:
        for key, values in (('classes', classes), ('events', events or ())):
            if len(values) > 254:
                raise UserError(f'LoadCategoryMaps: at most 254 {key} fit into a map, found {len(values)}')
        self.classes = list(classes)
        self.events = None if events is None else list(events)

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        if results.get('categories') is None:
            raise UserError(
                f'LoadCategoryMaps: the data set needs meta_file, which lists the categories of objects ({where})'
            )
        value_of_id: np.ndarray = np.zeros(256, np.uint8)
        for obj_id, category in results['categories'].items():
            if category not in self.classes:
                raise UserError(
                    f'LoadCategoryMaps: the category of object {obj_id} is {category!r} ({where}), which is none of the '
                    f'{len(self.classes)} in `classes`'
                )
            value_of_id[int(obj_id)] = self.classes.index(category) + 1
        if self.events is not None:
            value_of_id = np.stack([value_of_id, self._event_of_id(results)], 1)
        maps = []
        for path in results['mask_paths']:
            ids = read_ids(path, where)
            unknown = sorted(set(np.unique(ids).tolist()) - {0} - set(map(int, results['categories'])))
            if unknown:
                raise UserError(f'LoadCategoryMaps: meta_file does not say what the objects {unknown} in {path} are')
            maps.append(value_of_id[ids])
        results['gt_seg_map'] = maps
        return results

    def _event_of_id(self, results: dict) -> np.ndarray:
        """Values of the second map by object id, uint8 (256,)."""
        assert self.events is not None
        value_of_id: np.ndarray = np.full(256, 255, np.uint8)
        value_of_id[0] = 0
        for obj_id, event in zip(results['obj_ids'], results['events'] or (), strict=False):  # None: no event is known
            if event in self.events:
                value_of_id[int(obj_id)] = self.events.index(event) + 1
        return value_of_id
