"""A2D-Sentences and JHMDB-Sentences."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mmsoc.datasets.a2d_sentences import SUBSETS, A2DSentencesDataset, read_lines, without_videoset_header
from mmsoc.datasets.jhmdb_sentences import JHMDBSentencesDataset, parse_sample
from mmsoc.datasets.transforms.video_loading import puppet_mask_shape, read_a2d_masks, read_puppet_mask, video_shape
from mmsoc.utils.files import listed
from mmsoc.utils.video import VideoError, VideoReader

from .check import Fault, Finding, RootCheck, by, check_file, image_sizes, listing, short


def check_a2d_sentences(check: RootCheck) -> None:
    texts = check.root / 'text_annotations'
    path = check.root / 'Release/videoset.csv'
    subsets: dict[str, str] = {}
    rows = without_videoset_header(check.rows(path, 'the videos and their subsets'))
    check.count('rows of videoset.csv', len(rows), 3782, path)
    for line, row in rows:
        if len(row) != 9 or row[-1].strip() not in SUBSETS:
            check.add('content', path, f'line {line}: 9 fields, the last one 0 (train) or 1 (test)', short(row))
        elif row[0] in subsets:
            check.add('duplicate', path, f'video {row[0]} once', f'again in line {line}')
        else:
            subsets[row[0]] = SUBSETS[row[-1].strip()]

    path = texts / 'a2d_missed_videos.txt'
    missed: set[str] = set()
    if check.has(path, 'the videos without sentences'):
        missed = set(filter(None, read_lines(str(path), 'file')))
        check.count('missed videos', len(missed), 28, path)
        for video in sorted(missed - set(subsets)) if subsets else ():
            check.add('unknown', path, 'videos of videoset.csv', video)

    path = texts / 'a2d_annotation.txt'
    sentences = _read_sentences(check, path, subsets)
    used = {video: instances for video, instances in sentences.items() if video not in missed}
    for subset, number in (('train', 3017), ('test', 737)):
        found = sum(subsets.get(video) == subset for video in used)
        check.count(f'{subset} videos with sentences', found, number, path)

    clips, masks = check.root / 'Release/clips320H', texts / 'a2d_annotation_with_instances'
    there = [check.has(clips, 'the videos'), check.has(masks, 'a folder of annotations for each video')]
    if subsets:
        check.extras(clips, [f'{video}.mp4' for video in subsets], 'videos of videoset.csv')
        check.extras(masks, subsets, 'folders of videos of videoset.csv')
    if not all(there):
        return
    check.each(
        sorted(used), lambda video: _look_at_clip(check, clips, masks / video, path, video, used[video]), 'videos'
    )
    for subset in SUBSETS.values() if used and not check.quick else ():
        check.load(A2DSentencesDataset, path, subset=subset, test_mode=True)


def _read_sentences(check: RootCheck, path: Path, subsets: dict[str, str]) -> dict[str, dict[int, int]]:
    """``{video: {instance: line}}``"""
    rows = check.rows(path, 'the sentences')
    check.count('rows of a2d_annotation.txt', max(len(rows) - 1, 0), 6655, path)
    columns = ['video_id', 'instance_id', 'query']
    if not rows or rows[0][1][:3] != columns:
        if rows:
            check.add('content', path, f'the columns {columns} in line 1', short(rows[0][1]))
        return {}
    sentences: dict[str, dict[int, int]] = {}
    for line, row in rows[1:]:
        if len(row) != len(rows[0][1]):
            check.add('content', path, f'line {line}: {len(rows[0][1])} fields', short(row))
            continue
        video, instance, text = row[:3]
        if instance.endswith(' (copy)'):
            check.notes.append(f'{path}, line {line}: instance {instance!r} of video {video} is left out, as is usual')
            continue
        if not text.strip():
            check.add('content', path, f'line {line}: a sentence', 'none')
        if not instance.isdecimal():
            check.add('content', path, f'line {line}: a number as instance_id', repr(instance))
            continue
        earlier = sentences.setdefault(video, {}).setdefault(int(instance), line)
        if earlier != line:
            check.add(
                'duplicate', path, f'video {video}, instance {instance} once', f'in the lines {earlier} and {line}'
            )
        if subsets and video not in subsets:
            check.add('unknown', path, f'line {line}: a video of videoset.csv', video)
    return sentences


def _look_at_clip(
    check: RootCheck, clips: Path, folder: Path, sentences: Path, video: str, instances: dict[int, int]
) -> Iterator[Finding]:
    """Checks a video and its annotations, and their consistency."""
    clip = clips / f'{video}.mp4'
    shape = None
    try:
        check_file(clip, 'a video')
        if not check.quick:
            shape = _clip_shape(clip, check.full)
    except Fault as fault:
        yield fault.finding
    names = sorted(name for name in os.listdir(folder) if name.endswith('.h5')) if folder.is_dir() else []
    numbers = [int(name[:-3]) for name in names if re.fullmatch(r'\d{5}\.h5', name) and int(name[:-3])]
    for name in names:
        if not re.fullmatch(r'\d{5}\.h5', name) or not int(name[:-3]):
            yield Finding('extra', str(folder / name), 'annotations 00001.h5 and so on', 'this as well')
    if not numbers:
        yield Finding(
            'missing', str(folder), 'annotations 00001.h5 and so on', 'none' if folder.is_dir() else 'no folder'
        )
    seen: set[int] = set()
    complete = not check.quick and bool(numbers)
    for number in numbers:
        path = folder / f'{number:05d}.h5'
        try:
            check_file(path, 'an annotation')
            if shape is not None and number > shape[0]:
                yield Finding('short', str(clip), f'at least {number} frames, since there is {path}', str(shape[0]))
            if not check.quick:
                seen.update(_annotation(path, shape, check.full))
        except Fault as fault:
            complete = False
            yield fault.finding
    for instance in sorted(set(instances) - seen) if complete else ():
        expected = f'line {instances[instance]}: an instance that the annotations of video {video} show, {sorted(seen)}'
        yield Finding('unknown', str(sentences), expected, str(instance))


def _clip_shape(path: Path, full: bool) -> tuple[int, int, int]:
    """Frames, height, width."""
    try:
        shape = video_shape(str(path), 'the whole of it')
        if full:
            with VideoReader(path) as video:
                good = sum(not frame.is_corrupt for frame in video.frames())
            if good != shape[0]:
                raise Fault('unreadable', path, f'{shape[0]} frames that can be decoded', str(good))
        return shape
    except VideoError as error:
        raise Fault('unreadable', path, 'a video', error.detail) from None
    except ValueError as error:
        raise Fault('unreadable', path, 'a video', str(error)) from None


def _annotation(path: Path, shape: tuple[int, int, int] | None, full: bool) -> list[int]:
    """The instances of an annotation.

    Raises:
        Fault: it is faulty.
    """
    try:
        with h5py.File(path, 'r') as file:
            if 'instance' not in file or 'reMask' not in file:
                raise Fault('field', path, "the fields 'instance' and 'reMask'", str(sorted(file)))
            ids: list[int] = np.array(file['instance']).ravel().astype(int).tolist()
            size = file['reMask'].shape
    except OSError as error:
        raise Fault('unreadable', path, 'an HDF5 file', str(error)) from None
    if not ids or len(set(ids)) < len(ids):
        raise Fault('duplicate' if ids else 'field', path, "the ids in 'instance', each once", str(ids))
    if len(size) not in (2, 3) or (1, *size)[-3] != len(ids):
        expected = f"'reMask' of shape (N, W, H), or (W, H), for the N = {len(ids)} ids in 'instance'"
        raise Fault('field', path, expected, str(size))
    if shape is not None and size[-2:] != (shape[2], shape[1]):
        raise Fault('size', path, f'masks of {by((shape[2], shape[1]))}, as the video is', by(size[-2:]))
    if full:
        try:
            masks = read_a2d_masks(str(path), ids, 'its masks')
        except ValueError as error:
            raise Fault('unreadable', path, 'masks', str(error)) from None
        empty = [instance for instance, mask in zip(ids, masks) if not mask.any()]
        if empty:
            raise Fault('unseen', path, 'a mask of each instance', f'empty ones of {listed(empty)}')
    return ids


JHMDB_SAMPLES = 'jhmdb_sentences_samples_metadata.json'
"""MTTR's list of samples, under its original name"""


