"""Writes small twins of the data sets: videos of MovingShapes in the layout of each of them, for tests and trials.

    python tools/dataset_converters/moving_shapes_twins.py --out twins
    MMSOC_DATA=twins python tools/train.py CONFIG --cfg-options train_dataloader.dataset.expected_videos=None ...

Each twin lies in the folder that the configs expect below $MMSOC_DATA, and is laid out as the real data set is unpacked, with
what is odd in it:

    ref-youtube-vos  (ref-youtube-vos)  every fifth frame; the valid file lists valid and test. Masks and obj_id of the valid split,
                                        which are not in the public download, are written too, unless there is --public
    ref-davis17      (ref-davis)        the archives, and what tools/dataset_converters/ref_davis17.py makes of them; four
                                        sentences for each of two objects; what no sentence names is void (255) in the masks
    a2d-sentences    (a2d_sentences)    H.264; 3 to 5 annotated frames, in every third video of one actor; a video without
                                        sentences; a row '1 (copy)'; sentences with capitals and odd spaces
    jhmdb-sentences  (jhmdb_sentences)  masks that end a frame before the pictures in every second video; the list of samples
    refcoco          (coco)             refcoco, refcoco+ (no words of place) and refcocog: pickled references, instances.json with
                                        polygons and a few crowds, and the files with one annotation per sentence;
                                        sentences that one frame decides (families appearance and relation)
    mevis            (mevis)            sentences that name several objects ("all red objects", "the star and the red circle"),
                                        mask_dict.json with null where an object is not seen; valid without masks

A twin appears under its name when it is complete. One that is there is left alone if its parameters are the same; else this is an
error, and --overwrite replaces it. What is no twin is never touched.
"""

import argparse
import base64
import hashlib
import pickle
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed
sys.path.append(str(Path(__file__).resolve().parent))

import cv2
import h5py
import numpy as np
import scipy.io
from PIL import Image
from pycocotools import mask as coco_mask
from ref_davis17 import IMAGES, MASKS, TEXTS, convert

from mmsoc.datasets.moving_shapes import Expression, Noun, Settings, Thing, draw_video
from mmsoc.datasets.moving_shapes.scene import COLORS, SHAPES
from mmsoc.datasets.moving_shapes.sentences import sentence
from mmsoc.datasets.moving_shapes.writer import PALETTE, _locked, pixel_counts
from mmsoc.datasets.moving_shapes.writer import VERSION as GENERATOR_VERSION
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, load_json
from mmsoc.visualization import write_video

VERSION = 1  # to be raised when the same parameters give another twin
MANIFEST = 'moving_shapes_twin.json'
VOID = 255
# With fewer colours Pillow writes 4 bits per pixel, into which 255 does not fit.
FULL_PALETTE = [*PALETTE, *[0] * (3 * VOID - len(PALETTE)), 224, 224, 192]
MIN_PIXELS = 20  # of an object in a picture of RefCOCO

# What the shapes are called where a data set has categories of its own.
YOUTUBE_VOS = dict(circle='frisbee', square='sign', triangle='boat', star='others', cross='airplane', heart='hand')
COCO = dict(
    circle=('sports', 34, 'frisbee'), square=('indoor', 84, 'book'), triangle=('sports', 38, 'kite'),
    star=('indoor', 88, 'teddy bear'), cross=('kitchen', 48, 'fork'), heart=('food', 53, 'apple'),
)  # fmt: skip


