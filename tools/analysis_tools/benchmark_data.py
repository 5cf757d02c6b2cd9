"""Speed of reading and scoring data: mmsoc and a naive implementation, on the same data and in one run.

    python tools/analysis_tools/benchmark_data.py                                    # all parts, on generated data
    python tools/analysis_tools/benchmark_data.py --parts jf --davis-root data/ref-davis
    python tools/analysis_tools/benchmark_data.py --parts startup scan --out figures.json

Parts:

    jf       J and F of two sequences of 854x480: mmsoc.evaluation beside boundary maps and dilations of whole frames
    a2d      a clip of 8 frames from a video of 300: LoadVideoWindow beside decoding the whole file
    startup  Ref-YouTube-VOS train, in its full size, with a meta.json that lists frames: how long the data set takes to load
    scan     the same without that list: how fast masks of 1280x720 are looked through, and the next start
    h5       A2D-Sentences: how fast the annotations are looked through at the start

If there are two implementations, their results are compared; a difference ends the run with exit code 1. "Expected" is
mmsoc's target on an idle machine; a miss is marked, but is not an error. Times are the minimum of --runs. OpenCV runs
in one thread, as in training processes.
"""

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc
sys.path.append(str(Path(__file__).resolve().parent))

import av
import cv2
import h5py
import numpy as np
from benchmark import cpu_name
from mmengine.logging import MMLogger
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmsoc.datasets import A2DSentencesDataset, RefYouTubeVOSDataset
from mmsoc.datasets.a2d_sentences import key_frame_flags, window
from mmsoc.datasets.object_frames import object_frames
from mmsoc.datasets.ref_youtube_vos import YOUTUBE_VOS_CATEGORIES
from mmsoc.datasets.transforms import LoadVideoWindow
from mmsoc.evaluation import boundary_f, region_similarity
from mmsoc.preparation.moving_shapes.writer import PALETTE
from mmsoc.utils.errors import user_errors
from mmsoc.utils.files import dump_json, load_json, read_ids
from mmsoc.visualization import VideoWriter

NUM_FRAMES = 8  # of a clip


def least_time(function: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Seconds of the fastest run, and the last one's result."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def row(
    part: str, what: str, value: float, unit: str, at_least: float | None = None, below: float | None = None
) -> dict:
    """A row of the table. ``at_least`` and ``below`` are the expected bounds."""
    expected = f'at least {at_least:g}' if at_least is not None else f'below {below:g}' if below is not None else ''
    short = (at_least is not None and value < at_least) or (below is not None and value >= below)
    return dict(part=part, what=what, value=value, unit=unit, expected=expected, short=short)


# --- naive J and F: the steps of the definition, each on whole frames


def plain_j(gt: np.ndarray, pred: np.ndarray) -> float:
    union = np.sum(gt | pred)
    return 1.0 if union == 0 else float(np.sum(gt & pred) / union)


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    right, lower, diagonal = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1], lower[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ lower) | (mask ^ diagonal)
    boundary[-1] = mask[-1] ^ right[-1]
    boundary[:, -1] = mask[:, -1] ^ lower[:, -1]
    boundary[-1, -1] = False
    return boundary.astype(np.uint8)


def plain_f(gt: np.ndarray, pred: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.hypot(*gt.shape))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    gt_boundary, pred_boundary = plain_boundary(gt), plain_boundary(pred)
    near_gt, near_pred = cv2.dilate(gt_boundary, disk), cv2.dilate(pred_boundary, disk)
    num_gt, num_pred = int(gt_boundary.sum()), int(pred_boundary.sum())
    if not num_gt or not num_pred:
        return float(num_gt == num_pred)
    precision = int((pred_boundary & near_gt).sum()) / num_pred
    recall = int((gt_boundary & near_pred).sum()) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def blobs(rng: np.random.Generator, size: tuple[int, int], number: int, length: int) -> list[np.ndarray]:
    """Id maps, uint8 (H, W) each, of moving objects with rough outlines, of the size of objects in DAVIS."""
    height, width = size
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = rng.uniform(0.07, 0.17, number) * math.hypot(*size)
    outline = radius[:, None] * (
        1 + 0.25 * np.sin(angles * rng.integers(2, 6, (number, 1))) + rng.normal(0, 0.03, (number, 60))
    )
    place, step = rng.uniform(0.3, 0.7, (number, 2)) * (width, height), rng.normal(0, 0.004, (number, 2)) * width
    frames = []
    for t in range(length):
        ids = np.zeros(size, np.uint8)
        for i in range(number):
            points = np.stack([np.cos(angles), 0.7 * np.sin(angles)], 1) * outline[i, :, None] + place[i] + t * step[i]
            cv2.fillPoly(ids, [points.round().astype(np.int32)], i + 1)
        frames.append(ids)
    return frames