def check_jhmdb_sentences(check: RootCheck) -> None:
    path = check.root / 'jhmdb_annotation.txt'
    rows = check.rows(path, 'the sentences')
    sentences: dict[str, int] = {}
    for line, row in rows[1:] if rows and rows[0][1][0] == 'video_id' else rows:
        if len(row) != 2 or not row[1].strip():
            check.add('content', path, f'line {line}: video_id and query', short(row))
        elif row[0] in sentences:
            check.add('duplicate', path, f'video {row[0]} once', f'in the lines {sentences[row[0]]} and {line}')
        else:
            sentences[row[0]] = line
    check.count('videos with a sentence', len(sentences), 928, path)

    images, masks = check.root / 'Rename_Images', check.root / 'puppet_mask'
    if not all([check.has(images, 'frames'), check.has(masks, 'masks')]):
        return
    actions = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith('.'))
    check.count('actions', len(actions), 21, images)
    action_of = {video.name: action for action in actions for video in (images / action).iterdir() if video.is_dir()}
    for video in sorted(set(sentences) - set(action_of)):
        expected = f'the frames of the video in line {sentences[video]} of {path.name}'
        check.add('missing', images / '<action>' / video, expected, 'no folder')
    lengths: dict[str, int] = {}
    used = sorted(set(sentences) & set(action_of))
    check.each(used, lambda video: _look_at_person(check, Path(action_of[video], video), lengths), 'videos')

    samples = check.root / JHMDB_SAMPLES
    if samples.exists():
        _check_samples(check, samples, action_of, lengths)
    else:
        check.notes.append(f'there is no {samples}: other frames would be evaluated than those of published numbers')
    if not check.quick:
        check.load(
            JHMDBSentencesDataset,
            samples if samples.exists() else path,
            samples_file=JHMDB_SAMPLES if samples.exists() else None,
        )


