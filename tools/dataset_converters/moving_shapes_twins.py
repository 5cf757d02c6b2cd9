"""Writes small twins of the data sets: MovingShapes videos in the layout of each, for tests and trials.

    python tools/dataset_converters/moving_shapes_twins.py --out twins
    MMSOC_DATA=twins python tools/train.py CONFIG --cfg-options train_dataloader.dataset.expected_videos=None ...

Each twin lies in the folder that the configs expect below $MMSOC_DATA, in the layout of the unpacked real data set,
including its quirks:

    ref-youtube-vos  (ref-youtube-vos)  every fifth frame; the valid file lists valid and test. Masks and obj_id of the valid split,
                                        which are not in the public download, are written too, unless there is --public
    ref-davis17      (ref-davis)        the archives, and what tools/dataset_converters/ref_davis17.py makes of them; four
                                        sentences for each of two objects; what no sentence names is void (255) in the masks
    a2d-sentences    (a2d_sentences)    H.264; 3 to 5 annotated frames, in every third video of one actor; a video without
                                        sentences; a row '1 (copy)'; sentences with capitals and odd spaces
    jhmdb-sentences  (jhmdb_sentences)  in every second video one mask fewer than frames; the list of samples
    refcoco          (coco)             refcoco, refcoco+ (no words of place) and refcocog: pickled references, instances.json with
                                        polygons and a few crowds, and the files with one annotation per sentence;
                                        sentences that one frame decides (families appearance and relation)
    mevis            (mevis)            sentences that name several objects ("all red objects", "the star and the red circle"),
                                        mask_dict.json with null where an object is not seen; valid without masks

A twin appears under its name when it is complete. An existing twin with the same parameters is kept; one with other
parameters is an error, unless --overwrite replaces it. Other folders are never touched.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.preparation.moving_shapes import Settings
from mmsoc.preparation.twins import LAYOUTS, write_twins
from mmsoc.utils.errors import UserError, user_errors


def parse_args() -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, metavar='ROOT', help='folder of the twins, for MMSOC_DATA')
    parser.add_argument('--layouts', nargs='+', choices=list(LAYOUTS), default=list(LAYOUTS), help='default: all')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    for split, number in (('train', 16), ('valid', 8)):
        parser.add_argument(
            f'--{split}-videos', type=int, default=number, metavar='N', help='a multiple of 4 (default: %(default)s)'
        )
    parser.add_argument('--size', type=int, nargs=2, default=(96, 64), metavar=('W', 'H'), help='even (default: 96 64)')
    parser.add_argument('--num-frames', type=int, default=12, metavar='T', help='of a video (default: %(default)s)')
    parser.add_argument(
        '--public', action='store_true', help='Ref-YouTube-VOS valid in its public form: no masks, no obj_id'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace twins that have other parameters')
    args = parser.parse_args()
    try:
        settings = Settings(
            seed=args.seed,
            train_videos=args.train_videos,
            valid_videos=args.valid_videos,
            width=args.size[0],
            height=args.size[1],
            num_frames=args.num_frames,
        )
    except UserError as error:
        parser.error(str(error))
    if 'a2d-sentences' in args.layouts and (args.size[0] % 2 or args.size[1] % 2):
        parser.error(f'--size: H.264 needs even numbers (layout a2d-sentences), found {args.size[0]} {args.size[1]}')
    return args, settings


def main() -> None:
    args, settings = parse_args()
    try:
        with user_errors():
            for line in write_twins(args.out, settings, args.layouts, public=args.public, overwrite=args.overwrite):
                print(line)
    except KeyboardInterrupt:
        raise SystemExit('Interrupted; incomplete twins were not written') from None


if __name__ == '__main__':
    main()
