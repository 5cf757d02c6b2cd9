"""Writes small data sets in the layouts of A2D-Sentences and JHMDB-Sentences."""

import json
from pathlib import Path

import av
import h5py
import numpy as np
import scipy.io
from PIL import Image

SIZE = (48, 64)

# Per video: subset (0 train, 1 test), number of frames, {annotated frame, counted from 1: its instances}, sentences.
A2D = {
    '-a_train': dict(
        subset=0,
        length=12,
        frames={1: [0], 6: [1, 0], 12: [0]},
        sentences=[('0', ' The  Red\tbird '), ('1', 'on the left')],
    ),
    'b_test': dict(
        subset=1,
        length=9,
        frames={5: [0, 2], 9: [2]},
        sentences=[('0', 'first'), ('1 (copy)', 'a bird'), ('2', 'Second one')],
    ),
    'c_test': dict(subset=1, length=5, frames={2: [0]}, sentences=[('0', 'a dog')]),
}
JHMDB = {
    'first_video': dict(action='pullup', frames=6, masks=5, sentence='Man in black'),
    'second_video': dict(action='run', frames=4, masks=4, sentence='a  runner'),
}


def box(instance, size=SIZE):
    """rows and columns of an instance's rectangle: 20 x 12 (width x height)."""
    top, left = 4 + 10 * instance, 6 + 12 * instance
    return slice(top, top + 12), slice(left, left + 20)


def mask_of(instance, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[box(instance)] = 1
    return mask


def grey(index):
    """The grey value of the frame with this 0-based index, which tells it from all others."""
    return 20 + 15 * index


def frame(index, instances=(0,), size=SIZE):
    pixels = np.full((*size, 3), grey(index), np.uint8)
    for instance in instances:
        pixels[box(instance)] = (230, 40 * instance, 30)
    return pixels


def write_mp4(path, length, size=SIZE, instances=(0,)):
    """Groups of 4 frames, with frames that refer to later ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 4
        stream.codec_context.max_b_frames = 2
        for index in range(length):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(index, instances, size), format='rgb24')))
        container.mux(stream.encode(None))


def write_h5(path, instances, masks):
    """As MATLAB does: the axes in reverse, and none of length 1 for the instances."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = np.array(
        [[m.nonzero()[1].min(), m.nonzero()[0].min(), m.nonzero()[1].max(), m.nonzero()[0].max()] for m in masks]
    )
    re_mask = np.stack(masks).transpose(0, 2, 1)
    with h5py.File(path, 'w') as file:
        file['instance'] = np.array(instances, np.float64)
        file['reMask'] = re_mask[0] if len(instances) == 1 else re_mask
        file['reBBox'] = boxes[0] if len(instances) == 1 else boxes.T


def write_a2d(root, videos=None):
    """Returns ``root / 'a2d_sentences'``; ``gone`` is a video without sentences, listed as missed and not on the disk."""
    root = Path(root) / 'a2d_sentences'
    videos = A2D if videos is None else videos
    videoset = ['gone,21,0:00:01,0:00:04,320,570,90,3,0']
    sentences = ['video_id,instance_id,query', 'gone,0,nobody sees it']
    for video, record in videos.items():
        seen = sorted({instance for ids in record['frames'].values() for instance in ids})
        write_mp4(root / f'Release/clips320H/{video}.mp4', record['length'], instances=seen)
        for number, ids in record['frames'].items():
            path = root / f'text_annotations/a2d_annotation_with_instances/{video}/{number:05d}.h5'
            write_h5(path, ids, [mask_of(instance) for instance in ids])
        videoset.append(
            f'{video},11,0:00:01,0:00:04,320,570,{record["length"]},{len(record["frames"])},{record["subset"]}'
        )
        sentences += [f'{video},{instance},{text}' for instance, text in record['sentences']]
    (root / 'Release/videoset.csv').write_text('\n'.join(videoset) + '\n')
    (root / 'text_annotations/a2d_annotation.txt').write_text('\n'.join(sentences) + '\n')
    (root / 'text_annotations/a2d_missed_videos.txt').write_text('gone\n')
    return root


def write_jhmdb(root, videos=None, samples=None):
    """Returns ``root / 'jhmdb_sentences'``; ``samples``: [(video, frame)] of the list samples.json."""
    root = Path(root) / 'jhmdb_sentences'
    videos = JHMDB if videos is None else videos
    lines = ['video_id,query']
    for video, record in videos.items():
        folder = root / 'Rename_Images' / record['action'] / video
        folder.mkdir(parents=True)
        for index in range(record['frames']):
            Image.fromarray(frame(index)).save(folder / f'{index + 1:05d}.png')
        path = root / 'puppet_mask' / record['action'] / video / 'puppet_mask.mat'
        path.parent.mkdir(parents=True)
        # The person moves a pixel to the right in each frame.
        masks = np.stack([np.roll(mask_of(0), t, axis=1) for t in range(record['masks'])], axis=2)
        scipy.io.savemat(path, dict(part_mask=masks))
        lines.append(f'{video},{record["sentence"]}')
    (root / 'jhmdb_annotation.txt').write_text('\n'.join(lines) + '\n')
    if samples is not None:
        rows = []
        for video, number in samples:
            record = videos[video]
            below = f'{record["action"]}/{video}'
            rows.append(
                [
                    video,
                    f'./jhmdb_sentences/Rename_Images/{below}/{number:05d}.png',
                    f'./jhmdb_sentences/puppet_mask/{below}/puppet_mask.mat',
                    record['masks'],
                    record['sentence'],
                ]
            )
        (root / 'samples.json').write_text(json.dumps(rows))
    return root