def _look_at_person(check: RootCheck, below: Path, lengths: dict[str, int]) -> Iterator[Finding]:
    """Checks the frames and the masks of a video, and their consistency.

    Args:
        below: <action>/<video>
        lengths: filled with the number of frames with masks, by video.
    """
    folder, mat = check.root / 'Rename_Images' / below, check.root / 'puppet_mask' / below / 'puppet_mask.mat'
    # Their number is not recorded; expected are all up to the last one.
    count = max((int(name[:-4]) for name in os.listdir(folder) if re.fullmatch(r'\d{5}\.png', name)), default=0)
    present, findings = listing(check, folder, [f'{t + 1:05d}.png' for t in range(count)])
    yield from findings
    found: list[Finding] = []
    sizes = {} if check.quick else image_sizes(check, folder, present, found)
    yield from found
    try:
        check_file(mat, 'the masks of the person')
        if check.quick:
            return
        shape = puppet_mask_shape(str(mat), 'its masks')
        lengths[below.name] = shape[2]
        if shape[2] > count:
            yield Finding('short', str(folder), f'{shape[2]} frames, as there are masks in {mat}', str(count))
        if sizes and (shape[1], shape[0]) not in sizes.values():
            size = next(iter(sizes.values()))
            yield Finding('size', str(mat), f'masks of {by(size)}, as the frames are', by(shape[1::-1]))
        if check.full and not read_puppet_mask(str(mat), 'its masks').any():
            yield Finding('unseen', str(mat), 'a mask in some frame', 'none')
    except Fault as fault:
        yield fault.finding
    except ValueError as error:
        kind = 'field' if 'expected the field' in str(error) else 'unreadable'
        yield Finding(kind, str(mat), "the field 'part_mask' of shape (H, W, T)", str(error))


def _check_samples(check: RootCheck, path: Path, action_of: dict[str, str], lengths: dict[str, int]) -> None:
    rows = check.json(path, 'the list of samples')
    if not isinstance(rows, list):
        if rows is not None:
            check.add('content', path, 'a list of rows', short(rows))
        return
    check.count('samples', len(rows), 2784, path)
    seen: dict[tuple[str, int], int] = {}
    for number, row in enumerate(rows):
        try:
            sample = parse_sample(row, f'row {number}')
        except ValueError as error:
            check.add('content', path, 'rows of the form of MTTR', str(error))
            continue
        video, frame, length = sample['video_id'], sample['key_frame'], sample['length']
        earlier = seen.setdefault((video, frame), number)
        if earlier != number:
            check.add(
                'duplicate', path, f'video {video}, frame {frame + 1} once', f'in the rows {earlier} and {number}'
            )
        if action_of.get(video) != sample['action']:
            folder = check.root / 'Rename_Images' / sample['action'] / video
            check.add('missing', folder, f'the frames of row {number} of {path.name}', 'no folder')
        elif video in lengths and length > lengths[video]:
            check.add('short', path, f'row {number}: {lengths[video]} frames, of which there are masks', str(length))
