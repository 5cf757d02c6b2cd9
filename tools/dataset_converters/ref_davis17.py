"""Converts Ref-DAVIS17 to the layout of Ref-YouTube-VOS.

    python tools/dataset_converters/ref_davis17.py data/ref-davis

SOURCE holds the three archives, unpacked::

    DAVIS/JPEGImages/480p/<video>/<frame>.jpg              DAVIS-2017-Unsupervised-trainval-480p.zip
    DAVIS/Annotations_unsupervised/480p/<video>/<frame>.png
    DAVIS/ImageSets/2017/{train,val}.txt
    DAVIS/davis_semantics.json                             DAVIS-2017_semantics-480p.zip
    davis_text_annotations/Davis17_annot{1,2}.txt          davis_text_annotations.zip
    davis_text_annotations/Davis17_annot{1,2}_full_video.txt

SOURCE's files are not changed. The tool writes {train,valid}/{JPEGImages,Annotations} to --out (default: SOURCE), where
each video is a symbolic link to its folder in DAVIS/ (--copy: a copy), {train,valid}/meta.json and
meta_expressions/{train,valid}/meta_expressions.json. Links within SOURCE are relative, so that SOURCE can be moved.

Each object has four sentences with consecutive ids: 4k and 4k + 1 are the first-frame and the full-video sentence of the
first annotator for object k + 1, 4k + 2 and 4k + 3 those of the second one.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmsoc.preparation.ref_davis17 import EXPECTED, SPLITS, convert
from mmsoc.utils.errors import user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SOURCE', help='folder with DAVIS/ and davis_text_annotations/')
    parser.add_argument('--out', help='folder to write to (default: SOURCE)')
    parser.add_argument('--copy', action='store_true', help='copy frames and masks instead of linking their folders')
    parser.add_argument('--splits', nargs='+', choices=list(SPLITS), default=list(SPLITS), help='default: both')
    parser.add_argument(
        '--no-expect',
        dest='expect',
        action='store_false',
        help='do not insist on the published sizes: '
        + '; '.join(
            f'{split} ' + ', '.join(f'{number} {name}' for name, number in EXPECTED[split].items()) for split in SPLITS
        ),
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        with user_errors():
            print(convert(**vars(args)))
    except KeyboardInterrupt:
        raise SystemExit('Interrupted; incomplete splits were not written') from None


if __name__ == '__main__':
    main()
