"""Lists all faults of a prepared data root; run it once after unpacking, before hours of training.

    python tools/dataset_converters/check_data_root.py ref-youtube-vos data/ref-youtube-vos
    python tools/dataset_converters/check_data_root.py a2d-sentences data/a2d_sentences --full
    python tools/dataset_converters/check_data_root.py mevis twins/mevis --any-size

It looks for missing, empty, truncated and unexpected files; incomplete or partly unpacked archives; unreadable or
inconsistent text files; duplicate ids; sentences about unknown objects; masks with the wrong size, with colours or with
unexpected ids; missing fields in h5 and mat files; videos shorter than their annotation; and numbers of videos and
sentences that differ from the documented ones. Finally the data set itself is loaded.

Each finding is a line with the file, the expected and the found content. The exit code is 1 if there are findings, else
0.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmengine.logging import MMLogger

from mmsoc.preparation.root_checks import CHECKS, LEVELS, examine, print_report
from mmsoc.utils.errors import user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=list(CHECKS))
    parser.add_argument('root', help='the data_root of the configs')
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        '--quick', dest='level', action='store_const', const='quick', help=f'look only at {LEVELS["quick"]}'
    )
    level.add_argument(
        '--full', dest='level', action='store_const', const='full', help=f'look at {LEVELS["full"]} (may take long)'
    )
    parser.set_defaults(level='headers')
    parser.add_argument(
        '--any-size',
        '--twin',
        action='store_true',
        help='accept numbers other than the documented ones, for a part or a twin',
    )
    parser.add_argument('--allow-extra', action='store_true', help='unexpected files and folders are no fault')
    parser.add_argument('--most', type=int, default=10, metavar='N', help='lines of each kind (default: %(default)s)')
    args = parser.parse_args()
    if args.most < 1:
        parser.error(f'--most must be at least 1, found {args.most}')
    return args


def main() -> None:
    args = parse_args()
    try:
        with user_errors():
            check = examine(
                args.dataset,
                args.root,
                level=args.level,
                sizes=not args.any_size,
                extra=not args.allow_extra,
                progress=sys.stderr.isatty(),
            )
    except KeyboardInterrupt:
        raise SystemExit('Interrupted') from None
    print_report(check, args.most)
    raise SystemExit(1 if check.findings else 0)


if __name__ == '__main__':
    MMLogger.get_instance('mmengine', log_level='ERROR')  # the findings contain what the data sets would log
    main()