class Clip:
    """A video of MovingShapes; objects are known by their number, from 0."""

    def __init__(self, settings: Settings, split: str, index: int) -> None:
        self.scene, video = draw_video(settings, split, index)
        self.seed = (settings.seed, ('train', 'valid').index(split), index)
        self.index = index
        self.frames, self.ids = video
        self.areas = pixel_counts(self.ids, len(self.scene.things))
        """pixels (number of objects, T)"""
        self.claims = self.scene.expressions
        self.targets = [self.number(claim.target) for claim in self.claims]

    def number(self, thing: Thing) -> int:
        return self.scene.things.index(thing)

    def code(self, length: int) -> str:
        """Hexadecimal digits by which the video is told from others."""
        return hashlib.sha256(repr(self.seed).encode()).hexdigest()[:length]

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *purpose.encode()])

    def masks(self, number: int) -> np.ndarray:
        """bool (T, H, W)"""
        return self.ids == number + 1

    def texts(self, claim: Expression, count: int, purpose: str) -> list[str]:
        """The claim in several wordings, which may repeat."""
        rng = self.rng(f'{purpose} {self.claims.index(claim)}')
        return [sentence(rng, claim) for _ in range(count)]


class Source:
    """The videos from which the twins of one run are made; each is drawn once."""

    def __init__(self, settings: Settings, public: bool) -> None:
        self.settings = settings
        self.public = public
        self.clip = lru_cache(maxsize=None)(lambda split, index: Clip(settings, split, index))
        self.num_train, self.num_valid = settings.train_videos, settings.valid_videos

    def clips(
        self, split: str, count: int, part: int = 0, fits: Callable[[Clip], bool] = lambda clip: True
    ) -> list[Clip]:
        """The first ``count`` videos that fit; ``part`` 1, 2, ... are further ones, which part 0 does not have."""
        found, index = [], 1000 * part
        while len(found) < count:
            clip = self.clip(split, index)
            found += [clip] if fits(clip) else []
            index += 1
        return found


def save_pictures(folder: Path, names: Sequence[str], pictures: Sequence[np.ndarray], suffix: str) -> None:
    """RGB (H, W, 3), or id maps (H, W), which get the palette of DAVIS."""
    folder.mkdir(parents=True)
    for name, pixels in zip(names, pictures, strict=True):
        image = Image.fromarray(pixels)
        if pixels.ndim == 2:
            image.putpalette(FULL_PALETTE)
        image.save(folder / f'{name}{suffix}', **dict(quality=95, subsampling=0) if suffix == '.jpg' else {})


# --- Ref-YouTube-VOS


def write_ref_youtube_vos(root: Path, source: Source) -> dict[str, int]:
    splits = dict(
        train=source.clips('train', source.num_train),
        valid=source.clips('valid', source.num_valid),
        test=source.clips('valid', source.num_valid, part=1),
    )
    records: dict[str, dict] = {}
    objects = {}
    for split, clips in splits.items():
        with_masks = split == 'train' or (split == 'valid' and not source.public)
        records[split] = {}
        for clip in sorted(clips, key=lambda clip: clip.code(10)):
            video = clip.code(10)
            first = 2 if clip.index % 7 == 3 else 0
            frames = [f'{5 * (first + t):05d}' for t in range(len(clip.frames))]
            save_pictures(root / split / 'JPEGImages' / video, frames, clip.frames, '.jpg')
            if with_masks:
                save_pictures(root / split / 'Annotations' / video, frames, clip.ids, '.png')
            expressions = {
                str(i): dict(exp=claim.text) | (dict(obj_id=str(target + 1)) if with_masks else {})
                for i, (claim, target) in enumerate(zip(clip.claims, clip.targets))
            }
            records[split][video] = dict(expressions=expressions, frames=frames)
            if split == 'train':
                seen = [[frame for frame, area in zip(frames, areas) if area] for areas in clip.areas]
                objects[video] = dict(
                    objects={
                        str(i): dict(category=YOUTUBE_VOS[thing.shape], frames=seen[i - 1])
                        for i, thing in enumerate(clip.scene.things, 1)
                    }
                )
    records['valid'] = dict(sorted((records['valid'] | records['test']).items()))
    for split, videos in records.items():
        dump_json(dict(videos=videos), root / f'meta_expressions/{split}/meta_expressions.json')
    dump_json(dict(videos=objects), root / 'train/meta.json')
    return {f'{split} videos': len(clips) for split, clips in splits.items()}


# --- Ref-DAVIS17


