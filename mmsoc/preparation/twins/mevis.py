"""MeViS."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmsoc.preparation.moving_shapes import Noun
from mmsoc.preparation.moving_shapes.scene import COLORS, SHAPES
from mmsoc.utils.files import dump_json
from mmsoc.utils.masks import json_codes

from .source import Clip, Source, save_images


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
            save_images(root / split / 'JPEGImages' / clip.code(12), frames, clip.frames, '.jpg')
            expressions: dict[str, dict] = {}
            for text, objects in sentences_of_several(clip):
                record: dict = dict(exp=text)
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
    return json_codes(mask[None])[0]


def sentences_of_several(clip: Clip) -> Iterator[tuple[str, list[int]]]:
    """The sentences of a video, some of which name several objects, with the numbers of their objects."""
    for claim, target in zip(clip.claims, clip.targets):
        yield claim.text, [target]
    first, second = (claim.text for claim in clip.claims)
    yield f'{first} and {second}', sorted(clip.targets)
    for noun in [*map(Noun, SHAPES), *(Noun(None, color) for color in COLORS)]:
        named = [i for i, thing in enumerate(clip.scene.things) if noun.fits(thing)]
        if len(named) > 1:
            yield f'all {noun}{"es" if noun.shape == "cross" else "s"}', named
