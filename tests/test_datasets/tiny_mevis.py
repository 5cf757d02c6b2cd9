"""Writes small data sets in the layout of MeViS."""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from tests.test_datasets.tiny_ref_youtube_vos import write_frame, write_json

SIZE = (24, 40)

# Per video: {anno_id: in which frames it is there}, sentences with the anno_id that they name.
# a: 3 is always there, 7 only in the last two frames.  b: 11 is absent in frame 1.  c has one frame.
VIDEOS = {
    'a': dict(
        annotations={3: [True] * 10, 7: [False] * 8 + [True] * 2},
        sentences=[(' The  Bright left\tBox ', [3]), ('the late one', [7]), ('both of them', [7, 3])],
    ),
    'b': dict(annotations={11: [True, False, True]}, sentences=[('a small thing on the right', [11])]),
    'c': dict(annotations={12: [True]}, sentences=[('a picture', [12])]),
}


def encode(mask):
    """As in mask_dict.json."""
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(code['size']), counts=code['counts'].decode())


def box_of(number, t):
    """Rows and columns of the number-th annotation (from 0) of a video in frame t: 6x4 (width x height), moving right."""
    return slice(3, 7), slice(2 + 10 * number + t, 8 + 10 * number + t)


def mask_of(number, t, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[box_of(number, t)] = 1
    return mask


def write_split(root, split, videos, size=SIZE, masks=None, public=True):
    """Writes one split and returns ``root``.

    Args:
        masks: ``{anno_id: [mask or None per frame]}`` in place of the rectangles.
        public: with obj_id, anno_id and mask_dict.json.
    """
    root = Path(root)
    expressions, mask_dict = {}, {}
    for video, record in videos.items():
        length = len(next(iter(record['annotations'].values())))
        for t in range(length):
            pixels = np.random.default_rng(t).integers(0, 255, (*size, 3))
            write_frame(root / split / 'JPEGImages' / video / f'{t:05d}.jpg', pixels)
        numbers = {anno_id: number for number, anno_id in enumerate(record['annotations'])}
        for anno_id, there in record['annotations'].items():
            drawn = [mask_of(numbers[anno_id], t, size) if seen else None for t, seen in enumerate(there)]
            drawn = drawn if masks is None else masks[anno_id]
            mask_dict[str(anno_id)] = [None if mask is None else encode(mask) for mask in drawn]
        expressions[video] = dict(
            frames=[f'{t:05d}' for t in range(length)],
            expressions={
                str(i): dict(exp=text, **(dict(obj_id=[numbers[a] for a in ids], anno_id=ids) if public else {}))
                for i, (text, ids) in enumerate(record['sentences'])
            },
        )
    write_json(root / split / 'meta_expressions.json', dict(videos=expressions))
    if public:
        (root / split / 'mask_dict.json').write_text(json.dumps(mask_dict))
    return root


def dataset_config(root, split='train', **changes):
    """Training for the split ``train``, else testing."""
    config = dict(
        type='mmsoc.MeViSDataset',
        data_root=str(root),
        ann_file=f'{split}/meta_expressions.json',
        mask_file=None if split == 'valid' else f'{split}/mask_dict.json',
        data_prefix=dict(img=f'{split}/JPEGImages'),
    )
    if split == 'train':
        config['clip_sampler'] = dict(type='WindowClipSampler', num_frames=4)
    else:
        config['test_mode'] = True
    return dict(config, **changes)
