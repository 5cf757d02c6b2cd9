"""Generates MovingShapes: small videos of moving shapes, with masks and sentences, in the layout of Ref-YouTube-VOS.

    python tools/dataset_converters/moving_shapes.py --out data/moving-shapes

The set depends only on the parameters, not on the number of workers. It appears under its name when it is complete; if
it already exists with the same parameters, nothing is done.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.preparation.moving_shapes import DIFFICULTIES, EVENT_AT, Settings, TenthLines, generate
from mmsoc.preparation.progress import progress_bar
from mmsoc.utils.errors import UserError, user_errors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    data = Path(os.environ.get('MMSOC_DATA') or 'data')
    parser.add_argument('--out', default=str(data / 'moving-shapes'), help='folder (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=default.seed, help='(default: %(default)s)')
    for split, number in (('train', default.train_videos), ('valid', default.valid_videos)):
        parser.add_argument(
            f'--{split}-videos', type=int, default=number, metavar='N', help='a multiple of 4 (default: %(default)s)'
        )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(default.width, default.height),
        metavar=('W', 'H'),
        help='(default: 96 64)',
    )
    parser.add_argument(
        '--num-frames', type=int, default=default.num_frames, metavar='T', help='of a video (default: %(default)s)'
    )
    parser.add_argument('--difficulty', choices=DIFFICULTIES, default=default.difficulty, help='(default: %(default)s)')
    parser.add_argument(
        '--event-frames',
        type=int,
        metavar='N',
        help='all events happen within N frames, and everything rests in the others (default: the whole video)',
    )
    parser.add_argument(
        '--event-at', choices=EVENT_AT, help='where those frames lie in the video (default: drawn for each video)'
    )
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    args = parser.parse_args()
    try:
        settings = Settings(
            seed=args.seed,
            train_videos=args.train_videos,
            valid_videos=args.valid_videos,
            width=args.size[0],
            height=args.size[1],
            num_frames=args.num_frames,
            difficulty=args.difficulty,
            event_frames=args.event_frames,
            event_at=args.event_at,
        )
    except UserError as error:
        parser.error(str(error))
    return args, settings


def main():
    args, settings = parse_args()
    start = time.monotonic()
    try:
        with user_errors(), progress_bar('MovingShapes: videos', elsewhere=TenthLines()) as show:
            written = generate(args.out, settings, workers=args.workers, progress=show)
    except KeyboardInterrupt:
        print(f'\nInterrupted: {args.out} was not written', file=sys.stderr)
        raise SystemExit(130) from None
    if written:
        print(f'{args.out}: written in {time.monotonic() - start:.0f} s')
    else:
        print(f'{args.out}: there already, with the same parameters; nothing to do')


if __name__ == '__main__':
    main()
