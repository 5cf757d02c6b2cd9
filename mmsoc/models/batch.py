"""Network inputs from the data samples of a batch."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import TrackDataSample
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from mmsoc.structures import ClipTargets, names_of
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError


def key_frames(data_samples: Sequence[TrackDataSample], num_frames: int) -> Tensor | None:
    """(B, T') annotated frames of each clip, or None if all are."""
    kept = [list(getattr(sample, 'key_frames_inds', range(num_frames))) for sample in data_samples]
    if all(len(indices) == num_frames for indices in kept):
        return None
    if len(set(map(len, kept))) > 1:
        raise UserError(
            'the clips of a batch must have equally many annotated frames, found '
            f'{[len(indices) for indices in kept]} (key_frames_inds of {names_of(data_samples)})'
        )
    return torch.tensor(kept)


def pad_masks(
    sizes: Sequence[tuple[int, int]], padded: tuple[int, int], shapes: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, ...]:
    """(B, h, w) bool for each of ``shapes``, True where a clip of one of ``sizes`` was padded (nearest neighbour)."""
    rows, columns = (
        torch.arange(length) >= torch.tensor([size[axis] for size in sizes])[:, None]
        for axis, length in enumerate(padded)
    )
    masks = []
    for shape in shapes:
        of_rows, of_columns = (
            F.interpolate(mask[:, None].float(), size=length, mode='nearest')[:, 0].bool()
            for mask, length in zip((rows, columns), shape, strict=True)
        )
        masks.append(to_device(of_rows[:, :, None] | of_columns[:, None], device))
    return tuple(masks)


def targets_of(data_samples: Sequence[TrackDataSample], inputs: Tensor) -> ClipTargets:
    """The object of each sentence, in the order of `sentences_of`, in the annotated frames."""
    masks, boxes, sizes, visible, labels = [], [], [], [], []
    for sample in data_samples:
        frames = [sample[index] for index in getattr(sample, 'key_frames_inds', range(len(sample)))]
        instances = [frame.gt_instances for frame in frames]
        assert len(instances[0]) == len(sample.texts), f'{len(instances[0])} objects for {sample.texts}'
        masks.append(np.stack([item.masks.masks for item in instances], 1))
        height, width = frames[0].img_shape
        boxes.append(torch.stack([item.bboxes for item in instances], 1))
        sizes += [[[width, height, width, height]]] * len(sample.texts)
        visible.append(torch.stack([item.visible for item in instances], 1))
        labels.append(instances[0].labels)
    # Concatenated on the CPU, so that each moves to the device once; the masks as bytes.
    box = torch.cat(boxes)
    box = bbox_xyxy_to_cxcywh(box) / torch.tensor(sizes).to(box)
    mask, *others = (
        to_device(tensor, inputs.device)
        for tensor in (torch.from_numpy(np.concatenate(masks)), box, torch.cat(visible), torch.cat(labels))
    )
    return ClipTargets(mask.float(), *others)
