"""Writes a small data set in the layout of Ref-YouTube-VOS."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

PALETTE = [0, 0, 0, 236, 95, 103, 249, 145, 87, 250, 200, 99] + [0] * (256 * 3 - 12)


def write_mask(path, ids):
    """Writes object ids as a palette PNG whose colors are not the ids."""
    image = Image.fromarray(ids.astype(np.uint8), mode='P')
    image.putpalette(PALETTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_frame(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_split(root, split, videos, size=(24, 40), with_objects=True, masks=True, meta=True, meta_frames=False):
    """Writes one split.

    Args:
        videos: ``{video: dict(objects={obj_id: [bool per frame]}, sentences=[(text, obj_id)])}``. Object k is a 6x4
            (width x height) rectangle whose upper left corner in frame t is x = 10 k - 8 + t, y = 3.
        size: height, width of all frames.
    """
    root = Path(root)
    expressions, meta_content = {}, {}
    for video, record in videos.items():
        length = len(next(iter(record['objects'].values())))
        frames = [f'{5 * t:05d}' for t in range(length)]
        for t, frame in enumerate(frames):
            ids = np.zeros(size, np.uint8)
            for obj_id, present in record['objects'].items():
                if present[t]:
                    left = 10 * int(obj_id) - 8 + t
                    ids[3:7, left : left + 6] = int(obj_id)
            pixels = np.random.default_rng(t).integers(0, 255, (*size, 3))
            write_frame(root / split / 'JPEGImages' / video / f'{frame}.jpg', pixels)
            if masks:
                write_mask(root / split / 'Annotations' / video / f'{frame}.png', ids)
        expressions[video] = dict(
            frames=frames,
            expressions={
                str(i): dict(exp=text, obj_id=obj_id) if with_objects else dict(exp=text)
                for i, (text, obj_id) in enumerate(record['sentences'])
            },
        )
        meta_content[video] = dict(objects={})
        for obj_id, present in record['objects'].items():
            entry = dict(category='zebra' if obj_id == '1' else 'airplane')
            if meta_frames:
                entry['frames'] = [frame for frame, seen in zip(frames, present) if seen]
            meta_content[video]['objects'][obj_id] = entry
    write_json(root / 'meta_expressions' / split / 'meta_expressions.json', dict(videos=expressions))
    if meta:
        write_json(root / split / 'meta.json', dict(videos=meta_content))
    return root


# Video a: 10 frames; object 1 is always there, object 2 only in the last two. Video b: 3 frames, object 1 absent in
# frame 1.
VIDEOS = {
    'a': dict(
        objects={'1': [True] * 10, '2': [False] * 8 + [True] * 2},
        sentences=[(' The  Bright left\tBox ', '1'), ('second one', '2')],
    ),
    'b': dict(objects={'1': [True, False, True]}, sentences=[('a small thing on the right', '1')]),
}


def dataset_config(root, **changes):
    """A training config of the tiny data set (an override with ``None`` stays None)."""
    return dict(
        dict(
            data_root=str(root),
            ann_file='meta_expressions/train/meta_expressions.json',
            data_prefix=dict(img='train/JPEGImages', mask='train/Annotations'),
            clip_sampler=dict(type='WindowClipSampler', num_frames=4),
        ),
        **changes,
    )
