"""Converts your own videos, masks and sentences to a data set in the layout of Ref-YouTube-VOS.

    python tools/dataset_converters/own_videos.py SOURCE --out data/own-videos --valid NAME

SOURCE holds::

    videos/NAME.mp4       a file that PyAV reads, or a folder NAME of jpg or png frames (00000.jpg, ...)
    masks/NAME/00012.png  the mask of frame 12: a palette or grey PNG, pixel value = object id, 0 = background
    expressions.csv       header video,object,expression; one row per sentence

Frames of a video file are counted from 0 in presentation order. A frame without a mask is left out of the data set: its
objects' positions are unknown, which differs from absent objects. A mask without any object (all 0) marks them as
absent. docs/own_videos.md explains this step by step.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.preparation.own_videos import convert
from mmsoc.utils.errors import user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get('MMSOC_DATA') or 'data')
    parser.add_argument('source', metavar='SOURCE', help='folder with videos/, masks/ and expressions.csv')
    parser.add_argument('--out', default=str(data / 'own-videos'), help='folder to write (default: %(default)s)')
    parser.add_argument(
        '--every',
        type=int,
        default=1,
        metavar='N',
        help='keep every N-th frame of a video, starting with the first (default: all)',
    )
    parser.add_argument(
        '--first-number',
        type=int,
        default=0,
        metavar='N',
        help='number of the first frame of a video file in the names of its masks (default: 0; ffmpeg writes from 1)',
    )
    parser.add_argument('--binary-masks', action='store_true', help='masks are black and white, and white is object 1')
    split = parser.add_mutually_exclusive_group()
    split.add_argument('--valid', nargs='+', metavar='NAME', help='the videos of the valid split')
    split.add_argument(
        '--valid-share',
        type=float,
        default=0.2,
        metavar='S',
        help='share of the videos drawn for the valid split, at least one video; 0: none (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of that draw (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace the result of an earlier run in --out')
    args = parser.parse_args()
    if args.every < 1:
        parser.error(f'--every must be at least 1, found {args.every}')
    if args.first_number < 0:
        parser.error(f'--first-number must be at least 0, found {args.first_number}')
    if not 0 <= args.valid_share < 1:
        parser.error(f'--valid-share must be at least 0 and less than 1, found {args.valid_share}')
    return args


def main() -> None:
    args = parse_args()
    try:
        with user_errors():
            print(convert(**vars(args)))
    except KeyboardInterrupt:
        print(f'\nInterrupted: {args.out} was not written', file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == '__main__':
    main()
