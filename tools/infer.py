"""Segment what sentences name in a video, a folder of frames or a picture:

    python tools/infer.py street.mp4 --text "the red car" --text "a man with a dog" --weights best.pth --out shown

writes masks, a video with all of them drawn, and scores (docs/inference.md).
"""

import argparse
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that a checkout works where mmsoc is not installed

from mmsoc.engine.cli import OptionAction, add_speed_arguments, require_file, speed_options


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source', metavar='VIDEO_OR_FOLDER_OR_IMAGE', help='video file, folder of jpg or png frames, or picture'
    )
    parser.add_argument(
        '--text', action='append', required=True, metavar='SENTENCE', help='names an object; give it once per sentence'
    )
    parser.add_argument('--weights', required=True, metavar='FILE', help='checkpoint')
    parser.add_argument('--config', metavar='FILE', help='config file (default: the config in the checkpoint)')
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder for masks, overlay and scores; must be empty'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace earlier results in --out')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.0,
        metavar='T',
        help='a sentence with a lower score names nothing, and its masks are empty (default: none)',
    )
    parser.add_argument(
        '--fps', type=float, help='frames per second of the overlay of a folder (default: 6; a video keeps its own)'
    )
    parser.add_argument(
        '--whole', action='store_true', help='all frames at once, as tools/test.py; memory grows with the video'
    )
    parser.add_argument(
        '--chunk-frames', type=int, default=24, metavar='N', help='frames that run at once (default: %(default)s)'
    )
    parser.add_argument(
        '--overlap',
        type=int,
        default=8,
        metavar='N',
        help='frames before and after them that the backbone sees, too (default: %(default)s)',
    )
    parser.add_argument(
        '--query-per-frame',
        action='store_true',
        help='for long videos: the object query is chosen for each frame, not once for the video (model.test_cfg.query_per_frame)',
    )
    add_speed_arguments(parser)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionAction,
        default={},
        metavar='KEY=VALUE',
        help='override config settings, e.g. model.test_cfg.mask_threshold=0.4',
    )
    args = parser.parse_args()
    for index, text in enumerate(args.text, 1):
        if not text.strip():
            parser.error(f'--text: sentence {index} is empty; expected the words that name an object')
    if not 0 <= args.score_threshold <= 1:
        parser.error(f'--score-threshold must be in [0, 1], as scores are; found {args.score_threshold:g}')
    if args.chunk_frames < 1 or args.overlap < 0:
        parser.error(
            f'expected --chunk-frames of at least 1 and --overlap of at least 0, found {args.chunk_frames} and {args.overlap}'
        )
    require_file(parser, args.weights, 'weights')
    if args.config is not None and '::' not in args.config:
        require_file(parser, args.config, 'config')
    return args


def infer(args):
    # Here, because it takes seconds, and after what can be told from the files alone.
    from mmsoc.apis.results import check_out_dir
    from mmsoc.apis.video_io import open_frames

    check_out_dir(args.out, args.overwrite)
    source = open_frames(args.source, args.fps)

    from mmsoc.apis import SOCInferencer

    options = {**args.cfg_options, **speed_options(args)}
    if args.query_per_frame:
        options['model.test_cfg.query_per_frame'] = True
    inferencer = SOCInferencer(args.config, args.weights, args.device, cfg_options=options)
    return inferencer(
        source,
        args.text,
        whole=args.whole,
        chunk_frames=args.chunk_frames,
        overlap=args.overlap,
        score_threshold=args.score_threshold,
        out_dir=args.out,
        overwrite=args.overwrite,
        return_masks=False,
    )


def summary(result):
    predictions = result['predictions']
    lines = [f'{predictions["width"]}x{predictions["height"]}, {predictions["num_frames"]} frames']
    for sentence in predictions['sentences']:
        seen = sum(box is not None for box in sentence['boxes'])
        what = f'seen in {seen} frames' if sentence['above_threshold'] else 'names nothing (--score-threshold)'
        lines.append(f'  {sentence["score"]:.2f}  {sentence["text"]}: {what}, {sentence["mask_folder"]}')
    return '\n'.join([*lines, f'Written: {Path(result["visualization"]).parent}'])


def main():
    args = parse_args()
    warnings.filterwarnings('ignore', message='torch.meshgrid')
    try:
        print(summary(infer(args)))
    except KeyboardInterrupt:
        print(f'\nstopped: nothing was written to {args.out}', file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
    except RuntimeError as error:
        if 'out of memory' not in str(error):
            raise
        what = 'leave out --whole' if args.whole else 'use a smaller --chunk-frames'
        raise SystemExit(
            f'error: memory does not suffice; {what}, fewer sentences, or a smaller video ({error})'
        ) from None


if __name__ == '__main__':
    main()
