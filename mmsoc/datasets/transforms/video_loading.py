"""Frames and masks of clips with one annotated frame: A2D-Sentences (mp4, HDF5) and JHMDB-Sentences (mat).

Masks come in two forms. For training, ``gt_masks`` and the related keys of `LoadReferredMasks`, empty in frames without
annotation. For evaluation, ``gt_rles``: per sentence a COCO run-length code of the annotated frame at its original
size, which `mmsoc.evaluation.A2DMetric` compares with.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
import scipy.io
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask

from mmsoc.registry import TRANSFORMS
from mmsoc.utils.errors import UserError
from mmsoc.utils.masks import box_of_mask
from mmsoc.utils.video import NoVideoStreamError, VideoError, VideoReader

from .loading import place_of


def read_window(path: str, indices: Sequence[int], annotated: int, where: str) -> tuple[list[np.ndarray], list[int]]:
    """Decodes some frames of a video, and no more others than necessary.

    A frame's index is its position in presentation order: the times of all frames are read first, without decoding,
    then the frames are located by time, starting from the key frame before the first one.

    Args:
        path: the video.
        indices: of the frames, 0-based, at least 0; those beyond the end become the last frame.
        annotated: the index of the annotated frame, which must exist.
        where: what the file belongs to; becomes part of the error.

    Returns:
        The frames, uint8 (H, W, 3) RGB, and their indices.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a video, is too short for its annotation, or a frame cannot be decoded.
    """
    with _opened(path, where) as video:
        times = video.frame_times()
        if annotated >= len(times):
            raise UserError(
                f'video {path} has {len(times)} frames, but its annotation is of frame {annotated + 1}, counted from 1 '
                f'({where}); is the file complete?'
            )
        kept = [min(index, len(times) - 1) for index in indices]
        found = video.pixels_at([times[index] for index in kept])
    missing = sorted({index for index in kept if times[index] not in found})
    if missing:
        raise UserError(
            f'video {path} cannot be read ({where}): the frames {[index + 1 for index in missing]} of {len(times)}, counted '
            'from 1, cannot be decoded'
        )
    return [found[times[index]] for index in kept], kept


def video_shape(path: str, where: str) -> tuple[int, int, int]:
    """Number of frames of a video, and their height and width, without decoding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video.
    """
    with _opened(path, where) as video:
        return len(video.frame_times()), *video.size


@contextmanager
def _opened(path: str, where: str) -> Iterator[VideoReader]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'video {path} is missing ({where})')
    try:
        with VideoReader(path) as video:
            yield video
    except NoVideoStreamError:
        raise UserError(f'video {path} cannot be read ({where}): it has no video stream') from None
    except VideoError as error:
        raise UserError(f'video {path} cannot be read ({where}): {error.detail}') from None


@TRANSFORMS.register_module()
class LoadVideoWindow(BaseTransform):
    """Decodes the frames ``frame_ids`` (0-based) of the video ``video_path``, and nothing after them.

    Indices beyond the video's end become the last frame; ``frame_ids`` and ``frames`` are updated. The frame that
    ``key_frame_flags`` marks as annotated must exist.

    Adds the same keys as `LoadVideoFrames`; ``img_path`` is the video, for every frame.

    Raises:
        FileNotFoundError, ValueError: the video is missing, broken, or shorter than its annotation.
    """

    def transform(self, results: dict) -> dict:
        path = results['video_path']
        annotated = results['frame_ids'][results['key_frame_flags'].index(True)]
        images, kept = read_window(path, results['frame_ids'], annotated, place_of(results))
        shapes = [image.shape[:2] for image in images]
        results.update(
            frame_ids=kept,
            frames=[frame_name(index) for index in kept],
            img=images,
            img_path=[path] * len(images),
            ori_shape=shapes,
            img_shape=list(shapes),
            scale_factor=[(1.0, 1.0)] * len(images),
            flip=[False] * len(images),
            flip_direction=[None] * len(images),
        )
        return results


A2D_INSTANCES_HINT = (
    'The annotations of A2D itself (Annotations/mat) lack the instances that the sentences name: download '
    'a2d_annotation_with_instances of A2D-Sentences, https://kgavrilyuk.github.io/publication/actor_action'
)


def frame_name(index: int) -> str:
    """The name of the frame with this 0-based index in A2D and JHMDB: 5 digits, counted from 1."""
    return f'{index + 1:05d}'


def read_a2d_instances(path: str, where: str) -> list[int]:
    """The ids of the instances in an annotation of A2D (field ``instance``), in the order of its masks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no HDF5 file or has no such field.
    """
    (instances,) = _read_h5(path, ['instance'], where)
    return instances.ravel().astype(int).tolist()


def read_a2d_masks(path: str, instances: Sequence[int], where: str) -> np.ndarray:
    """The masks of some instances in an annotation of A2D (field ``reMask``).

    MATLAB wrote the file, so the axes are reversed, (N, W, H), and the first one is absent if N is 1. The field
    ``reBBox`` is not read: boxes are computed from the masks, as for the other data sets.

    Returns:
        uint8 (E, H, W) of 0 and 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no HDF5 file, lacks a field, or has no mask of an instance.
    """
    found, masks = _read_h5(path, ['instance', 'reMask'], where)
    ids: list[int] = found.ravel().astype(int).tolist()
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3 or len(masks) != len(ids):
        raise UserError(
            f"annotation {path} ({where}): expected 'reMask' of shape (N, W, H), or (W, H), for the N = {len(ids)} ids in "
            f"'instance', found {masks.shape}"
        )
    unknown = sorted(set(instances) - set(ids))
    if unknown:
        raise UserError(f'annotation {path} ({where}): expected the instances {list(instances)}, found {ids}')
    rows = [ids.index(instance) for instance in instances]
    return (masks[rows].transpose(0, 2, 1) != 0).astype(np.uint8)


def _read_h5(path: str, fields: Sequence[str], where: str) -> list[np.ndarray]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'annotation {path} is missing ({where})')
    try:
        with h5py.File(path, 'r') as file:
            missing = [field for field in fields if field not in file]
            if missing:
                hint = f'. {A2D_INSTANCES_HINT}' if 'instance' in missing else ''
                raise UserError(
                    f'annotation {path} ({where}): expected the fields {list(fields)}, found {sorted(file)}{hint}'
                )
            return [np.array(file[field]) for field in fields]
    except OSError as error:
        raise UserError(f'annotation {path} cannot be read ({where}): {error}') from None


@TRANSFORMS.register_module()
class LoadA2DMasks(BaseTransform):
    """Reads the masks of the instances ``obj_ids`` in the annotated frame from the HDF5 file ``mask_path``.

    Args:
        evaluation: add ``gt_rles`` (see above). False: add the targets of training, ``gt_masks``, ``gt_bboxes`` and
            ``gt_bboxes_labels`` (zeros: "referred").

    Raises:
        FileNotFoundError, ValueError: the file is missing or broken, lacks a field or an instance, or the masks are not
            of the frame's size.
    """

    def __init__(self, *, evaluation: bool = False) -> None:
        self.evaluation = evaluation

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        masks = read_a2d_masks(results['mask_path'], list(map(int, results['obj_ids'])), where)
        _check_size(masks, results, where)
        if self.evaluation:
            results['gt_rles'] = _encode(masks)
            return results
        height, width = masks.shape[1:]
        empty = np.zeros_like(masks)
        boxes = np.stack([box_of_mask(mask) for mask in masks])
        flags = results['key_frame_flags']
        results.update(
            gt_masks=[BitmapMasks(masks if annotated else empty, height, width) for annotated in flags],
            gt_bboxes=[boxes if annotated else np.zeros_like(boxes) for annotated in flags],
            gt_bboxes_labels=[np.zeros(len(masks), np.int64) for _ in flags],
        )
        return results


@TRANSFORMS.register_module()
class LoadJHMDBMask(BaseTransform):
    """Reads the person's mask in the annotated frame from the MATLAB file ``mask_path`` and adds ``gt_rles`` (see above).

    The file's field ``part_mask`` is (H, W, T); the annotated frame is the one that ``key_frame_flags`` marks.

    Raises:
        FileNotFoundError, ValueError: the file is missing or broken, lacks the field or the frame, or the mask is not of
            the frame's size.
    """

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        index = results['frame_ids'][results['key_frame_flags'].index(True)]
        masks = read_puppet_mask(results['mask_path'], where)
        if index >= masks.shape[2]:
            raise UserError(
                f"mask {results['mask_path']} ({where}): expected a 'part_mask' of frame {index + 1}, counted from 1, found "
                f'{masks.shape[2]} frames'
            )
        mask = (masks[None, :, :, index] != 0).astype(np.uint8)
        _check_size(mask, results, where)
        results['gt_rles'] = _encode(mask)
        return results


def read_puppet_mask(path: str, where: str) -> np.ndarray:
    """The field ``part_mask`` of a JHMDB ``puppet_mask.mat``: uint8 (H, W, T), the person in T frames.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no MATLAB file or has no such field.
    """
    return _of_mat(path, where, scipy.io.loadmat)


def puppet_mask_length(path: str, where: str) -> int:
    """T of `read_puppet_mask`, without unpacking the masks."""
    return puppet_mask_shape(path, where)[2]


def puppet_mask_shape(path: str, where: str) -> tuple[int, int, int]:
    """(H, W, T) of `read_puppet_mask`, without unpacking the masks."""
    return _of_mat(path, where, lambda file: {name: np.empty(shape) for name, shape, _ in scipy.io.whosmat(file)}).shape


def _of_mat(path: str, where: str, read: Any) -> np.ndarray:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'mask {path} is missing ({where})')
    try:
        content = read(path)
    except (OSError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise UserError(f'mask {path} cannot be read ({where}): {error}') from None
    fields = {name: value.shape for name, value in content.items() if not name.startswith('__')}
    shape = fields.get('part_mask', ())
    if len(shape) == 2:  # MATLAB drops a last axis of length 1
        return content['part_mask'][:, :, None]
    if len(shape) != 3:
        raise UserError(f"mask {path} ({where}): expected the field 'part_mask' of shape (H, W, T), found {fields}")
    return content['part_mask']


def _check_size(masks: np.ndarray, results: dict, where: str) -> None:
    height, width = results['img'][0].shape[:2]
    if masks.shape[1:] != (height, width):
        raise UserError(
            f'annotation {results["mask_path"]} ({where}): expected masks of {width}x{height}, as the frames of '
            f'{results["img_path"][0]} are, found {masks.shape[2]}x{masks.shape[1]}'
        )


def _encode(masks: np.ndarray) -> list[dict]:
    return coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
