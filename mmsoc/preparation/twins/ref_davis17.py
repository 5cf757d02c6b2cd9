"""Ref-DAVIS17: the archives, and the converter's result."""

from pathlib import Path

import numpy as np

from mmsoc.preparation.ref_davis17 import IMAGES, MASKS, TEXTS, convert
from mmsoc.utils.files import dump_json

from .source import VOID, Clip, Source, save_images


def write_ref_davis17(root: Path, source: Source) -> dict[str, int]:
    def fits(clip: Clip) -> bool:
        # The protocol scores the objects in the first mask.
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
            save_images(root / IMAGES / video, frames, clip.frames, '.jpg')
            save_images(root / MASKS / video, frames, ids, '.png')
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
    convert(root, expect=False)
    return {f'{split} videos': len(clips) for split, clips in splits.items()}
