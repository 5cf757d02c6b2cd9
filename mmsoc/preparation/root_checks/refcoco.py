"""RefCOCO, RefCOCO+ and RefCOCOg."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmsoc.datasets.refcoco import RefCOCODataset, load_plain_pickle
from mmsoc.utils.files import listed

from .check import Fault, Finding, RootCheck, by, check_file, open_image, rle_faults, short

SETS: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {  # file of references; split: (references, sentences)
    'refcoco': (
        'refs(unc).p',
        dict(train=(42404, 120624), val=(3811, 10834), testA=(1975, 5657), testB=(1810, 5095)),
    ),
    'refcoco+': (
        'refs(unc).p',
        dict(train=(42278, 120191), val=(3805, 10758), testA=(1975, 5726), testB=(1798, 4889)),
    ),
    'refcocog': ('refs(umd).p', dict(train=(42226, 80512), val=(2573, 4896), test=(5023, 9602))),
}

Records = dict[int, dict]
Sizes = dict[str, tuple[int, int]]


def check_refcoco(check: RootCheck) -> None:
    """Checks the files with one annotation per sentence, the originals if present, and the COCO images they name."""
    sizes: Sizes = {}
    folder = check.root / 'train2014'
    there = check.has(folder, 'the images of COCO')
    for name, (refs, splits) in SETS.items():
        of_set = check.root / name
        if not check.has(of_set, f'the files of {name}'):
            continue
        for split, (_, documented) in splits.items():
            path = of_set / f'instances_{name}_{split}.json'
            if split not in ('train', 'val') and not path.exists():
                continue
            content = check.json(path, f'the sentences of {name} {split}')
            if content is not None:
                images, annotations = _records(check, path, content, sizes)
                check.count(f'{name} {split} sentences', len(images), documented, path)
                _check_sentences(check, path, images, annotations)
                if not check.quick:
                    check.load(RefCOCODataset, path, ann_file=str(path.relative_to(check.root)), test_mode=True)
        if (of_set / 'instances.json').exists() or (of_set / refs).exists():
            _check_references(check, name, of_set / 'instances.json', of_set / refs, sizes)
            for split in splits if not check.quick else ():
                options = dict(
                    ann_file=f'{name}/instances.json', refs_file=f'{name}/{refs}', split=split, test_mode=True
                )
                check.load(RefCOCODataset, of_set / refs, **options)
        else:
            check.notes.append(f'{of_set} does not hold the originals, {refs} and instances.json')
    if there:
        check.each(sorted(sizes), lambda name: _check_image(check, folder / name, sizes[name]), 'images')


def _check_image(check: RootCheck, path: Path, size: tuple[int, int]) -> Iterator[Finding]:
    try:
        check_file(path, 'an image')
        found = size if check.quick else open_image(path, check.full).size
        if found != size:
            yield Finding('size', str(path), f'{by(size)}, as the text files say', by(found))
    except Fault as fault:
        yield fault.finding


def _records(check: RootCheck, path: Path, content: Any, sizes: Sizes) -> tuple[Records, Records]:
    """The valid images and annotations by id; adds the images' files and sizes to ``sizes``."""
    content = content if isinstance(content, dict) else {}
    wanted: dict[str, dict[str, Any]] = dict(
        images=dict(id=int, file_name=str, height=int, width=int),
        annotations=dict(id=int, image_id=int, category_id=int, segmentation=(list, dict), bbox=list),
    )
    found: dict[str, Records] = dict(images={}, annotations={})
    for key, fields in wanted.items():
        items = content.get(key)
        if not isinstance(items, list):
            check.add('content', path, f'{key!r}, a list', short(items))
            continue
        for number, item in enumerate(items):
            bad = [
                name
                for name, kind in fields.items()
                if not isinstance(item, dict) or not isinstance(item.get(name), kind)
            ]
            if bad:
                check.add(
                    'field',
                    path,
                    f'{key}, place {number}: {", ".join(fields)}, of the right kind',
                    f'others: {listed(bad)}',
                )
            elif item['id'] in found[key]:
                check.add('duplicate', path, f'{key}: the id {item["id"]} once', f'again in place {number}')
            else:
                found[key][item['id']] = item
    images, annotations = found['images'], found['annotations']
    for image in images.values():
        size = (image['width'], image['height'])
        known = sizes.setdefault(image['file_name'], size)
        if known != size:
            check.add('size', path, f'image {image["id"]}: {image["file_name"]} of {by(known)}, as before', by(size))
    categories = {item.get('id') for item in content.get('categories', []) if isinstance(item, dict)}
    for annotation in annotations.values():
        where = f'annotation {annotation["id"]}: '
        if annotation['category_id'] not in categories:
            check.add('unknown', path, f'{where}a category of the file', f'category_id {annotation["category_id"]}')
        if annotation['image_id'] not in images:
            check.add('unknown', path, f'{where}an image of the file', f'image_id {annotation["image_id"]}')
            continue
        image = images[annotation['image_id']]
        for kind, expected, fault in _segmentation_faults(annotation, (image['width'], image['height']), check.full):
            check.add(kind, path, f'{where}{expected}', fault)
    return images, annotations


