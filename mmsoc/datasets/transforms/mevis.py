"""The masks of MeViS: run-length codes, one or more per sentence."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from pycocotools import mask as coco_mask

from mmsoc.registry import TRANSFORMS
from mmsoc.utils.errors import UserError
from mmsoc.utils.masks import box_of_mask

from .loading import place_of


@TRANSFORMS.register_module()
class LoadMeViSMasks(BaseTransform):
    """Makes the union of the objects that each sentence names, from ``mask_rles`` (`mmsoc.datasets.MeViSDataset`).

    Args:
        evaluation: False: add the targets of training as ``LoadReferredMasks`` does, lists over frames: ``gt_masks``
            (BitmapMasks (E, H, W)), ``gt_bboxes`` (float32 (E, 4); zeros where all objects are absent) and
            ``gt_bboxes_labels`` (int64 (E,)). True: add ``gt_rles``, per sentence and frame a COCO run-length code at the
            original size, which `mmsoc.evaluation.JFMetric` compares with; nothing if the data set has no masks, which
            predictions do not need.

    Raises:
        ValueError: a mask and its frame differ in size, or there are no masks to train with.
    """

    def __init__(self, *, evaluation: bool = False) -> None:
        self.evaluation = evaluation

    def transform(self, results: dict) -> dict:
        where = place_of(results)
        if results['mask_rles'] is None:
            if self.evaluation:
                return results
            raise UserError(f'LoadMeViSMasks: there are no masks ({where}); mask_file of the data set names them')
        unions = []  # per frame, per sentence
        for frame, path, image in zip(results['frames'], results['img_path'], results['img'], strict=True):
            height, width = image.shape[:2]
            of_sentences = results['mask_rles'][frame]
            for code in (code for codes in of_sentences for code in codes):
                if code['size'] != [height, width]:
                    raise UserError(
                        f'mask of frame {frame} is {code["size"][1]}x{code["size"][0]}, but its frame {path} is '
                        f'{width}x{height} ({where})'
                    )
            empty = coco_mask.encode(np.zeros((height, width), np.uint8, order='F'))
            unions.append([coco_mask.merge(codes) if codes else empty for codes in of_sentences])
        if self.evaluation:
            results['gt_rles'] = [list(rles) for rles in zip(*unions, strict=True)]
            return results
        masks = [coco_mask.decode(of_sentences).transpose(2, 0, 1) for of_sentences in unions]
        results.update(
            gt_masks=[BitmapMasks(np.ascontiguousarray(of_frame), *of_frame.shape[1:]) for of_frame in masks],
            gt_bboxes=[np.stack([box_of_mask(mask) for mask in of_frame]) for of_frame in masks],
            gt_bboxes_labels=[np.array(results['labels'], np.int64) for _ in masks],
        )
        return results
