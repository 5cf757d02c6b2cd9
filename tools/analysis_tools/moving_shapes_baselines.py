"""J&F without reading the sentence: three baselines on MovingShapes, by family.

    python tools/analysis_tools/moving_shapes_baselines.py data/moving-shapes

``empty``: empty masks. ``whole_frame``: full masks. ``random_object``: the perfect mask of a random object of the
video, independent of the sentence; computed as the mean over the video's objects, not by drawing.
"""

import argparse
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mmsoc.evaluation import boundary_f, mean_jf, region_similarity, subsets
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.files import load_json, read_ids

BASELINES = ('empty', 'whole_frame', 'random_object')


def baselines(
    data_root: str | Path, videos: Collection[str] | None = None, split: str = 'valid'
) -> dict[str, dict[str, float]]:
    """J&F in 0-100 of each baseline: ``{baseline: {family: value, ..., 'all': value}}``.

    Args:
        videos: names of the videos to use; default: all of the split.
    """
    data_root = Path(data_root)
    content = load_json(data_root / 'meta_expressions' / split / 'meta_expressions.json', 'expressions')['videos']
    unknown = set(videos or ()) - set(content)
    if unknown:
        raise UserError(f'{data_root}: the {split} split has no videos {", ".join(sorted(unknown))}')
    rows: dict[str, list[dict]] = {name: [] for name in BASELINES}
    for video in content if videos is None else videos:
        folder = data_root / split / 'Annotations' / video
        ids = [read_ids(folder / f'{frame}.png', f'video {video}') for frame in content[video]['frames']]
        objects = sorted({int(i) for frame in ids for i in np.unique(frame)} - {0})
        for claim in content[video]['expressions'].values():
            target = [frame == int(claim['obj_id']) for frame in ids]
            guesses = dict(
                empty=[[np.zeros_like(mask) for mask in target]],
                whole_frame=[[np.ones_like(mask) for mask in target]],
                random_object=[[frame == i for frame in ids] for i in objects],
            )
            for name, tracks in guesses.items():
                pairs = [pair for masks in tracks for pair in zip(target, masks)]
                j = float(np.mean([region_similarity(*pair) for pair in pairs]))
                f = float(np.mean([boundary_f(*pair) for pair in pairs]))
                rows[name].append(dict(J=j, F=f, family=claim.get('family'), held_out=claim.get('held_out')))
    return {name: _by_family(of_baseline) for name, of_baseline in rows.items()}


def _by_family(rows: list[dict]) -> dict[str, float]:
    groups = {name: group for name, group in subsets(rows).items() if name != 'held_out'} | dict(all=rows)
    return {name: round(100 * mean_jf(group)['J&F'], 2) for name, group in groups.items()}


@user_errors()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root')
    parser.add_argument('--split', default='valid', choices=('train', 'valid'), help='(default: %(default)s)')
    args = parser.parse_args()
    result = baselines(args.data_root, split=args.split)
    families = list(result['empty'])
    print('| J&F | ' + ' | '.join(families) + ' |\n|---|' + '---:|' * len(families))
    for name, values in result.items():
        print(f'| {name} | ' + ' | '.join(f'{values[family]:.1f}' for family in families) + ' |')


if __name__ == '__main__':
    main()
