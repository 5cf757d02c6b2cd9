"""Writes a small RefCOCO, RefCOCO+ and RefCOCOg in both forms in which they go around."""

import copy
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

GREY = 90


def rectangle(left, top, right, bottom):
    """As a polygon: the columns left..right - 1 and the rows top..bottom - 1."""
    return [left, top, right, top, right, bottom, left, bottom]


def drawn(height, width, *rectangles):
    """The mask of some rectangles, drawn without polygons."""
    mask = np.zeros((height, width), np.uint8)
    for left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = 1
    return mask


def compressed(mask):
    code = coco_mask.encode(np.asfortranarray(mask))
    return dict(size=code['size'], counts=code['counts'].decode())


IMAGES = {100: (48, 64), 237: (40, 80), 374: (64, 48)}  # image id: height, width

# Annotation id: image, rectangles (left, top, right, bottom), color.  1004 is a crowd, 1006 is outside of its image.
OBJECTS = {
    1001: (100, [(4, 6, 24, 26)], (220, 20, 20)),
    1002: (100, [(30, 4, 40, 14), (44, 20, 60, 44)], (20, 20, 220)),
    1003: (237, [(50, 10, 70, 30)], (20, 200, 20)),
    1004: (237, [(2, 2, 40, 38)], (200, 200, 20)),
    1005: (374, [(8, 40, 28, 60)], (200, 20, 200)),
    1006: (374, [(60, 10, 70, 20)], (0, 0, 0)),
    1007: (374, [(20, 4, 44, 24)], (20, 200, 200)),
}

# ref_id: split, annotation, sentences.
REFS = {
    10: ('train', 1001, [' The  Bright left\tBox ', 'red one']),
    11: ('train', 1002, ['two blue things']),
    12: ('train', 1003, ['green', 'green', 'caf\xe9 on the right']),
    13: ('train', 1004, ['the crowd', 'all of them']),
    14: ('val', 1005, ['Left box', 'pink']),
    15: ('val', 1006, ['nothing']),
    16: ('val', 1007, ['upper  one']),
}


def file_name(image_id):
    return f'COCO_train2014_{image_id:012d}.jpg'


def mask_of(ann_id):
    image_id, rectangles, _ = OBJECTS[ann_id]
    return drawn(*IMAGES[image_id], *rectangles)


def instances():
    """The content of instances.json."""
    images = [
        dict(id=i, file_name=file_name(i), height=height, width=width, license=1)
        for i, (height, width) in IMAGES.items()
    ]
    annotations = []
    for i, (image_id, rectangles, _) in OBJECTS.items():
        mask = mask_of(i)
        if i == 1003:
            segmentation = compressed(mask)
        elif i == 1004:  # numbers of pixels by columns, zeros first, as COCO stores crowds
            changes = np.flatnonzero(np.diff(mask.ravel('F'), prepend=0))
            segmentation = dict(size=list(mask.shape), counts=np.diff([0, *changes, mask.size]).tolist())
        else:
            segmentation = [rectangle(*corners) for corners in rectangles]
        left, top, right, bottom = rectangles[0]
        annotations.append(
            dict(
                id=i,
                image_id=image_id,
                category_id=1,
                iscrowd=int(i == 1004),
                segmentation=segmentation,
                area=float(mask.sum()),
                bbox=[left, top, right - left, bottom - top],
            )
        )
    return dict(
        info={},
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[dict(id=1, name='person', supercategory='')],
    )


def references():
    """The content of the pickle."""
    refs, sent_id = [], 700
    for ref_id, (split, ann_id, texts) in REFS.items():
        image_id = OBJECTS[ann_id][0]
        sentences = [
            dict(sent_id=sent_id + i, sent=text, raw=text.upper(), tokens=text.split()) for i, text in enumerate(texts)
        ]
        sent_id += len(texts)
        refs.append(
            dict(
                ref_id=ref_id,
                ann_id=ann_id,
                image_id=image_id,
                category_id=1,
                split=split,
                sentences=sentences,
                sent_ids=[sentence['sent_id'] for sentence in sentences],
                file_name=file_name(image_id).replace('.jpg', f'_{ref_id}.jpg'),
            )
        )  # of no image, as in the real files
    return refs


def prepared(split):
    """The content of instances_<set>_<split>.json: an image and an annotation per sentence."""
    content = instances()
    images = {image['id']: image for image in content.pop('images')}
    annotations = {annotation['id']: annotation for annotation in content.pop('annotations')}
    content.update(images=[], annotations=[])
    for of_split, ann_id, texts in REFS.values():
        for text in texts if of_split == split else ():
            number = len(content['images']) + 1
            image_id = OBJECTS[ann_id][0]
            content['images'].append(
                dict(images[image_id], original_id=image_id, id=number, caption=text, dataset_name='refcoco')
            )
            content['annotations'].append(
                dict(copy.deepcopy(annotations[ann_id]), id=number, image_id=number, original_id=ann_id)
            )
    return content


def python2_pickle(value):
    """What Python 2's pickle writes by default: protocol 0, with byte strings."""

    def write(value):
        if isinstance(value, list):
            return b'(l' + b''.join(write(item) + b'a' for item in value)
        if isinstance(value, dict):
            return b'(d' + b''.join(write(key) + write(item) + b's' for key, item in value.items())
        if isinstance(value, str):
            return b'S' + repr(value.encode('latin1'))[1:].encode() + b'\n'
        assert isinstance(value, int), value
        return b'I%d\n' % value

    return write(value) + b'.'


def write_refcoco(root, names=('refcoco', 'refcoco+', 'refcocog')):
    """Returns ``root / 'coco'`` with all sets, which are alike."""
    root = Path(root) / 'coco'
    (root / 'train2014').mkdir(parents=True)
    for image_id, (height, width) in IMAGES.items():
        pixels = np.full((height, width, 3), GREY, np.uint8)
        for ann_id, (of, _, color) in OBJECTS.items():
            if of == image_id and ann_id != 1004:
                pixels[mask_of(ann_id) > 0] = color
        Image.fromarray(pixels).save(root / 'train2014' / file_name(image_id), quality=98, subsampling=0)
    for name in names:
        (root / name).mkdir()
        (root / name / 'instances.json').write_text(json.dumps(instances()))
        by = 'umd' if name == 'refcocog' else 'unc'
        (root / name / f'refs({by}).p').write_bytes(python2_pickle(references()))
        for split in ('train', 'val'):
            (root / name / f'instances_{name}_{split}.json').write_text(json.dumps(prepared(split)))
    return root
