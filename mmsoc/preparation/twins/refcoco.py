"""RefCOCO, RefCOCO+ and RefCOCOg."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmsoc.utils.files import dump_json

from .source import Clip, Source, save_images

MIN_PIXELS = 20  # minimum size of a named object
CATEGORIES = dict(
    circle=('sports', 34, 'frisbee'), square=('indoor', 84, 'book'), triangle=('sports', 38, 'kite'),
    star=('indoor', 88, 'teddy bear'), cross=('kitchen', 48, 'fork'), heart=('food', 53, 'apple'),
)  # fmt: skip
"""of COCO, for the shapes: supercategory, id, name"""
REFCOCO = {  # file of references, splits
    'refcoco': ('refs(unc).p', ('train', 'val', 'testA', 'testB')),
    'refcoco+': ('refs(unc).p', ('train', 'val', 'testA', 'testB')),
    'refcocog': ('refs(umd).p', ('train', 'val', 'test')),
}
WITHOUT_PLACE = ('is', 'largest', 'smallest')  # the events allowed in RefCOCO+


def write_refcoco(root: Path, source: Source) -> dict[str, int]:
    """Two images of each video."""

    def fits(clip: Clip) -> bool:
        return clip.scene.family in ('appearance', 'relation') and bool(frames_of(clip))

    train = source.clips('train', source.num_train // 2, fits=fits)
    others = [source.clips('valid', source.num_valid // 2, part=part, fits=fits) for part in range(3)]
    numbers: dict[tuple[Clip, int], int] = {}
    for clip in [*train, *sum(others, [])]:
        for t in frames_of(clip):
            numbers[clip, t] = 100 + 37 * len(numbers)  # ids with gaps, like those of COCO
    images = [clip.frames[t] for clip in [*train, *sum(others, [])] for t in frames_of(clip)]
    save_images(root / 'train2014', [image_name(number) for number in numbers.values()], images, '.jpg')
    counts = dict(pictures=len(numbers))
    for name, (file, splits) in REFCOCO.items():
        of_split = dict(zip(splits, [train, *others]))
        counts[f'{name} sentences'] = write_references(root / name, name, file, of_split, numbers)
    return counts


def frames_of(clip: Clip) -> list[int]:
    """Frames in which both targets are large enough; at most two."""
    seen = np.flatnonzero((clip.areas[clip.targets] >= MIN_PIXELS).all(0)).tolist()
    return seen[:: max(len(seen) - 1, 1)][:2]


def image_name(image_id: int) -> str:
    return f'COCO_train2014_{image_id:012d}'


def write_references(folder: Path, name: str, file: str, splits: dict[str, list[Clip]], numbers: dict) -> int:
    """The files of one of the three data sets; returns the number of sentences."""
    common = dict(info=dict(description=f'a twin of {name}'), licenses=[dict(id=1, name='none', url='')])
    common['categories'] = [dict(supercategory=above, id=i, name=what) for above, i, what in CATEGORIES.values()]
    images: list[dict] = []
    annotations: list[dict] = []
    refs: list[dict] = []
    for split, clips in splits.items():
        sentences: dict[str, list] = dict(images=[], annotations=[])
        for clip in clips:
            for t in frames_of(clip):
                image_id = numbers[clip, t]
                height, width = clip.ids.shape[1:]
                image = dict(file_name=f'{image_name(image_id)}.jpg', height=height, width=width)
                images.append(dict(image, id=image_id, license=1))
                of_thing = {}
                for k, thing in enumerate(clip.scene.things):
                    if clip.areas[k, t] >= MIN_PIXELS:
                        crowd = k == clip.targets[0] and len(images) % 8 == 4
                        of_thing[k] = annotation(clip.masks(k)[t], crowd)
                        of_thing[k] |= dict(
                            image_id=image_id, category_id=CATEGORIES[thing.shape][1], id=1000 + len(annotations)
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
    """Outline, area and box of an object; for a crowd, as in COCO, run lengths instead of the outline."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    # An outline passes through the centres of the border pixels; their outer half is added.
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
    starts: np.ndarray = np.flatnonzero(np.diff(values)) + 1
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
        file_name=f'{image_name(of["image_id"])}_{of["id"]}.jpg',
        sent_ids=sent_ids,
        sentences=[
            dict(sent_id=i, raw=f'{text.capitalize()}.', sent=text, tokens=text.split())
            for i, text in zip(sent_ids, texts)
        ],
    )
