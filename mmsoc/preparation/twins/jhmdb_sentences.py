"""JHMDB-Sentences."""

from pathlib import Path

import numpy as np
import scipy.io

from mmsoc.utils.files import dump_json

from .source import Clip, Source, save_images


def write_jhmdb_sentences(root: Path, source: Source) -> dict[str, int]:
    def fits(clip: Clip) -> bool:
        return bool(np.count_nonzero(clip.areas[clip.targets[0], :-1]) >= 3)

    clips = source.clips('valid', source.num_valid, fits=fits)
    lines, rows = ['video_id,query'], []
    for i, clip in enumerate(clips):
        video, action = f'shapes_{clip.scene.family}_{i}', f'{clip.scene.family}_action'
        length = len(clip.frames) - i % 2
        names = [f'{t + 1:05d}' for t in range(len(clip.frames))]
        save_images(root / 'Rename_Images' / action / video, names, clip.frames, '.png')
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
