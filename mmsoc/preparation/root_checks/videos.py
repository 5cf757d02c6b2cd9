"""Data sets in the layout of Ref-YouTube-VOS, and MeViS."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsoc.datasets.mevis import MeViSDataset
from mmsoc.datasets.ref_youtube_vos import RefYouTubeVOSDataset
from mmsoc.utils.files import listed

from .check import Fault, Finding, RootCheck, by, image_sizes, listing, open_image, rle_faults, short

VOID = 255
"""in the masks of DAVIS"""


@dataclass
class _Video:
    """The parts of a video to be checked.

    Args:
        expressions: by id, each with a valid ``exp``; the caller checks the object keys.
        known: ids that a mask may show; None: any.
        named: ids that the sentences name.
    """

    name: str
    frames: list[str]
    expressions: dict[str, dict]
    known: set[int] | None = None
    named: set[int] = field(default_factory=set)


def _videos(check: RootCheck, path: Path) -> dict[str, _Video] | None:
    """The usable videos of an expressions file; None: there is no such file."""
    content = check.json(path, 'the expressions')
    if content is None:
        return None
    records = content.get('videos') if isinstance(content, dict) else None
    if not isinstance(records, dict) or not records:
        check.add('content', path, "an object with the key 'videos', which holds videos", short(content))
        return None
    videos = {}
    for name, record in records.items():
        frames, expressions = (
            record.get(key) if isinstance(record, dict) else None for key in ('frames', 'expressions')
        )
        where = f'video {name}: '
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, str) for frame in frames):
            check.add('content', path, f"{where}'frames', a list of names", short(frames))
            continue
        for frame, number in Counter(frames).items():
            if number > 1:
                check.add('duplicate', path, f'{where}the frame {frame} once', f'{number} times')
        if not isinstance(expressions, dict) or not expressions:
            check.add('content', path, f"{where}'expressions', an object that holds sentences", short(expressions))
            expressions = {}
        videos[name] = _Video(name, sorted(set(frames)), {})
        for exp_id, item in expressions.items():
            if isinstance(item, dict) and isinstance(item.get('exp'), str) and item['exp'].strip():
                videos[name].expressions[exp_id] = item
            else:
                check.add('content', path, f"{where}expression {exp_id}: a sentence 'exp'", short(item))
    return videos


def _count(
    check: RootCheck, split: str, videos: dict[str, _Video], documented: Sequence[int | None], path: Path
) -> None:
    found = dict(
        videos=len(videos),
        expressions=sum(len(video.expressions) for video in videos.values()),
        frames=sum(len(video.frames) for video in videos.values()),
    )
    for (what, number), expected in zip(found.items(), documented, strict=True):
        check.count(f'{split} {what}', number, expected, path)


def _meta(check: RootCheck, path: Path) -> dict[str, set[int]] | None:
    """The ids of each video's objects; None: there is no such file."""
    content = check.json(path, 'the objects of the videos')
    if content is None:
        return None
    records = content.get('videos') if isinstance(content, dict) else None
    if not isinstance(records, dict):
        check.add('content', path, "an object with the key 'videos'", short(content))
        return None
    ids = {}
    for video, record in records.items():
        objects = record.get('objects') if isinstance(record, dict) else None
        if isinstance(objects, dict) and all(str(i).isdecimal() for i in objects):
            ids[video] = {int(i) for i in objects}
        else:
            check.add('content', path, f"video {video}: 'objects', an object with records by id", short(objects))
    return ids


def _check_named(check: RootCheck, path: Path, videos: dict[str, _Video], meta: dict[str, set[int]] | None) -> None:
    """Fills ``named`` from the sentences' ``obj_id``."""
    for video in videos.values():
        for exp_id, item in video.expressions.items():
            where = f'video {video.name}, expression {exp_id}: '
            obj_id = item.get('obj_id')
            if not (str(obj_id).isdecimal() and 1 <= int(str(obj_id)) <= 255):
                check.add('content', path, f"{where}'obj_id', an id from 1 to 255", short(obj_id))
            elif meta is not None and int(str(obj_id)) not in meta.get(video.name, ()):
                known = f'the objects {sorted(meta[video.name])}' if video.name in meta else 'no such video'
                check.add('unknown', path, f'{where}an object of meta.json, which has {known}', f'obj_id {obj_id}')
            else:
                video.named.add(int(str(obj_id)))