def write_ref_davis17(root: Path, source: Source) -> dict[str, int]:
    def fits(clip: Clip) -> bool:
        # The protocol scores the objects that the first mask shows.
        return all(clip.areas[target, 0] for target in clip.targets)

    lines: list[list[str]] = [[] for _ in TEXTS]
    semantics = {}
    splits = dict(
        train=source.clips('train', source.num_train, fits=fits), val=source.clips('valid', source.num_valid, fits=fits)
    )
    for split, clips in splits.items():
        names = [f'shapes-{split}-{i:02d}' for i in range(len(clips))]
        for video, clip in zip(names, clips):
            ids = np.where(clip.ids > 0, VOID, 0).astype(np.uint8)
            for i, target in enumerate(clip.targets, 1):
                ids[clip.masks(target)] = i
            frames = [f'{t:05d}' for t in range(len(ids))]
            save_pictures(root / IMAGES / video, frames, clip.frames, '.jpg')
            save_pictures(root / MASKS / video, frames, ids, '.png')
            semantics[video] = {str(i): claim.target.shape for i, claim in enumerate(clip.claims, 1)}
            for i, claim in enumerate(clip.claims, 1):
                for number, text in enumerate(clip.texts(claim, len(TEXTS), 'davis')):
                    lines[number].append(f'{video} {i} "{text}"')
        (root / 'DAVIS/ImageSets/2017').mkdir(parents=True, exist_ok=True)
        (root / f'DAVIS/ImageSets/2017/{split}.txt').write_text('\n'.join(names) + '\n')
    dump_json(semantics, root / 'DAVIS/davis_semantics.json')
    (root / 'davis_text_annotations').mkdir()
    for (name, encoding), rows in zip(TEXTS, lines):
        (root / 'davis_text_annotations' / name).write_text('\n'.join(rows) + '\n', encoding=encoding)
    convert(Namespace(source=root, out=None, copy=False, splits=['train', 'valid'], expect=False))
    return {f'{split} videos': len(clips) for split, clips in splits.items()}


# --- A2D-Sentences


def write_a2d_sentences(root: Path, source: Source) -> dict[str, int]:
    clips = [(clip, 0) for clip in source.clips('train', source.num_train)]
    clips += [(clip, 1) for clip in source.clips('valid', source.num_valid)]
    missed = source.clips('train', 1, part=1)[0]
    videoset, sentences, annotations = [], [], 0
    for i, (clip, subset) in enumerate([*clips, (missed, 0)]):
        # like those of YouTube, of which some begin with a dash
        video = base64.urlsafe_b64encode(bytes.fromhex(clip.code(18)))[:11].decode()
        video = f'-{video[1:]}' if i == 0 else video
        path = root / f'Release/clips320H/{video}.mp4'
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, fps=25, crf=12)  # at this quality the colours stay what they are
        actors = [] if clip is missed else clip.targets[: 1 if i % 3 == 0 else 2]
        numbers = annotated_frames(clip, actors, 3 + i % 3) if actors else []
        for t in numbers:
            path = root / f'text_annotations/a2d_annotation_with_instances/{video}/{t + 1:05d}.h5'
            masks = {k: clip.masks(actor)[t] for k, actor in enumerate(actors) if clip.areas[actor, t]}
            write_h5(path, masks)
        height, width = clip.ids.shape[1:]
        videoset.append(
            f'{video},{11 + i % 7},0:00:01,0:00:04,{height},{width},{len(clip.ids)},{len(numbers)},{subset}'
        )
        sentences += [f'{video},{k},{odd(claim.text, i + k)}' for k, claim in zip(range(len(actors)), clip.claims)]
        if i == len(clips) - 1:
            sentences.append(f'{video},1 (copy),{clip.claims[-1].text}')
        annotations += len(numbers)
        if clip is missed:
            (root / 'text_annotations/a2d_missed_videos.txt').write_text(f'{video}\n')
    (root / 'Release/videoset.csv').write_text('\n'.join(videoset) + '\n')
    (root / 'text_annotations/a2d_annotation.txt').write_text(
        '\n'.join(['video_id,instance_id,query', *sentences]) + '\n'
    )
    return {'train videos': source.num_train, 'test videos': source.num_valid, 'annotations': annotations}


