"""Writes a set in the layout of Ref-YouTube-VOS, atomically."""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from mmsoc.preparation.folders import atomic_folder, locked
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, load_json

from .families import draw_scene
from .render import Video, render
from .scene import FAMILIES, Scene, Settings

VERSION = 1  # increase when the same parameters give another set
MANIFEST = 'moving_shapes.json'
_MIN_PIXELS = 20
_SPLITS = ('train', 'valid')


def draw_video(settings: Settings, split: str, index: int) -> tuple[Scene, Video]:
    """Video ``index`` of a split; depends only on the settings, the split and the index.

    Every object shows at least 20 pixels in at least half of the frames. (Objects of change and order always do, so
    nothing is rejected there.)
    """
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(_SPLITS.index(split), index)))
    family = FAMILIES[index % 4]
    # Two of three scenes are held out in change, where only one sentence per scene is: a third of the sentences of each
    # family.
    held_out = split == 'valid' and index // 4 % 3 < (2 if family == 'change' else 1)
    while True:
        scene = draw_scene(rng, settings, family, held_out)
        video = render(rng, settings, scene)
        areas = pixel_counts(video.ids, len(scene.things))
        if ((areas >= _MIN_PIXELS).mean(1) >= 0.5).all():
            return scene, video


def pixel_counts(ids: np.ndarray, number: int) -> np.ndarray:
    """Visible pixels of objects 1 .. number: int (number, T)."""
    return np.array([[np.count_nonzero(frame == i) for frame in ids] for i in range(1, number + 1)])


def generate(
    out: str | Path,
    settings: Settings,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Writes the set, unless it exists.

    It is written to a hidden folder beside ``out``, which is renamed at the end. The next run removes leftovers of an
    interrupted one.

    Args:
        workers: number of processes; the set does not depend on it. Default: the cores available to this process.
        progress: called with the number of finished videos and the total.

    Returns:
        Whether it was written: False if ``out`` already held the set.

    Raises:
        UserError: ``out`` holds a set with other parameters or anything else, or another process is writing to it.
        OSError: it cannot be written; ``out`` is unchanged.
    """
    out = Path(out).absolute()
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise UserError(f'MovingShapes: workers must be at least 1, found {workers}')
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out, 'MovingShapes'):
        if _is_complete(out, settings):
            return False
        try:
            with atomic_folder(out) as folder:
                _write_set(folder, settings, workers, progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                error.errno,
                f'MovingShapes: the disk is full ({out}); what had been written was removed again. Make room, or write '
                'elsewhere',
            ) from error
    return True


class TenthLines:
    """A ``progress`` for `generate` that prints a line to stderr after each tenth of the videos."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.tenths = 0

    def __call__(self, done: int, total: int) -> None:
        if done * 10 // total > self.tenths:
            self.tenths = done * 10 // total
            left = (time.monotonic() - self.start) / done * (total - done)
            print(f'MovingShapes: {done} of {total} videos, about {left:.0f} s left', file=sys.stderr, flush=True)


def _is_complete(out: Path, settings: Settings) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise UserError(f'MovingShapes: {out} exists and is no MovingShapes set (it has no {MANIFEST}); name another')
    found = load_json(manifest, MANIFEST)
    expected = dict(version=VERSION, **asdict(settings))
    found = dict(version=found.get('version'), **found.get('parameters', {}))
    differing = [
        f'{name} {found.get(name)!r} instead of {expected.get(name)!r}'
        for name in expected | found
        if found.get(name) != expected.get(name)
    ]
    if differing:
        raise UserError(
            f'MovingShapes: {out} holds a set with other parameters: {", ".join(differing)}. Remove it, or write '
            'elsewhere'
        )
    return True


def _write_set(folder: Path, settings: Settings, workers: int, progress: Callable[[int, int], None] | None) -> None:
    tasks = [('train', i) for i in range(settings.train_videos)] + [('valid', i) for i in range(settings.valid_videos)]
    records: dict[str, list[dict]] = dict(train=[], valid=[])
    for done, (task, record) in enumerate(zip(tasks, _map(partial(_make_video, folder, settings), tasks, workers)), 1):
        records[task[0]].append(record)
        if progress is not None:
            progress(done, len(tasks))
    counts = {}
    for split, videos in records.items():
        names = [video_name(split, i) for i in range(len(videos))]
        expressions = folder / 'meta_expressions' / split / 'meta_expressions.json'
        dump_json(dict(videos=dict(zip(names, (video['expressions'] for video in videos)))), expressions)
        dump_json(
            dict(videos=dict(zip(names, (dict(objects=v['objects']) for v in videos)))), folder / split / 'meta.json'
        )
        claims = [claim for video in videos for claim in video['expressions']['expressions'].values()]
        counts[split] = {family: sum(claim['family'] == family for claim in claims) for family in FAMILIES}
        counts[split]['held_out'] = sum(claim['held_out'] for claim in claims)
    dump_json(dict(version=VERSION, parameters=asdict(settings), sentences=counts), folder / MANIFEST, indent=1)


def _map(function: Callable, tasks: Sequence, workers: int) -> Iterator:
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        yield from pool.map(function, tasks, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    cv2.setNumThreads(0)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def video_name(split: str, index: int) -> str:
    return f'{split}{index:05d}'


def _make_video(folder: Path, settings: Settings, task: tuple[str, int]) -> dict[str, Any]:
    split, index = task
    scene, video = draw_video(settings, split, index)
    frames = [f'{t:05d}' for t in range(settings.num_frames)]
    _write_video(folder / split, video_name(split, index), frames, video)
    areas = pixel_counts(video.ids, len(scene.things))
    objects = {
        str(i): dict(category=thing.shape, frames=[name for name, area in zip(frames, areas[i - 1]) if area])
        for i, thing in enumerate(scene.things, 1)
    }
    expressions = {
        str(i): dict(
            exp=claim.text,
            obj_id=str(scene.things.index(claim.target) + 1),
            family=scene.family,
            held_out=claim.held_out,
            event=claim.event,
            **({} if scene.event_at is None else dict(event_at=scene.event_at)),
        )
        for i, claim in enumerate(scene.expressions)
    }
    return dict(objects=objects, expressions=dict(frames=frames, expressions=expressions))


def _write_video(folder: Path, name: str, frames: Sequence[str], video: Video) -> None:
    for kind in ('JPEGImages', 'Annotations'):
        (folder / kind / name).mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(video.frames[t]).save(folder / 'JPEGImages' / name / f'{frame}.jpg', quality=95, subsampling=0)
        ids = Image.fromarray(video.ids[t])
        ids.putpalette(PALETTE)
        ids.save(folder / 'Annotations' / name / f'{frame}.png')


# of DAVIS; no scene has more objects
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128]