def _check_images(
    check: RootCheck,
    split: str,
    videos: dict[str, _Video],
    *,
    masks: bool,
    allowed: Collection[str],
    void: bool = False,
) -> None:
    """Checks frames and masks of a split; ``allowed``: the videos that may have folders."""
    folders = [check.root / split / name for name in ('JPEGImages', 'Annotations')][: 2 if masks else 1]
    there = [check.has(folder, 'a folder for each video') for folder in folders]
    for folder in folders:
        check.extras(folder, allowed, 'folders of videos that the expressions list')
    if all(there):
        check.each(list(videos.values()), lambda video: _look(check, folders, video, void), split)


def _look(check: RootCheck, folders: Sequence[Path], video: _Video, void: bool) -> Iterator[Finding]:
    images = folders[0] / video.name
    present, findings = listing(check, images, [f'{frame}.jpg' for frame in video.frames])
    yield from findings
    found: list[Finding] = []
    sizes = {} if check.quick else image_sizes(check, images, present, found)
    yield from found
    if len(folders) == 1:
        return
    masks = folders[1] / video.name
    present, findings = listing(check, masks, [f'{frame}.png' for frame in video.frames])
    yield from findings
    if check.quick:
        return
    shown: set[int] = set()
    complete = check.full and len(present) == len(video.frames)
    for name in sorted(present):
        first = name == f'{video.frames[0]}.png'
        decode = check.full or name == min(present)
        try:
            mask = open_image(masks / name, decode)
            size = sizes.get(name[:-4] + '.jpg', mask.size)
            if mask.size != size:
                yield Finding('size', str(masks / name), f'{by(size)}, as its frame is', by(mask.size))
            if mask.mode not in ('P', 'L'):
                expected = 'a palette PNG, whose values are object ids (mode P, or L)'
                raise Fault('mode', masks / name, expected, f'mode {mask.mode}')
            if not decode:
                continue
            ids = {i for i, number in enumerate(mask.histogram()) if number and i}
            shown |= ids
            unknown = sorted(ids - (ids if video.known is None else video.known) - ({VOID} if void else set()))
            if unknown:
                hint = ' (255 is void in DAVIS; here it would be an object)' if VOID in unknown else ''
                known = f'0 and the ids of meta.json, {sorted(video.known or ())}'
                raise Fault('ids', masks / name, known, f'also {listed(unknown)}{hint}')
            if void and first and not ids - {VOID}:
                raise Fault(
                    'ids',
                    masks / name,
                    'an object in the first mask, by which videos are scored',
                    'only void (255)' if ids else 'nothing',
                )
        except Fault as fault:
            complete &= fault.finding.kind == 'ids'
            yield fault.finding
    for i in sorted(video.named - shown) if complete else ():
        yield Finding('unseen', str(masks), f'object {i} in some mask', 'in none')


