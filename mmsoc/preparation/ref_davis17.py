"""Converts Ref-DAVIS17 to the layout of Ref-YouTube-VOS; the docstring of ``tools/dataset_converters/ref_davis17.py``
shows both.

Each object has four sentences with consecutive ids: 4k and 4k + 1 are the first-frame and the full-video sentence of the
first annotator for object k + 1, 4k + 2 and 4k + 3 those of the second one.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmsoc.preparation.folders import atomic_folder
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, listed, load_json, read_ids

SPLITS = {'train': 'train', 'valid': 'val'}
"""our name of a split: that of DAVIS"""
IMAGES = Path('DAVIS/JPEGImages/480p')
MASKS = Path('DAVIS/Annotations_unsupervised/480p')
TEXTS = (
    # in the order of the ids; the second annotator's files are not UTF-8
    ('Davis17_annot1.txt', 'utf-8'),
    ('Davis17_annot1_full_video.txt', 'utf-8'),
    ('Davis17_annot2.txt', 'latin-1'),
    ('Davis17_annot2_full_video.txt', 'latin-1'),
)
RENAMED = {'clasic-car': 'classic-car', 'dog-scale': 'dogs-scale', 'motor-bike': 'motorbike'}
"""videos whose names the texts spell differently from DAVIS"""
EXPECTED = {'train': dict(videos=60), 'valid': dict(videos=30, objects=61, expressions=244, frames=1999)}
VOID = 255


def check_source(source: Path, splits: Sequence[str]) -> None:
    """
    Raises:
        FileNotFoundError: lists all missing files, with their archives.
    """
    unsupervised = 'DAVIS-2017-Unsupervised-trainval-480p.zip'
    needed = [
        (IMAGES, unsupervised),
        (MASKS, unsupervised),
        *((Path(f'DAVIS/ImageSets/2017/{SPLITS[split]}.txt'), unsupervised) for split in splits),
        (Path('DAVIS/davis_semantics.json'), 'DAVIS-2017_semantics-480p.zip'),
        *((Path('davis_text_annotations') / name, 'davis_text_annotations.zip') for name, _ in TEXTS),
    ]
    missing = [f'{source / path} (from {archive})' for path, archive in needed if not (source / path).exists()]
    if missing:
        raise FileNotFoundError('the archives are not all unpacked here; missing:\n  ' + '\n  '.join(missing))


def read_sentences(path: Path, encoding: str, notes: list[str]) -> dict[str, dict[int, str]]:
    """The lines ``<video> <object> "<sentence>"`` of a file: ``{video: {object: sentence}}``.

    Like the usual converter it strips a sentence's first and last character, whatever they are; those that are not
    quotes are listed in ``notes``.

    Raises:
        UserError: lists every fault, one per line.
    """
    sentences: dict[str, dict[int, str]] = {}
    faults, unquoted = [], []
    try:
        lines = path.read_text(encoding=encoding).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not {encoding} text: {error}') from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        parts = line.strip().split(' ', 2)
        if (
            len(parts) < 3
            or not (parts[1].isascii() and parts[1].isdecimal() and int(parts[1]) > 0)
            or len(parts[2]) < 3
        ):
            faults.append(f'{where}: expected VIDEO OBJECT "SENTENCE", found {line!r}')
            continue
        video, obj_id, quoted = RENAMED.get(parts[0], parts[0]), int(parts[1]), parts[2]
        if (quoted[0], quoted[-1]) != ('"', '"'):
            unquoted.append(f'line {number}: {quoted}')
        if obj_id in sentences.setdefault(video, {}):
            faults.append(f'{where}: a second sentence for object {obj_id} of {video}')
        sentences[video][obj_id] = quoted[1:-1]
    if faults:
        raise UserError('\n'.join(faults))
    if unquoted:
        notes.append(
            f'{path.name}: the first and last character of {len(unquoted)} sentences are no quotes and were taken off all '
            f'the same, as is usual: {listed(unquoted)}'
        )
    return sentences


def frames_of(source: Path, video: str) -> list[str]:
    """The names of a video's frames.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        UserError: frames and masks do not match, or the frames are not 00000, 00001, ...
    """
    found = {}
    for folder, suffix in ((source / IMAGES / video, '.jpg'), (source / MASKS / video, '.png')):
        if not folder.is_dir():
            raise FileNotFoundError(
                f'there is no folder {folder}, which ImageSets lists; was the archive unpacked completely?'
            )
        found[suffix] = sorted(path.stem for path in folder.iterdir() if path.suffix == suffix)
    frames = found['.jpg']
    if frames != found['.png']:
        odd = sorted(set(frames) ^ set(found['.png']))
        raise UserError(
            f'{video}: {len(frames)} frames in {source / IMAGES} but {len(found[".png"])} masks in {source / MASKS}; only in '
            f'one of them: {listed(odd)}'
        )
    if frames != [f'{t:05d}' for t in range(len(frames))] or not frames:
        raise UserError(
            f'{source / IMAGES / video}: expected 00000.jpg, 00001.jpg, ..., found {listed(frames) or "nothing"}'
        )
    return frames


def plan_split(source: Path, split: str, texts: list[dict[str, dict[int, str]]], notes: list[str]) -> dict:
    """The content of a split: ``expressions`` and ``meta`` as written to disk, and ``counts``.

    Raises:
        FileNotFoundError, UserError: files are missing or inconsistent.
    """
    list_file = source / f'DAVIS/ImageSets/2017/{SPLITS[split]}.txt'
    videos = list_file.read_text(encoding='utf-8').split()
    if not videos or len(set(videos)) < len(videos):
        raise UserError(f'{list_file}: expected the names of videos, none twice, found {len(videos)}')
    semantics = load_json(source / 'DAVIS/davis_semantics.json', 'davis_semantics.json')
    expressions: dict[str, dict] = {}
    meta: dict[str, dict] = {}
    faults, without_category, undescribed = [], [], []
    for video in sorted(videos):
        of_files = [sentences.get(video, {}) for sentences in texts]
        objects = sorted(of_files[0])
        if not objects or objects != list(range(1, len(objects) + 1)) or any(sorted(of) != objects for of in of_files):
            found = '; '.join(f'{name} {sorted(of) or "none"}' for (name, _), of in zip(TEXTS, of_files))
            faults.append(
                f'{video}: expected one sentence for each of the objects 1, 2, ... in each of the four files; {found}'
            )
            continue
        sentences: dict[str, dict[str, str]] = {}
        for obj_id in objects:
            for of in of_files:
                sentences[str(len(sentences))] = dict(exp=of[obj_id], obj_id=str(obj_id))
        frames = frames_of(source, video)
        expressions[video] = dict(expressions=sentences, frames=frames)
        categories = semantics.get(video, {})
        without_category += [f'{video} {i}' for i in objects if str(i) not in categories]
        meta[video] = dict(
            objects={str(i): dict(category=categories[str(i)]) if str(i) in categories else {} for i in objects}
        )
        ids = read_ids(source / MASKS / video / f'{frames[0]}.png', video)
        extra = int(ids[ids != VOID].max(initial=0)) - len(objects)
        if extra:
            undescribed.append(f'{video} {extra:+d}')
    if faults:
        raise UserError('\n'.join(faults))
    if without_category:
        notes.append(f'{split}: no category in davis_semantics.json: {listed(without_category)}')
    if undescribed:
        notes.append(
            f'{split}: the first mask has more (+) or fewer (-) objects than are described, which RefDAVIS17Metric accounts '
            f'for: {listed(undescribed)}'
        )
    counts = dict(
        videos=len(expressions),
        objects=sum(len(record['objects']) for record in meta.values()),
        expressions=sum(len(record['expressions']) for record in expressions.values()),
        frames=sum(len(record['frames']) for record in expressions.values()),
    )
    return dict(expressions=expressions, meta=meta, counts=counts)


def check_counts(plans: dict[str, dict]) -> None:
    """
    Raises:
        UserError: a split does not have the published size.
    """
    faults = [
        f'{split}: expected {expected} {name}, found {plan["counts"][name]}'
        for split, plan in plans.items()
        for name, expected in EXPECTED[split].items()
        if plan['counts'][name] != expected
    ]
    if faults:
        raise UserError('\n'.join([*faults, 'is the copy complete? --no-expect converts it all the same']))


def place(source: Path, target: Path, final: Path, copy: bool, within: Path) -> None:
    """Copies or links a folder to ``target``, which will be ``final``; a link is relative if ``final`` is ``within``."""
    if copy:
        shutil.copytree(source, target)
    elif within in final.parents:
        target.symlink_to(os.path.relpath(source, final.parent), target_is_directory=True)
    else:
        target.symlink_to(source, target_is_directory=True)


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    copy: bool = False,
    splits: Sequence[str] = tuple(SPLITS),
    expect: bool = True,
) -> str:
    """Writes the splits, each atomically.

    Args:
        source: the folder with the unpacked archives.
        out: None: ``source``.
        copy: copy the folders of frames and masks instead of linking them.
        splits: keys of ``SPLITS``.
        expect: require the published sizes.

    Returns:
        The summary.

    Raises:
        FileNotFoundError, UserError: files are missing or inconsistent, or a target exists.
    """
    source = Path(source).resolve()
    out = Path(out).resolve() if out else source
    if not source.is_dir():
        raise FileNotFoundError(f'there is no folder {source}; expected DAVIS/ and davis_text_annotations/ in it')
    check_source(source, splits)
    for split in splits:
        for path in (out / split, out / 'meta_expressions' / split):
            if path.exists():
                raise UserError(f'{path} exists; move it away, or name another --out')
    notes: list[str] = []
    texts = [read_sentences(source / 'davis_text_annotations' / name, encoding, notes) for name, encoding in TEXTS]
    plans = {split: plan_split(source, split, texts, notes) for split in splits}
    if expect:
        check_counts(plans)
    if len(plans) == len(SPLITS):
        used = {video for plan in plans.values() for video in plan['expressions']}
        unused = sorted({video for sentences in texts for video in sentences} - used)
        if unused:
            notes.append(f'Sentences of videos in neither split, left out: {listed(unused)}')
    for split, plan in plans.items():
        write_split(source, out, split, plan, copy)

    names = ('videos', 'objects', 'expressions', 'frames')
    lines = [f'{"":5}' + ''.join(f'{name:>13}' for name in names)]
    lines += [f'{split:5}' + ''.join(f'{plan["counts"][name]:>13}' for name in names) for split, plan in plans.items()]
    how = 'copied' if copy else 'linked to DAVIS/, which has to stay (--copy copies them)'
    return '\n'.join([*lines, *notes, f'Written: {out}; frames and masks are {how}'])


def write_split(source: Path, out: Path, split: str, plan: dict, copy: bool) -> None:
    """Writes what `plan_split` returned."""
    with atomic_folder(out / split) as folder:
        for kind, images in (('JPEGImages', IMAGES), ('Annotations', MASKS)):
            (folder / kind).mkdir()
            for video in plan['expressions']:
                place(source / images / video, folder / kind / video, out / split / kind / video, copy, source)
        dump_json(dict(videos=plan['meta']), folder / 'meta.json')
    # written last: without it a data set is recognizably incomplete
    dump_json(dict(videos=plan['expressions']), out / 'meta_expressions' / split / 'meta_expressions.json')
