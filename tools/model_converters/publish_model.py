"""Makes a training checkpoint ready to be passed on: weights, config and scores in a safetensors file.

    python tools/model_converters/publish_model.py best.pth --out published --name soc_swin-t_ytvos --report result.json

writes ``published/soc_swin-t_ytvos-1234abcd.safetensors``, whose name ends in the first eight digits of its sha256, as those of
OpenMMLab's files do. Optimizer, schedules and logs are left out. The file holds no code and needs no config beside it:

    python tools/infer.py VIDEO --text "the red car" --weights published/soc_swin-t_ytvos-1234abcd.safetensors --out shown
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed

from mmsoc.engine.cli import read_config, require_file
from mmsoc.utils.checkpoints import config_of_checkpoint, read_checkpoint, weights_of
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.files import load_json
from mmsoc.weights.publishing import publish


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the file')
    parser.add_argument('--name', required=True, help='first part of the file name')
    parser.add_argument('--config', metavar='FILE', help='config file (default: the config in the checkpoint)')
    parser.add_argument(
        '--report', metavar='FILE.json', help='what `tools/test.py --out` wrote; its metrics are stored as the scores'
    )
    parser.add_argument('--half', action='store_true', help='store floating-point weights as float16')
    args = parser.parse_args()
    for path, what in ((args.checkpoint, 'checkpoint'), (args.config, 'config'), (args.report, '--report')):
        if path is not None:
            require_file(parser, path, what)
    return args


@user_errors()
def main() -> None:
    args = parse_args()
    checkpoint = read_checkpoint(args.checkpoint, what='checkpoint')
    config = config_of_checkpoint(checkpoint, args.checkpoint) if args.config is None else read_config(args.config)
    scores = {}
    if args.report is not None:
        scores = load_json(args.report, '--report').get('metrics')
        if not isinstance(scores, dict):
            raise UserError(f'--report {args.report}: expected the key metrics, as `tools/test.py --out` writes it')
    print(publish(weights_of(checkpoint), config, Path(args.out), args.name, scores=scores, half=args.half))


if __name__ == '__main__':
    main()