def sequences(davis_root: str | None, size: tuple[int, int], length: int) -> dict[str, list[np.ndarray]]:
    """The id maps of two videos.

    Raises:
        FileNotFoundError: davis_root has none.
    """
    if davis_root is None:
        rng = np.random.default_rng(0)
        return {f'made {i}': blobs(rng, size, i, length) for i in (1, 2)}
    masks = Path(davis_root) / 'valid/Annotations'
    folders = sorted(path for path in masks.iterdir() if path.is_dir())[:2] if masks.is_dir() else []
    if not folders:
        raise FileNotFoundError(f'--davis-root: expected masks {masks}/<video>/<frame>.png, found none')
    return {folder.name: [read_ids(path) for path in sorted(folder.glob('*.png'))] for folder in folders}


def benchmark_jf(args: argparse.Namespace, folder: Path) -> list[dict]:
    """A prediction is the mask shifted by some pixels, in some frames without its lower part."""
    videos = sequences(args.davis_root, args.mask_size, args.length)
    pairs = []
    for frames in videos.values():
        objects = sorted(set(np.unique(frames[0]).tolist()) - {0, 255})
        for t, ids in enumerate(frames):
            for i in objects:
                gt = ids == i
                pred = np.roll(gt, (t % 7 - 3, 5 - t % 11), (0, 1))
                if t % 4 == 3:
                    pred[gt.shape[0] // 2 :] = False
                pairs.append((gt, pred))
    plain, expected = least_time(lambda: [(plain_j(*pair), plain_f(*pair)) for pair in pairs], args.runs)
    ours, found = least_time(lambda: [(region_similarity(*pair), boundary_f(*pair)) for pair in pairs], args.runs)
    if expected != found:
        raise SystemExit(f'jf: the two ways differ by {np.abs(np.subtract(expected, found)).max():.3g}')
    name = f'{len(pairs)} masks of {", ".join(videos)}, {pairs[0][0].shape[1]}x{pairs[0][0].shape[0]}'
    return [
        row('jf', f'plain: {name}', plain, 's'),
        row('jf', 'mmsoc.evaluation, identical values', ours, 's'),
        row('jf', 'faster', plain / ours, 'x', at_least=4),
    ]


# --- A2D


def write_video(path: Path, length: int, size: tuple[int, int]) -> None:
    """H.264 as libx264 writes it by default: a camera that moves over a landscape."""
    height, width = size
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (height // 8, (width + length) // 8 + 1, 3)).astype(np.uint8)
    landscape = cv2.resize(ground, (width + length, height), interpolation=cv2.INTER_CUBIC)
    with VideoWriter(path, fps=25, crf=23) as video:
        for t in range(length):
            video.write(landscape[:, t : t + width])


def benchmark_a2d(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Mean over five annotated frames, from the first to the last one."""
    path = folder / 'video.mp4'
    write_video(path, args.video_length, args.video_size)
    load = LoadVideoWindow()

    def with_window(center: int) -> list[np.ndarray]:
        sample = dict(video_id='video', texts=['a text'], video_path=str(path), frame_ids=window(center, NUM_FRAMES))
        return load(dict(sample, key_frame_flags=key_frame_flags(NUM_FRAMES)))['img']

    def whole(center: int) -> list[np.ndarray]:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
        return [frames[min(index, len(frames) - 1)] for index in window(center, NUM_FRAMES)]

    plain = ours = 0.0
    centers = np.linspace(0, args.video_length - 1, 5).astype(int).tolist()
    for center in centers:
        seconds, expected = least_time(lambda: whole(center), args.runs)  # noqa: B023
        plain += seconds / len(centers)
        seconds, found = least_time(lambda: with_window(center), args.runs)  # noqa: B023
        ours += seconds / len(centers)
        if len(expected) != len(found) or not all(map(np.array_equal, expected, found)):
            raise SystemExit(f'a2d: the two ways differ in the clip around frame {center}')
    name = f'{args.video_length} frames of {args.video_size[1]}x{args.video_size[0]}, libx264'
    return [
        row('a2d', f'whole file: {name}', plain * 1000, 'ms'),
        row('a2d', f'LoadVideoWindow, the same {NUM_FRAMES} frames', ours * 1000, 'ms'),
        row('a2d', 'faster', plain / ours, 'x', at_least=5),
    ]


def benchmark_h5(args: argparse.Namespace, folder: Path) -> list[dict]:
    """Four annotations of a 568x320 video with two actors."""
    root = folder / 'a2d'
    (root / 'Release/clips320H').mkdir(parents=True)
    masks = np.stack([blobs(np.random.default_rng(i), (320, 568), 1, 1)[0].T for i in range(2)])
    videoset, sentences = [], ['video_id,instance_id,query']
    for i in range(args.h5_videos):
        video = f'v{i:05d}'
        (root / f'Release/clips320H/{video}.mp4').touch()
        annotations = root / f'text_annotations/a2d_annotation_with_instances/{video}'
        annotations.mkdir(parents=True)
        for number in (1, 30, 60, 90):
            with h5py.File(annotations / f'{number:05d}.h5', 'w') as file:
                file['instance'] = np.arange(2.0)
                file.create_dataset('reMask', data=masks, compression='gzip')
        videoset.append(f'{video},11,0:00:01,0:00:04,320,568,120,4,0')
        sentences += [f'{video},{instance},an actor' for instance in range(2)]
    (root / 'Release/videoset.csv').write_text('\n'.join(videoset))
    (root / 'text_annotations/a2d_annotation.txt').write_text('\n'.join(sentences))
    (root / 'text_annotations/a2d_missed_videos.txt').write_text('')
    seconds, dataset = least_time(lambda: A2DSentencesDataset(data_root=str(root), subset='train'), 1)
    if len(dataset) != 8 * args.h5_videos:
        raise SystemExit(f'h5: expected {8 * args.h5_videos} samples, found {len(dataset)}')
    rate = 4 * args.h5_videos / seconds
    return [
        row('h5', f'A2D-Sentences, start with {args.h5_videos} videos of 4 annotations', seconds, 's'),
        row('h5', 'annotations looked through', rate, '1/s'),
        row('h5', 'so 3,754 videos would take', 4 * 3754 / rate, 's', below=60),
    ]


# --- Ref-YouTube-VOS


def write_youtube_vos(
    root: Path, videos: int, expressions: int, masks: int, with_frames: bool, write: Callable
) -> None:
    """Its train split: JSON files and folders in the published layout, each file written by ``write(path)``."""
    draw = random.Random(0)
    lengths = [masks // videos + (i < masks % videos) for i in range(videos)]
    counts = [expressions // videos + (i < expressions % videos) for i in range(videos)]
    records, meta = {}, {}
    for i in range(videos):
        video = f'{draw.getrandbits(40):010x}'
        frames = [f'{5 * t:05d}' for t in range(lengths[i])]
        objects = {}
        for j in range(1, counts[i] // 2 + 2):
            objects[str(j)] = dict(category=draw.choice(YOUTUBE_VOS_CATEGORIES)) | (
                dict(frames=frames) if with_frames else {}
            )
        records[video] = dict(
            expressions={
                str(j): dict(exp=f'the object number {j} that is somewhere in the video', obj_id=str(j // 2 + 1))
                for j in range(counts[i])
            },
            frames=frames,
        )
        meta[video] = dict(objects=objects)
        for kind, suffix in (('JPEGImages', 'jpg'), ('Annotations', 'png')):
            folder = root / 'train' / kind / video
            folder.mkdir(parents=True)
            for frame in frames:
                write(f'{folder}/{frame}.{suffix}')
    dump_json(dict(videos=records), root / 'meta_expressions/train/meta_expressions.json')
    dump_json(dict(videos=meta), root / 'train/meta.json')


def load_youtube_vos(root: Path, videos: int) -> RefYouTubeVOSDataset:
    return RefYouTubeVOSDataset(
        data_root=str(root),
        ann_file='meta_expressions/train/meta_expressions.json',
        meta_file='train/meta.json',
        expected_videos=videos,
        clip_sampler=dict(type='mmsoc.WindowClipSampler', num_frames=NUM_FRAMES),
        cache_dir=str(root / 'cache'),
    )


def benchmark_startup(args: argparse.Namespace, folder: Path) -> list[dict]:
    root = folder / 'startup'
    videos, expressions, masks = args.startup_size
    # No content is read, so empty files suffice.
    write_youtube_vos(root, videos, expressions, masks, True, lambda path: os.close(os.open(path, os.O_CREAT)))
    seconds, dataset = least_time(lambda: load_youtube_vos(root, videos), args.runs)
    name = f'{videos} videos, {expressions} expressions, {masks} masks, {len(dataset)} samples'
    return [row('startup', f'Ref-YouTube-VOS train, meta.json lists frames: {name}', seconds, 's', below=5)]


def benchmark_scan(args: argparse.Namespace, folder: Path) -> list[dict]:
    root = folder / 'scan'
    images = blobs(np.random.default_rng(0), args.scan_size, 3, 20)
    count = 0

    def write(path: str) -> None:
        nonlocal count
        if path.endswith('.png'):
            image = Image.fromarray(images[count % len(images)])
            image.putpalette(PALETTE)
            image.save(path)
            count += 1
        else:
            Path(path).touch()

    videos = max(args.scan_masks // 27, 1)
    write_youtube_vos(root, videos, 2 * videos, args.scan_masks, False, write)
    records = load_json(root / 'meta_expressions/train/meta_expressions.json', 'expressions')['videos']
    frames = {video: record['frames'] for video, record in records.items()}

    def scan() -> dict:
        return object_frames(str(root / 'train/Annotations'), frames, str(root / 'cache'))

    first, found = least_time(scan, 1)
    _, kept = least_time(scan, 1)
    if found != kept:
        raise SystemExit('scan: the cached result differs from the scanned one')
    second, _ = least_time(lambda: load_youtube_vos(root, videos), args.runs)
    rate = args.scan_masks / first
    return [
        row(
            'scan', f'masks of {args.scan_size[1]}x{args.scan_size[0]} looked through ({args.scan_masks})', rate, '1/s'
        ),
        row('scan', 'so 93,000 masks would take', 93000 / rate, 's'),
        row('scan', f'the data set with what was kept ({videos} videos)', second, 's'),
    ]


PARTS = dict(jf=benchmark_jf, a2d=benchmark_a2d, startup=benchmark_startup, scan=benchmark_scan, h5=benchmark_h5)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=list(PARTS), help='default: all')
    parser.add_argument(
        '--davis-root', help='take the masks of two videos from here (Ref-DAVIS17, converted) in the part jf'
    )
    parser.add_argument(
        '--work-dir', help='make the data in a temporary folder in here (default: where the system has them)'
    )
    parser.add_argument('--runs', type=int, default=3, help='of which the fastest counts (default: %(default)s)')
    parser.add_argument('--out', metavar='JSON', help='write the figures to this file as well')
    sizes = parser.add_argument_group('sizes')

    def size(option: str, default: tuple[int, ...], names: tuple[str, ...], text: str) -> None:
        shown = ' '.join(map(str, default))
        sizes.add_argument(
            option, type=int, nargs=len(names), default=default, metavar=names, help=f'{text} (default: {shown})'
        )

    size('--mask-size', (480, 854), ('H', 'W'), 'of the masks that jf makes')
    sizes.add_argument('--length', type=int, default=50, help='of the videos that jf makes (default: %(default)s)')
    sizes.add_argument('--video-length', type=int, default=300, help='of the video of a2d (default: %(default)s)')
    size('--video-size', (320, 568), ('H', 'W'), 'of the video of a2d')
    size('--startup-size', (3471, 12913, 93000), ('VIDEOS', 'EXPRESSIONS', 'MASKS'), 'of the set of startup')
    sizes.add_argument('--scan-masks', type=int, default=324, help='(default: %(default)s)')
    size('--scan-size', (720, 1280), ('H', 'W'), 'of the masks of scan')
    sizes.add_argument('--h5-videos', type=int, default=300, help='(default: %(default)s)')
    args = parser.parse_args()
    numbers = [args.runs, args.length, args.video_length, args.scan_masks, args.h5_videos]
    if min(*numbers, *args.mask_size, *args.video_size, *args.startup_size, *args.scan_size) < 1:
        parser.error('all numbers must be at least 1')
    if min(args.startup_size[1:]) < args.startup_size[0]:
        parser.error('--startup-size: every video needs an expression and a mask')
    return args


def main() -> None:
    args = parse_args()
    cv2.setNumThreads(0)
    rows = []
    for part in args.parts:
        with user_errors(), tempfile.TemporaryDirectory(prefix='benchmark_data_', dir=args.work_dir) as folder:
            rows += PARTS[part](args, Path(folder))
    table = Table(title=f'{cpu_name()}; the least of {args.runs} runs')
    for name in ('part', 'what', 'value', 'expected'):
        table.add_column(name, justify='right' if name == 'value' else 'left', overflow='fold')
    for i, line in enumerate(rows):
        if i and line['part'] != rows[i - 1]['part']:
            table.add_section()
        table.add_row(
            line['part'],
            line['what'],
            f'{line["value"]:.4g} {line["unit"]}',
            line['expected'] + (' - falls short' if line['short'] else ''),
        )
    Console(width=120).print(table)
    if args.out:
        dump_json(dict(machine=cpu_name(), runs=args.runs, rows=rows), args.out, indent=1)


if __name__ == '__main__':
    MMLogger.get_instance('mmengine', log_level='ERROR')  # hides the data sets' messages
    main()
