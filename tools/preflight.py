"""What would stop a training or test, all at once and in seconds: ``python tools/preflight.py CONFIG``

Checks data roots and numbers of videos, masks, weights and tokenizer, GPUs, disk, batch size and work dir. tools/train.py, test.py
and the scripts that start several processes do it first; it stops them if there is an error. Exit status 0 without errors, else 2.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that a checkout works where mmsoc is not installed

from mmsoc.engine.cli import add_common_arguments, load_config, require_file
from mmsoc.utils.errors import user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument(
        '--task', choices=('train', 'test'), default='train', help='what would run (default: %(default)s)'
    )
    parser.add_argument(
        '--nproc',
        type=int,
        default=1,
        help='processes on this machine; 0 if they run on other machines (default: %(default)s)',
    )
    parser.add_argument('--checkpoint', metavar='FILE_OR_NAME', help='the checkpoint to test')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='as in tools/train.py')
    parser.add_argument('--auto-scale-lr', action='store_true', help='as in tools/train.py')
    args, unknown = parser.parse_known_args()
    del unknown  # options of train.py and test.py that change nothing here
    require_file(parser, args.config, 'config')
    return args


@user_errors(status=2)
def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger

    from mmsoc.engine.preflight import preflight, report

    MMLogger.get_instance('mmengine', log_level='ERROR')  # what data sets log is said again by the run
    cfg = load_config(args)
    if args.auto_scale_lr and cfg.get('auto_scale_lr'):
        cfg.auto_scale_lr.enable = True
    checkpoint = args.checkpoint or (args.resume if args.resume != 'auto' else None)
    found = preflight(cfg, args.task, args.nproc, checkpoint, args.resume is not None)
    report(found, args.config)
    if not found:
        print(f'{args.config}: nothing is missing')


if __name__ == '__main__':
    main()