def check_ref_youtube_vos(check: RootCheck) -> None:
    """The valid file lists valid and test videos; the test file may be absent (it is no longer distributed)."""
    files = {
        split: check.root / f'meta_expressions/{split}/meta_expressions.json' for split in ('train', 'valid', 'test')
    }
    train, meta = _videos(check, files['train']), _meta(check, check.root / 'train/meta.json')
    if train is not None:
        _count(check, 'train', train, (3471, 12913, None), files['train'])
        _check_named(check, files['train'], train, meta)
        for video in train.values():
            video.known = None if meta is None else meta.get(video.name)
        _check_images(check, 'train', train, masks=True, allowed=train)
        check.load(
            RefYouTubeVOSDataset,
            files['train'],
            ann_file='meta_expressions/train/meta_expressions.json',
            test_mode=True,
            meta_file='train/meta.json',
            data_prefix=dict(img='train/JPEGImages', mask='train/Annotations'),
        )

    both = _videos(check, files['valid'])
    test = _videos(check, files['test']) if files['test'].exists() else None
    if both is None:
        return
    folder = check.root / 'valid/JPEGImages'
    if test is not None:
        foreign = sorted(set(test) - set(both))
        if foreign:
            found = f'{len(foreign)} others: {listed(foreign, 3)}'
            check.add('content', files['test'], f'videos that {files["valid"]} lists as well', found)
        _count(check, 'test', test, (305, 1262, None), files['test'])
        if (check.root / 'test/JPEGImages').is_dir():
            _check_images(check, 'test', test, masks=False, allowed=test)
        used = set(both) - set(test)
    else:
        check.notes.append(
            f'there is no {files["test"]}: the valid split is taken to be the videos that have a folder in {folder}'
        )
        used = set(both) & set(os.listdir(folder) if folder.is_dir() else ())
    valid = {name: video for name, video in both.items() if name in used}
    _count(check, 'valid', valid, (202, 834, 5486), files['valid'])
    masks = (check.root / 'valid/Annotations').is_dir()
    if masks:
        _check_named(check, files['valid'], valid, None)
    else:
        check.notes.append('the valid split has no masks (they are not public): it is good for predictions only')
    # The folder of YouTube-VOS itself also contains the test videos.
    _check_images(check, 'valid', valid, masks=masks, allowed=both)
    check.load(
        RefYouTubeVOSDataset,
        files['valid'],
        ann_file='meta_expressions/valid/meta_expressions.json',
        test_mode=True,
        exclude_ann_file='meta_expressions/test/meta_expressions.json',
        require_masks=masks,
        data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
    )


def check_ref_davis17(check: RootCheck) -> None:
    """As tools/dataset_converters/ref_davis17.py writes it; the train split may be absent, since nothing trains on it."""
    for split, numbers in dict(train=(60, None, None), valid=(30, 244, 1999)).items():
        file = f'meta_expressions/{split}/meta_expressions.json'
        path = check.root / file
        if split == 'train' and not path.exists() and not (check.root / 'train').exists():
            check.notes.append('there is no train split, and none is needed: models are tested on valid')
            continue
        videos, meta = _videos(check, path), _meta(check, check.root / split / 'meta.json')
        if videos is None:
            continue
        _count(check, split, videos, numbers, path)
        _check_named(check, path, videos, meta)
        number = sum(len(video.named) for video in videos.values())
        check.count(f'{split} objects', number, 61 if split == 'valid' else None, path)
        for video in videos.values():
            _check_numbering(check, path, video)
        # Any id: masks may show additional objects, since they were redrawn after the sentences were written.
        _check_images(check, split, videos, masks=True, allowed=videos, void=True)
        check.load(
            RefYouTubeVOSDataset,
            path,
            ann_file=file,
            meta_file=f'{split}/meta.json',
            test_mode=True,
            require_masks=True,
            data_prefix=dict(img=f'{split}/JPEGImages', mask=f'{split}/Annotations'),
        )


