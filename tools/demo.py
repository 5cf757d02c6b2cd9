"""A web page to try a model: drop a video, type sentences, see masks and scores.

    python tools/demo.py                                  # soc-mini, with generated sample videos
    python tools/demo.py --weights best.pth --port 8080

Needs Gradio: pip install 'mmsoc[demo]', or pip install -r requirements/demo.txt in a checkout.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # lets a checkout run without installing mmsoc

from mmsoc.engine.cli import require_weights
from mmsoc.utils.errors import UserError, user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--weights',
        action='append',
        metavar='FILE_OR_NAME',
        help='checkpoint, or a name that `tools/weights.py list` shows; may be repeated, to choose on the page (default: soc-mini)',
    )
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; 0.0.0.0: all (default: %(default)s)')
    parser.add_argument('--port', type=int, help='default: the first free one from 7860 on')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--max-frames', type=int, default=600, metavar='N', help='longest video that is taken (default: %(default)s)'
    )
    parser.add_argument(
        '--max-upload', type=int, default=200, metavar='MB', help='largest file that is taken (default: %(default)s)'
    )
    args = parser.parse_args()
    args.weights = args.weights or ['soc-mini']
    for weights in args.weights:
        require_weights(parser, weights, '--weights')
    for name in ('max_frames', 'max_upload'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1, found {getattr(args, name)}')
    return args


@user_errors()
def main() -> None:
    args = parse_args()
    logging.basicConfig(format='%(asctime)s %(levelname)s %(message)s')
    try:
        from mmsoc.apis import page
    except ModuleNotFoundError as error:
        if error.name != 'gradio':
            raise
        raise UserError("the page needs Gradio: pip install -r requirements/demo.txt (or 'mmsoc[demo]')") from None
    limits = page.Limits(frames=args.max_frames, upload=f'{args.max_upload}mb')
    page.serve(args.weights, host=args.host, port=args.port, limits=limits, device=args.device)


if __name__ == '__main__':
    main()