def odd(text: str, index: int) -> str:
    """Some sentences begin with a capital, and some have blanks too many."""
    text = text.capitalize() if index % 3 == 1 else text
    return f' {text.replace(" ", "  ", 1)}' if index % 5 == 2 else text


def annotated_frames(clip: Clip, actors: Sequence[int], count: int) -> list[int]:
    """Frames spread over the video of which each shows an actor, and which show all of them."""
    seen = clip.areas[actors] > 0
    some = np.flatnonzero(seen.any(0))
    chosen = set(some[np.linspace(0, len(some) - 1, count).astype(int)].tolist())
    chosen |= {int(of_actor.argmax()) for of_actor in seen if not of_actor[sorted(chosen)].any()}
    return sorted(chosen)


def write_h5(path: Path, masks: dict[int, np.ndarray]) -> None:
    """As MATLAB does: axes in reverse, and none of length 1 for the actors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stacked = np.stack([mask.T for mask in masks.values()]).astype(np.uint8)
    boxes = np.array([[x.min(), y.min(), x.max(), y.max()] for x, y in (np.nonzero(mask) for mask in stacked)], float)
    with h5py.File(path, 'w') as file:
        file['instance'] = np.array(list(masks), float)
        file['reMask'] = stacked[0] if len(masks) == 1 else stacked
        file['reBBox'] = boxes[0] if len(masks) == 1 else boxes.T


# --- JHMDB-Sentences


def write_jhmdb_sentences(root: Path, source: Source) -> dict[str, int]:
    def fits(clip: Clip) -> bool:
        return np.count_nonzero(clip.areas[clip.targets[0], :-1]) >= 3

    clips = source.clips('valid', source.num_valid, fits=fits)
    lines, rows = ['video_id,query'], []
    for i, clip in enumerate(clips):
        video, action = f'shapes_{clip.scene.family}_{i}', f'{clip.scene.family}_action'
        length = len(clip.frames) - i % 2
        names = [f'{t + 1:05d}' for t in range(len(clip.frames))]
        save_pictures(root / 'Rename_Images' / action / video, names, clip.frames, '.png')
        mat = root / 'puppet_mask' / action / video / 'puppet_mask.mat'
        mat.parent.mkdir(parents=True)
        masks = clip.masks(clip.targets[0])[:length]
        scipy.io.savemat(mat, dict(part_mask=masks.transpose(1, 2, 0).astype(np.uint8)), do_compression=True)
        lines.append(f'{video},{clip.claims[0].text}')
        seen = np.flatnonzero(masks.any((1, 2)))
        for t in sorted(clip.rng('jhmdb').choice(seen, 3, replace=False).tolist()):
            rows.append(
                [
                    video,
                    f'./jhmdb_sentences/Rename_Images/{action}/{video}/{names[t]}.png',
                    f'./jhmdb_sentences/puppet_mask/{action}/{video}/puppet_mask.mat',
                    length,
                    clip.claims[0].text,
                ]
            )
    (root / 'jhmdb_annotation.txt').write_text('\n'.join(lines) + '\n')
    dump_json(rows, root / 'jhmdb_sentences_samples_metadata.json')
    return dict(videos=len(clips), samples=len(rows))


# --- RefCOCO, RefCOCO+, RefCOCOg

REFCOCO = {  # file of references, splits
    'refcoco': ('refs(unc).p', ('train', 'val', 'testA', 'testB')),
    'refcoco+': ('refs(unc).p', ('train', 'val', 'testA', 'testB')),
    'refcocog': ('refs(umd).p', ('train', 'val', 'test')),
}
WITHOUT_PLACE = ('is', 'largest', 'smallest')  # what RefCOCO+ may say


def write_refcoco(root: Path, source: Source) -> dict[str, int]:
    """Two pictures of each video."""

    def fits(clip: Clip) -> bool:
        return clip.scene.family in ('appearance', 'relation') and bool(pictures_of(clip))

    train = source.clips('train', source.num_train // 2, fits=fits)
    others = [source.clips('valid', source.num_valid // 2, part=part, fits=fits) for part in range(3)]
    numbers: dict[tuple[Clip, int], int] = {}
    for clip in [*train, *sum(others, [])]:
        for t in pictures_of(clip):
            numbers[clip, t] = 100 + 37 * len(numbers)  # ids with gaps, as those of COCO
    pictures = [clip.frames[t] for clip in [*train, *sum(others, [])] for t in pictures_of(clip)]
    save_pictures(root / 'train2014', [picture_name(number) for number in numbers.values()], pictures, '.jpg')
    counts = dict(pictures=len(numbers))
    for name, (file, splits) in REFCOCO.items():
        of_split = dict(zip(splits, [train, *others]))
        counts[f'{name} sentences'] = write_references(root / name, name, file, of_split, numbers)
    return counts


def pictures_of(clip: Clip) -> list[int]:
    """Frames in which both targets are large enough: two at most."""
    seen = np.flatnonzero((clip.areas[clip.targets] >= MIN_PIXELS).all(0)).tolist()
    return seen[:: max(len(seen) - 1, 1)][:2]


def picture_name(image_id: int) -> str:
    return f'COCO_train2014_{image_id:012d}'


def write_references(folder: Path, name: str, file: str, splits: dict[str, list[Clip]], numbers: dict) -> int:
    """The files of one of the three data sets; returns the number of sentences."""
    common = dict(info=dict(description=f'a twin of {name}'), licenses=[dict(id=1, name='none', url='')])
    common['categories'] = [dict(supercategory=above, id=i, name=what) for above, i, what in COCO.values()]
    images, annotations, refs = [], [], []
    for split, clips in splits.items():
        sentences: dict[str, list] = dict(images=[], annotations=[])
        for clip in clips:
            for t in pictures_of(clip):
                image_id = numbers[clip, t]
                height, width = clip.ids.shape[1:]
                image = dict(file_name=f'{picture_name(image_id)}.jpg', height=height, width=width)
                images.append(dict(image, id=image_id, license=1))
                of_thing = {}
                for k, thing in enumerate(clip.scene.things):
                    if clip.areas[k, t] >= MIN_PIXELS:
                        crowd = k == clip.targets[0] and len(images) % 8 == 4
                        of_thing[k] = annotation(clip.masks(k)[t], crowd)
                        of_thing[k] |= dict(
                            image_id=image_id, category_id=COCO[thing.shape][1], id=1000 + len(annotations)
                        )
                        annotations.append(of_thing[k])
                for claim, target in zip(clip.claims, clip.targets):
                    if name == 'refcoco+' and claim.event not in WITHOUT_PLACE:
                        continue
                    texts = clip.texts(claim, 1 + (clip.index + t) % 3, name)
                    refs.append(reference(of_thing[target], split, texts, refs))
                    for text in texts:
                        i = len(sentences['images']) + 1
                        extra = dict(original_id=image_id, id=i, caption=text, dataset_name=name)
                        sentences['images'].append(dict(image, **extra))
                        sentences['annotations'].append(
                            dict(of_thing[target], image_id=i, id=i, original_id=of_thing[target]['id'])
                        )
        dump_json(dict(common, **sentences), folder / f'instances_{name}_{split}.json')
    dump_json(dict(common, images=images, annotations=annotations), folder / 'instances.json')
    with open(folder / file, 'wb') as handle:
        pickle.dump(refs, handle, protocol=2)  # as Python 2 wrote it
    return sum(len(ref['sentences']) for ref in refs)


def annotation(mask: np.ndarray, crowd: bool) -> dict:
    """Outline, area and box of an object; of a crowd, as COCO has it, the lengths of the runs instead of the outline."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    # An outline runs through the centres of the pixels at the border; their outer half is added.
    wide = np.kron(mask, np.ones((2, 2))).astype(np.uint8)
    outlines, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = [(outline[:, 0] / 2 + 0.25).ravel().tolist() for outline in outlines if len(outline) > 2]
    return dict(
        segmentation=dict(size=encoded['size'], counts=runs(mask)) if crowd else polygons,
        area=float(mask.sum()),
        iscrowd=int(crowd),
        bbox=coco_mask.toBbox(encoded).tolist(),
    )


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0, 1, 0, ... in the order of columns."""
    values = mask.ravel(order='F')
    starts = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff([0, *starts, len(values)]).tolist()
    return [0, *lengths] if values[0] else lengths


def reference(of: dict, split: str, texts: Sequence[str], before: Sequence[dict]) -> dict:
    first = sum(len(ref['sentences']) for ref in before)
    sent_ids = list(range(first, first + len(texts)))
    return dict(
        ref_id=len(before),
        ann_id=of['id'],
        image_id=of['image_id'],
        category_id=of['category_id'],
        split=split,
        file_name=f'{picture_name(of["image_id"])}_{of["id"]}.jpg',
        sent_ids=sent_ids,
        sentences=[
            dict(sent_id=i, raw=f'{text.capitalize()}.', sent=text, tokens=text.split())
            for i, text in zip(sent_ids, texts)
        ],
    )


# --- MeViS


def write_mevis(root: Path, source: Source) -> dict[str, int]:
    splits = dict(
        train=source.clips('train', source.num_train),
        valid_u=source.clips('valid', source.num_valid),
        valid=source.clips('valid', source.num_valid, part=1),
    )
    counts = {}
    anno_id = 0
    for split, clips in splits.items():
        videos, masks = {}, {}
        for clip in sorted(clips, key=lambda clip: clip.code(12)):
            frames = [f'{t:05d}' for t in range(len(clip.frames))]
            save_pictures(root / split / 'JPEGImages' / clip.code(12), frames, clip.frames, '.jpg')
            expressions = {}
            for text, objects in sentences_of_several(clip):
                record = dict(exp=text)
                if split != 'valid':
                    record |= dict(obj_id=objects, anno_id=[anno_id + i for i in objects])
                expressions[str(len(expressions))] = record
            videos[clip.code(12)] = dict(expressions=expressions, frames=frames)
            for number in range(len(clip.scene.things)):
                masks[str(anno_id + number)] = [run_lengths(mask) for mask in clip.masks(number)]
            anno_id += len(clip.scene.things)
        dump_json(dict(videos=videos), root / split / 'meta_expressions.json')
        if split != 'valid':
            dump_json(masks, root / split / 'mask_dict.json')
        counts[f'{split} videos'] = len(videos)
        counts[f'{split} sentences'] = sum(len(record['expressions']) for record in videos.values())
    return counts


def run_lengths(mask: np.ndarray) -> dict | None:
    if not mask.any():
        return None
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=code['size'], counts=code['counts'].decode())


def sentences_of_several(clip: Clip) -> Iterator[tuple[str, list[int]]]:
    """The sentences of a video, those that name several objects among them, with the numbers of what they name."""
    for claim, target in zip(clip.claims, clip.targets):
        yield claim.text, [target]
    first, second = (claim.text for claim in clip.claims)
    yield f'{first} and {second}', sorted(clip.targets)
    for noun in [*map(Noun, SHAPES), *(Noun(None, color) for color in COLORS)]:
        named = [i for i, thing in enumerate(clip.scene.things) if noun.fits(thing)]
        if len(named) > 1:
            yield f'all {noun}{"es" if noun.shape == "cross" else "s"}', named


# --- all of them

LAYOUTS: dict[str, tuple[str, Callable[[Path, Source], dict[str, int]]]] = {  # folder below the root, writer
    'ref-youtube-vos': ('ref-youtube-vos', write_ref_youtube_vos),
    'ref-davis17': ('ref-davis', write_ref_davis17),
    'a2d-sentences': ('a2d_sentences', write_a2d_sentences),
    'jhmdb-sentences': ('jhmdb_sentences', write_jhmdb_sentences),
    'refcoco': ('coco', write_refcoco),
    'mevis': ('mevis', write_mevis),
}


def is_there(folder: Path, expected: dict, overwrite: bool) -> bool:
    """Whether the twin is there with the same parameters.

    Raises:
        ValueError: with others, and it is not to be overwritten, or it is something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f'{folder} exists and is no twin (it has no {MANIFEST}), so that it is not touched; name another --out'
        )
    found = load_json(folder / MANIFEST, MANIFEST)
    found = found if isinstance(found, dict) else {}
    differing = [
        f'{name} {found.get(name)!r} instead of {value!r}'
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if differing and not overwrite:
        raise UserError(f'{folder} holds a twin with other parameters: {", ".join(differing)}; --overwrite replaces it')
    return not differing


def write_twin(root: Path, layout: str, source: Source, overwrite: bool) -> tuple[Path, dict[str, int] | None]:
    """Writes a twin, whole or not at all, unless it is there; returns its folder, and its counts if it was written.

    It is written to a hidden folder beside its own, which is renamed at the end. What a killed run left there is removed.

    Raises:
        ValueError: see `is_there`.
        BlockingIOError: another process is writing it.
    """
    name, write = LAYOUTS[layout]
    folder = root.absolute() / name
    parameters = dict(
        version=VERSION, generator=GENERATOR_VERSION, layout=layout, public=source.public, **asdict(source.settings)
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if is_there(folder, parameters, overwrite):
            return folder, None
        partial, old = (folder.with_name(f'.{name}.{suffix}') for suffix in ('partial', 'old'))
        for rest in (partial, old):
            shutil.rmtree(rest, ignore_errors=True)
        try:
            partial.mkdir()
            counts = write(partial, source)
            dump_json(dict(parameters, counts=counts), partial / MANIFEST, indent=1)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
        finally:
            for rest in (partial, old):
                shutil.rmtree(rest, ignore_errors=True)
    return folder, counts


def parse_args() -> tuple[Namespace, Settings]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, metavar='ROOT', help='folder of the twins, to be named by MMSOC_DATA')
    parser.add_argument('--layouts', nargs='+', choices=list(LAYOUTS), default=list(LAYOUTS), help='default: all')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    for split, number in (('train', 16), ('valid', 8)):
        parser.add_argument(
            f'--{split}-videos', type=int, default=number, metavar='N', help='a multiple of 4 (default: %(default)s)'
        )
    parser.add_argument('--size', type=int, nargs=2, default=(96, 64), metavar=('W', 'H'), help='even (default: 96 64)')
    parser.add_argument('--num-frames', type=int, default=12, metavar='T', help='of a video (default: %(default)s)')
    parser.add_argument(
        '--public', action='store_true', help='Ref-YouTube-VOS valid as it is public: no masks, no obj_id'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace twins that have other parameters')
    args = parser.parse_args()
    try:
        settings = Settings(
            seed=args.seed,
            train_videos=args.train_videos,
            valid_videos=args.valid_videos,
            width=args.size[0],
            height=args.size[1],
            num_frames=args.num_frames,
        )
    except ValueError as error:
        parser.error(str(error))
    if 'a2d-sentences' in args.layouts and (args.size[0] % 2 or args.size[1] % 2):
        parser.error(f'--size: H.264 needs even numbers (layout a2d-sentences), found {args.size[0]} {args.size[1]}')
    return args, settings


def main() -> None:
    args, settings = parse_args()
    source = Source(settings, args.public)
    try:
        for layout in args.layouts:
            start = time.monotonic()
            folder, counts = write_twin(Path(args.out), layout, source, args.overwrite)
            if counts is None:
                print(f'{folder}: there already, with the same parameters; nothing to do')
            else:
                numbers = ', '.join(f'{number} {name}' for name, number in counts.items())
                print(f'{folder}: written in {time.monotonic() - start:.1f} s: {numbers}')
    except KeyboardInterrupt:
        raise SystemExit('stopped; a twin that is not complete was not written') from None
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None


if __name__ == '__main__':
    main()
