"""Ref-YouTube-VOS."""

from pathlib import Path

from mmsoc.utils.files import dump_json

from .source import Source, save_images

CATEGORIES = dict(circle='frisbee', square='sign', triangle='boat', star='others', cross='airplane', heart='hand')
"""of the data set, for the shapes"""


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
            save_images(root / split / 'JPEGImages' / video, frames, clip.frames, '.jpg')
            if with_masks:
                save_images(root / split / 'Annotations' / video, frames, clip.ids, '.png')
            expressions = {
                str(i): dict(exp=claim.text) | (dict(obj_id=str(target + 1)) if with_masks else {})
                for i, (claim, target) in enumerate(zip(clip.claims, clip.targets))
            }
            records[split][video] = dict(expressions=expressions, frames=frames)
            if split == 'train':
                seen = [[frame for frame, area in zip(frames, areas) if area] for areas in clip.areas]
                objects[video] = dict(
                    objects={
                        str(i): dict(category=CATEGORIES[thing.shape], frames=seen[i - 1])
                        for i, thing in enumerate(clip.scene.things, 1)
                    }
                )
    records['valid'] = dict(sorted((records['valid'] | records['test']).items()))
    for split, videos in records.items():
        dump_json(dict(videos=videos), root / f'meta_expressions/{split}/meta_expressions.json')
    dump_json(dict(videos=objects), root / 'train/meta.json')
    return {f'{split} videos': len(clips) for split, clips in splits.items()}
