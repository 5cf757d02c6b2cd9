"""Segment the objects that sentences name in a video, a folder of frames or an image:

    python tools/infer.py street.mp4 --text "the red car" --text "a man with a dog" --weights best.pth --out shown

writes masks, a video with all of them drawn, and scores (docs/inference.md). From a camera, a network stream or a pipe,
as frames arrive:

    python tools/infer.py --live 0 --text "the red car" --weights best.pth --out shown
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # lets a checkout run without installing mmsoc

from mmsoc.engine.cli import add_model_arguments, add_speed_arguments, check_model_arguments, speed_options
from mmsoc.utils.errors import UserError, is_out_of_memory, user_errors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'source',
        nargs='?',
        metavar='VIDEO_OR_FOLDER_OR_IMAGE',
        help='video file, folder of jpg or png frames, or image',
    )
    parser.add_argument(
        '--live',
        metavar='SOURCE',
        help="a live source instead: a camera's number, an address such as rtsp://HOST/PATH, a named pipe, or - for standard input",
    )
    parser.add_argument(
        '--live-format', metavar='NAME', help="FFmpeg's name of the live source's format, if it cannot be detected"
    )
    parser.add_argument(
        '--live-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help="FFmpeg's options of the live source, e.g. video_size=640x480 rtsp_transport=tcp",
    )
    parser.add_argument('--max-frames', type=int, metavar='N', help='stop the live source after this many frames')
    parser.add_argument(
        '--text',
        action='append',
        required=True,
        metavar='SENTENCE',
        help='sentence that names an object; may be repeated',
    )
    add_model_arguments(parser)
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder for masks, overlay and scores; must be empty'
    )
    parser.add_argument(
        '--format',
        nargs='+',
        default=['png'],
        metavar='NAME',
        help='of the masks: png, or for other tools davis, coco, ytvis, cvat, label-studio, matte (default: png)',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace earlier results in --out')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.0,
        metavar='T',
        help='leave the masks of a sentence empty if its score is lower (default: %(default)g)',
    )
    parser.add_argument(
        '--fps', type=float, help='frame rate of the overlay of a folder (default: 6; a video keeps its own)'
    )
    parser.add_argument(
        '--whole',
        action='store_true',
        help='process all frames at once, as tools/test.py does; memory grows with the video',
    )
    parser.add_argument(
        '--chunk-frames', type=int, metavar='N', help='frames processed at once (default: 24, of a live source 8)'
    )
    parser.add_argument(
        '--overlap',
        type=int,
        default=8,
        metavar='N',
        help='frames before and after them that the backbone also sees; before them only of a live source (default: %(default)s)',
    )
    parser.add_argument(
        '--query-per-frame',
        action='store_true',
        help='choose the object query for each frame also in videos of up to 36 frames (model.test_cfg.selector)',
    )
    add_speed_arguments(parser)
    args = parser.parse_args()
    if (args.source is None) == (args.live is None):
        parser.error('expected either a video, folder or image, or --live SOURCE')
    if args.live is not None and args.format != ['png']:
        parser.error('--format: a live source has masks as png only')
    if args.live is not None:
        for flag in ('whole', 'overwrite', 'fps'):
            if getattr(args, flag):
                parser.error(f'--{flag} does not go with --live')
    if args.max_frames is not None and args.max_frames < 1:
        parser.error(f'--max-frames must be at least 1, found {args.max_frames}')
    for option in args.live_options:
        if '=' not in option:
            parser.error(f'--live-options: expected KEY=VALUE, found {option!r}')
    if args.chunk_frames is None:
        args.chunk_frames = 24 if args.live is None else 8
    for index, text in enumerate(args.text, 1):
        if not text.strip():
            parser.error(f'--text: sentence {index} is empty; expected words that name an object')
    if not 0 <= args.score_threshold <= 1:
        parser.error(f'--score-threshold must be in [0, 1], the range of scores; found {args.score_threshold:g}')
    if args.chunk_frames < 1 or args.overlap < 0:
        parser.error(
            f'expected --chunk-frames of at least 1 and --overlap of at least 0, found {args.chunk_frames} and {args.overlap}'
        )
    check_model_arguments(parser, args)
    return args


def make_inferencer(args):
    from mmsoc.apis import SOCInferencer  # imported here, because it takes seconds

    options = {**args.cfg_options, **speed_options(args)}
    if args.query_per_frame:
        options['model.test_cfg.selector.type'] = 'QueryPerFrame'
    return SOCInferencer(args.config, args.weights, args.device, cfg_options=options)


def infer(args):
    # Checks that need only the files come first.
    from mmsoc.apis.exports import check_formats
    from mmsoc.apis.results import check_out_dir
    from mmsoc.apis.video_io import open_frames

    check_formats(args.format)
    check_out_dir(args.out, args.overwrite)
    source = open_frames(args.source, args.fps)
    result = make_inferencer(args)(
        source,
        args.text,
        whole=args.whole,
        chunk_frames=args.chunk_frames,
        overlap=args.overlap,
        score_threshold=args.score_threshold,
        out_dir=args.out,
        formats=args.format,
        overwrite=args.overwrite,
        return_masks=False,
    )
    return summary(result)


def infer_live(args):
    from mmsoc.apis.results import check_out_dir

    check_out_dir(args.out, overwrite=False)
    inferencer = make_inferencer(args)

    from mmsoc.apis.live import LiveSource, print_report, run_live

    options = dict(option.split('=', 1) for option in args.live_options)
    source = LiveSource(args.live, args.live_format, options)
    found = run_live(
        inferencer,
        source,
        args.text,
        args.out,
        chunk_frames=args.chunk_frames,
        overlap=args.overlap,
        score_threshold=args.score_threshold,
        max_frames=args.max_frames,
        report=print_report,
    )
    lines = [
        f'{found["width"]}x{found["height"]}, {found["num_frames"]} frames, {found["fps"]:.1f} per second, mean latency '
        f'{1000 * found["latency"]:.0f} ms, {found["dropped"]} dropped; the source ended: {found["end"]}',
        *(
            f'  {sentence["score"]:.2f}  {sentence["text"]}: {sentence["mask_folder"]}'
            for sentence in found['sentences']
        ),
    ]
    return '\n'.join([*lines, f'Written: {args.out}'])


def run(args):
    """Runs the prediction and returns the lines to print; if memory runs out, the error suggests remedies."""
    try:
        return infer(args) if args.live is None else infer_live(args)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        remedy = 'leave out --whole' if args.whole else 'use a smaller --chunk-frames'
        detail = f' ({str(error).splitlines()[0]})' if str(error) else ''
        raise UserError(
            f'out of memory; downscale the video or image, use fewer sentences, or {remedy}{detail}'
        ) from error


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
    try:
        with user_errors():
            print(run(args))
    except KeyboardInterrupt:
        written = 'nothing was written' if args.live is None else 'the masks so far were written'
        print(f'\nInterrupted: {written} to {args.out}', file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == '__main__':
    main()