def _check_numbering(check: RootCheck, path: Path, video: _Video) -> None:
    """Frames from 0 on; the four sentences 4k .. 4k + 3 for object k + 1."""
    frames = {f'{t:05d}' for t in range(len(video.frames))}
    if frames != set(video.frames):
        found = f'a difference at {listed(sorted(frames ^ set(video.frames)), 3)}'
        check.add('content', path, f'video {video.name}: frames 00000, 00001, ...', found)
    wanted = [str(i) for i in range((len(video.expressions) + 3) // 4 * 4)]
    odd = sorted(set(wanted) ^ set(video.expressions))
    if odd:
        expected = f'video {video.name}: expressions 0, 1, ..., four for each object'
        check.add('content', path, expected, f'a difference at {listed(odd)}')
        return
    for exp_id in wanted:
        obj_id, wanted_id = video.expressions[exp_id].get('obj_id'), int(exp_id) // 4 + 1
        if str(obj_id) != str(wanted_id):
            check.add('content', path, f'video {video.name}, expression {exp_id}: obj_id {wanted_id}', repr(obj_id))


def check_mevis(check: RootCheck) -> None:
    for split, numbers in dict(train=(1662, 23051, None), valid_u=(50, 793, None), valid=(140, 2236, None)).items():
        path, mask_path = check.root / split / 'meta_expressions.json', check.root / split / 'mask_dict.json'
        videos = _videos(check, path)
        masks = None if split == 'valid' else check.json(mask_path, 'the masks by anno_id')
        if videos is None:
            continue
        _count(check, split, videos, numbers, path)
        _check_images(check, split, videos, masks=False, allowed=videos)
        if isinstance(masks, dict):
            for anno_id, name in _anno_ids(check, path, videos, masks).items():
                _check_masks(check, mask_path, anno_id, videos[name], masks[anno_id])
        elif masks is not None:
            check.add('content', mask_path, 'an object with masks by anno_id', short(masks))
        check.load(
            MeViSDataset,
            path,
            ann_file=f'{split}/meta_expressions.json',
            data_prefix=dict(img=f'{split}/JPEGImages'),
            mask_file=None if split == 'valid' else f'{split}/mask_dict.json',
            test_mode=True,
            require_masks=split != 'valid',
        )


def _anno_ids(check: RootCheck, path: Path, videos: dict[str, _Video], masks: dict[str, Any]) -> dict[str, str]:
    """The video of each annotation that sentences refer to; some sentences of MeViS 2 have no target."""
    video_of: dict[str, str] = {}
    without_target = 0
    for video in videos.values():
        for exp_id, item in video.expressions.items():
            where = f'video {video.name}, expression {exp_id}: '
            ids = [item.get('obj_id'), item.get('anno_id')]
            if ids[1] == [] and not ids[0]:
                without_target += 1
                continue
            good = [of for of in ids if isinstance(of, list) and of and all(type(i) is int for i in of)]
            if len(good) < 2 or len(good[0]) != len(good[1]):
                expected = f"{where}'obj_id' and 'anno_id', lists of integers of one length"
                check.add('content', path, expected, ' and '.join(map(short, ids)))
                continue
            for anno_id in map(str, good[1]):
                if anno_id not in masks:
                    check.add('unknown', path, f'{where}an anno_id of mask_dict.json', anno_id)
                elif video_of.setdefault(anno_id, video.name) != video.name:
                    found = f'{anno_id}, which is of video {video_of[anno_id]}'
                    check.add('duplicate', path, f'{where}an anno_id of this video', found)
    if without_target:
        check.notes.append(f'{path}: {without_target:,} sentences have no target')
    return video_of


def _check_masks(check: RootCheck, path: Path, anno_id: str, video: _Video, codes: Any) -> None:
    where = f'anno_id {anno_id} (video {video.name}): '
    if not isinstance(codes, list) or len(codes) != len(video.frames):
        found = f'{len(codes)} entries' if isinstance(codes, list) else short(codes)
        check.add('short', path, f'{where}a mask or null for each of {len(video.frames)} frames', found)
        return
    if not any(codes):
        check.add('unseen', path, f'{where}a mask in some frame', 'null in all of them')
    size = None
    if not check.quick:
        with suppress(Fault):  # already recorded when the frames were checked
            size = open_image(path.parent / 'JPEGImages' / video.name / f'{video.frames[0]}.jpg', False).size
    for place, kind, expected, found in rle_faults(codes, size, check.full):
        check.add(kind, path, f'{where}frame {video.frames[place]}: {expected}', found)
