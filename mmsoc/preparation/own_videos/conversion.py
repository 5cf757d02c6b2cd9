"""Converts a folder of videos, masks and sentences to a data set in the layout of Ref-YouTube-VOS.

The docstring of ``tools/dataset_converters/own_videos.py`` describes the folder.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from mmsoc.preparation.folders import atomic_folder, restore
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, listed

from .source import Video, plan_video, read_expressions, unused_entries
from .writer import write_set

MANIFEST = 'own_videos.json'


def choose_valid(names: Sequence[str], valid: Sequence[str] | None, share: float, seed: int) -> set[str]:
    """The videos of the valid split: the named ones, or a randomly drawn share.

    Raises:
        UserError: a name is unknown, or nothing is left for training.
    """
    if valid is not None:
        unknown = [name for name in valid if name not in names]
        if unknown:
            raise UserError(
                f'--valid: no row of expressions.csv names the videos {unknown}; it names {listed(sorted(names))}'
            )
        chosen = set(valid)
    else:
        number = max(round(share * len(names)), 1) if share else 0
        chosen = set(random.Random(seed).sample(sorted(names), number))
    if len(chosen) == len(names):
        raise UserError(
            f'no video is left for training: the csv names {len(names)}, and {listed(sorted(chosen))} would be the valid '
            'split; add videos (a long one can be cut into several), or --valid-share 0 for a set without '
            'a valid split, which cannot be scored'
        )
    return chosen


def check_out(out: Path, source: Path, overwrite: bool) -> None:
    """
    Raises:
        UserError: ``out`` holds files that must not be replaced.
    """
    if out == source or out in source.parents:
        raise UserError(f'--out {out} is, or holds, the folder {source} that is read')
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        # Also with --overwrite: a mistyped name must not delete a folder.
        raise UserError(
            f'--out {out} exists and was not written by this tool (it has no {MANIFEST}); name another folder'
        )
    if not overwrite:
        raise UserError(f'--out {out} is not empty; add --overwrite to replace it')


def convert(
    source: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    first_number: int = 0,
    binary_masks: bool = False,
    valid: Sequence[str] | None = None,
    valid_share: float = 0.2,
    seed: int = 0,
    overwrite: bool = False,
) -> str:
    """Writes the set atomically.

    Args:
        source: folder with videos/, masks/ and expressions.csv.
        out: folder to write.
        every: keep every N-th frame of a video, starting with the first.
        first_number: number of a video file's first frame in the names of its masks.
        binary_masks: masks are black and white; white is object 1.
        valid: the videos of the valid split; None: ``valid_share`` of all videos is drawn with ``seed``.
        overwrite: replace the result of an earlier call in ``out``.

    Returns:
        The summary.

    Raises:
        FileNotFoundError, UserError: files are missing, broken or inconsistent, or ``out`` must not be replaced.
    """
    source, shown, out = Path(source).absolute(), Path(out), Path(out).absolute()
    for folder in (source, source / 'videos', source / 'masks'):
        if not folder.is_dir():
            raise FileNotFoundError(
                f'there is no folder {folder}; expected videos/, masks/ and expressions.csv in {source}'
            )
    restore(out)
    check_out(out, source, overwrite)
    by_video, unused_columns = read_expressions(source / 'expressions.csv')
    chosen = choose_valid(list(by_video), valid, valid_share, seed)
    videos = [
        plan_video(source, name, sentences, every=every, first_number=first_number, binary_masks=binary_masks)
        for name, sentences in by_video.items()
    ]

    with atomic_folder(out) as folder:
        counts = write_set(folder, videos, chosen)
        parameters = dict(
            source=str(source), every=every, binary_masks=binary_masks, valid=sorted(chosen), counts=counts
        )
        dump_json(parameters, folder / MANIFEST, indent=1)
    return summary(shown, counts, videos, every, unused_columns, unused_entries(source, by_video))


def summary(
    out: Path, counts: dict, videos: Sequence[Video], every: int, columns: list[str], entries: list[str]
) -> str:
    names = ('videos', 'objects', 'sentences', 'frames')
    lines = [f'{"":5}' + ''.join(f'{name:>11}' for name in names)]
    lines += [f'{split:5}' + ''.join(f'{counts[split][name]:>11}' for name in names) for split in counts]
    if 'valid' not in counts:
        lines.append('There is no valid split: nothing can be scored.')
    unused_masks = sum(video.unused_masks for video in videos)
    if unused_masks:
        lines.append(f'Left out by --every {every}: {unused_masks} frames with a mask')
    without = {
        video.name: video.total_frames - len(video.masks) - video.unused_masks
        for video in videos
        if video.total_frames > len(video.masks) + video.unused_masks
    }
    if without:
        each = listed([f'{name} {number}' for name, number in without.items()])
        lines.append(f'Left out, since they have no mask: {sum(without.values())} frames ({each})')
    silent = [
        f'{video.name} {sorted(set(video.seen) - {sentence.object for sentence in video.sentences})}'
        for video in videos
        if not set(video.seen) <= {sentence.object for sentence in video.sentences}
    ]
    if silent:
        lines.append(f'Objects in the masks that no sentence names: {listed(silent)}')
    if entries:
        lines.append(f'Not used, since no row names it: {listed(entries)}')
    if columns:
        lines.append(f'Columns of the csv that are not used: {listed(columns)}')
    return '\n'.join([*lines, f'Written: {out}'])