def _segmentation_faults(annotation: dict, size: tuple[int, int], full: bool) -> Iterator[tuple[str, str, str]]:
    segmentation = annotation['segmentation']
    if isinstance(segmentation, dict):
        yield from (fault[1:] for fault in rle_faults([segmentation], size, full))
    elif not segmentation or not all(isinstance(of, list) and len(of) >= 6 and len(of) % 2 == 0 for of in segmentation):
        yield 'field', 'polygons of at least three corners x, y', short(segmentation)


def _check_sentences(check: RootCheck, path: Path, images: Records, annotations: Records) -> None:
    """Checks for one sentence and one annotation per image."""
    numbers = Counter(annotation['image_id'] for annotation in annotations.values())
    for i, image in images.items():
        if numbers[i] != 1:
            check.add('content', path, f'image {i}: one annotation', str(numbers[i]))
        caption = image.get('caption')
        if not isinstance(caption, str) or not caption.strip():
            check.add('content', path, f"image {i}: a sentence 'caption'", short(caption))


def _check_references(check: RootCheck, name: str, instances: Path, path: Path, sizes: Sizes) -> None:
    content = check.json(instances, 'the annotations')
    images, annotations = ({}, {}) if content is None else _records(check, instances, content, sizes)
    if not check.has(path, 'the references'):
        return
    try:
        refs = load_plain_pickle(str(path), 'file')
    except (ValueError, OSError) as error:
        check.add('unreadable', path, 'a pickle of references', str(error).removeprefix('file: '))
        return
    splits = SETS[name][1]
    numbers: Counter = Counter()
    seen: dict[tuple[str, Any], int] = {}
    for number, ref in enumerate(refs if isinstance(refs, list) else [refs]):
        sentences = ref.get('sentences') if isinstance(ref, dict) and ref.get('split') in splits else None
        if (
            not isinstance(sentences, list)
            or not sentences
            or not all(isinstance(of, dict) and str(of.get('sent', '')).strip() for of in sentences)
        ):
            check.add(
                'content', path, f'reference {number}: sentences, and a split of {listed(list(splits))}', short(ref)
            )
            continue
        numbers.update({(ref['split'], 'references'): 1, (ref['split'], 'sentences'): len(sentences)})
        for key, i in [('ref_id', ref.get('ref_id')), *(('sent_id', of.get('sent_id')) for of in sentences)]:
            earlier = seen.setdefault((key, i), number)
            if earlier != number:
                check.add('duplicate', path, f'the {key} {i} once', f'in the references {earlier} and {number}')
        for key, records in (('ann_id', annotations), ('image_id', images)):
            if records and ref.get(key) not in records:
                check.add('unknown', path, f'reference {number}: {key} of {instances.name}', str(ref.get(key)))
    for split, documented in splits.items():
        for what, expected in zip(('references', 'sentences'), documented):
            check.count(f'{name} {split} {what} of {path.name}', numbers[split, what], expected, path)
