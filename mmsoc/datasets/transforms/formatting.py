from collections.abc import Sequence

import numpy as np
import torch
from mmdet.datasets.transforms import PackTrackInputs
from mmengine.structures import PixelData

from mmsoc.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackReferringInputs(PackTrackInputs):
    """Makes the model's sample of a clip: ``dict(inputs=uint8 tensor (T, 3, H, W), data_samples=TrackDataSample)``.

    The clip's metainfo gets ``CLIP_KEYS`` and ``SENTENCE_KEYS``; each frame's gets the usual keys and ``video_id``. If
    masks were loaded, each frame's ``gt_instances`` holds the object of each sentence: ``masks``, ``bboxes``,
    ``labels`` and ``visible`` (bool (E,): the mask, as the model gets it, is not empty). With `LoadCategoryMaps` each
    frame also gets ``gt_sem_seg``, uint8 (1, H, W), or (2, H, W) with its ``events``.

    Args:
        drop_unseen: for training: if masks were loaded, drop sentences whose object appears in no frame of the clip.
            For a clip with no sentence left the result is None, and the data set draws another item. A test pipeline
            that loads masks needs False, which keeps every sentence. Without masks nothing is dropped.
        meta_keys: further keys for the metainfo of each frame.
    """

    CLIP_KEYS = ('video_id', 'frames', 'mask_paths')
    SENTENCE_KEYS = ('texts', 'exp_ids', 'obj_ids', 'families', 'held_out', 'gt_rles')
    """Keys with an entry per sentence, both packed and filtered."""
    OPTIONAL_KEYS = ('families', 'held_out', 'gt_rles')
    """Not packed if the item lacks them."""
    FRAME_META_KEYS = ('img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction', 'frame_id')

    def __init__(self, *, drop_unseen: bool = True, meta_keys: Sequence[str] = ()) -> None:
        super().__init__(default_meta_keys=self.FRAME_META_KEYS + tuple(meta_keys))
        self.drop_unseen = drop_unseen

    def transform(self, results: dict) -> dict | None:  # type: ignore[override]
        results['frame_id'] = results['frame_ids']
        results['img_id'] = results['frame_ids']  # the parent counts frames by it
        has_masks = 'gt_masks' in results
        if has_masks and self.drop_unseen:
            seen = np.any([masks.masks.any((1, 2)) for masks in results['gt_masks']], axis=0)
            if not seen.any():
                return None
            self._keep_sentences(results, np.flatnonzero(seen))
        packed = super().transform(results)
        packed['inputs'] = packed['inputs'].contiguous()
        sample = packed['data_samples']
        keys = [*self.CLIP_KEYS, *self.SENTENCE_KEYS]
        absent = [key for key in self.OPTIONAL_KEYS if results.get(key) is None]
        sample.set_metainfo({key: results[key] for key in keys if key not in absent})
        for index, frame in enumerate(sample.video_data_samples):
            frame.set_metainfo(dict(video_id=results['video_id']))
            if has_masks:
                objects = frame.gt_instances
                objects.visible = torch.from_numpy(objects.masks.masks.any((1, 2)))
                # A flip moves a box of zeros to [w, 0, w, 0]; the released code leaves it there, and it enters the box
                # losses.
                objects.bboxes[~objects.visible] = 0
            if 'gt_seg_map' in results:
                maps = torch.from_numpy(results['gt_seg_map'][index].copy())
                frame.gt_sem_seg = PixelData(sem_seg=maps[None] if maps.dim() == 2 else maps.permute(2, 0, 1))
        return packed

    def _keep_sentences(self, results: dict, kept: np.ndarray) -> None:
        """Drops all sentences but those at the indices ``kept``."""
        for key in self.SENTENCE_KEYS:
            if results.get(key) is not None:
                results[key] = [results[key][i] for i in kept]
        for key in self.mapping_table:  # from which the parent makes gt_instances
            if key in results:
                results[key] = [of_frame[kept] for of_frame in results[key]]
