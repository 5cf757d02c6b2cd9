"""Segments whole archives: each video of a manifest, a folder or a glob.

    python tools/infer_many.py manifest.csv --weights best.pth --out results          # columns video, text
    python tools/infer_many.py "archive/*.mp4" --text "the red car" --weights soc-mini --out results
    python tools/infer_many.py manifest.csv --weights best.pth --out /shared/results --ray auto --jobs 16

One process for each GPU, or core, keeps the model. Each video has a folder in OUT, as tools/infer.py writes it, which appears when
it is complete: run the command again after an interruption, and what is finished with the same settings is not repeated. A
video that cannot be segmented is recorded (broken.json with the reason), and the rest goes on; a worker that dies is replaced.
OUT/summary.csv has a row for each sentence. Videos may be URLs that fsspec can open (s3://, gs://, https://, ...).
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that a checkout works where mmsoc is not installed

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmsoc.engine.cli import add_model_arguments, add_speed_arguments, check_model_arguments, speed_options
from mmsoc.utils.errors import UserError, user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'sources', nargs='+', metavar='MANIFEST_OR_VIDEOS', help='csv files, videos, folders of videos, globs'
    )
    parser.add_argument(
        '--text', action='append', default=[], metavar='SENTENCE', help='for all videos that are not in a manifest'
    )
    add_model_arguments(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of all results')
    parser.add_argument('--jobs', type=int, metavar='N', help='workers (default: one per GPU, else one per core)')
    parser.add_argument(
        '--ray', metavar='ADDRESS', help="run on a Ray cluster: 'auto', 'local' or its address (pip install ray)"
    )
    parser.add_argument(
        '--format', nargs='+', default=['png'], metavar='NAME', help='of the masks, as in tools/infer.py'
    )
    add_speed_arguments(parser)
    args = parser.parse_args()
    check_model_arguments(parser, args)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f'--jobs must be at least 1, found {args.jobs}')
    return args


@user_errors()
def main() -> None:
    args = parse_args()
    from mmsoc.apis import archive
    from mmsoc.apis.exports import check_formats

    check_formats(args.format)
    # Absolute paths: workers of Ray are in another folder.
    tasks = [archive.Task(resolved(task.video), task.texts) for task in archive.tasks_of(args.sources, args.text)]
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    load = dict(
        config=resolved(args.config),
        weights=resolved(args.weights),
        cfg_options={**args.cfg_options, **speed_options(args)},
    )
    call = dict(formats=args.format)
    settings = archive.settings_of(load, call)
    outcomes = [found for task in tasks if (found := archive.earlier(out, task, settings)) is not None]
    finished = {outcome.task for outcome in outcomes}
    todo = [task for task in tasks if task not in finished]
    if outcomes:
        print(f'{len(outcomes)} of {len(tasks)} videos are finished already')
    start = time.monotonic()
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=not console.is_interactive) as bar:
            shown = bar.add_task('videos', total=len(todo))
            for outcome in run(args, archive, todo, out, load, call):
                outcomes.append(outcome)
                bar.advance(shown)
                if outcome.status == 'broken':
                    where = '' if outcome.task.video in outcome.reason else f'{outcome.task.video}: '
                    bar.console.print(f'broken: {where}{outcome.reason}', highlight=False, soft_wrap=True)
                if not console.is_interactive:
                    report_line(len(outcomes) - len(finished), len(todo), time.monotonic() - start)
    except KeyboardInterrupt:
        print(
            f'\nInterrupted: {len(outcomes)} of {len(tasks)} videos are finished; run the same command again to continue',
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    finally:
        order = {task: index for index, task in enumerate(tasks)}
        outcomes.sort(key=lambda outcome: order[outcome.task])
        archive.write_summary(out / 'summary.csv', outcomes)
    seconds = time.monotonic() - start
    new = [outcome for outcome in outcomes if outcome.status != 'earlier']
    broken = sum(outcome.status == 'broken' for outcome in outcomes)
    frames = sum(outcome.frames for outcome in new)
    print(
        f'{len(new) - broken} videos segmented, {len(outcomes) - len(new)} earlier, {broken} broken; '
        f'{frames} frames in {seconds:.0f} s ({frames / max(seconds, 1e-6):.1f} per second)\n{out / "summary.csv"}'
    )
    raise SystemExit(1 if broken else 0)


def run(args, archive, todo, out, load, call):
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not todo:
        return iter(())
    if args.ray is not None:
        try:
            import ray
        except ImportError as error:
            raise UserError(f'--ray needs Ray: pip install "ray" ({error})') from None
        try:
            ray.init(args.ray, log_to_driver=False)
        except ConnectionError as error:
            raise UserError(f'--ray {args.ray}: there is no Ray cluster at this address ({error})') from error
        cluster = ray.cluster_resources()
        cluster_gpus = int(cluster.get('GPU', 0))
        jobs = args.jobs or cluster_gpus or int(cluster.get('CPU', 1))
        # As many workers on a GPU as needed: fractions that do not divide it would leave some waiting.
        share = 1 / math.ceil(jobs / cluster_gpus) if cluster_gpus else 0.0
        return archive.run_on_ray(todo, out.resolve(), load, call, workers=jobs, gpus_per_worker=share)
    cores = len(os.sched_getaffinity(0))
    jobs = args.jobs or gpus or cores
    loads = [dict(load, device=f'cuda:{index % gpus}' if gpus else 'cpu') for index in range(jobs)]
    return archive.run_on_workers(todo, out, loads, call, threads=max(cores // jobs, 1))


def resolved(path):
    """An absolute path, if it is one of something here."""
    return str(Path(path).resolve()) if path is not None and Path(path).exists() else path


def report_line(done: int, total: int, seconds: float) -> None:
    """Where there is no terminal, a line for each tenth."""
    if done * 10 // total != (done - 1) * 10 // total:
        print(f'{done} of {total} videos, about {seconds / done * (total - done) / 60:.1f} min left', flush=True)


if __name__ == '__main__':
    main()
