"""The quickstart on generated data: soc-mini at work, then training, test and images. Called by tools/quickstart.sh; see there."""

import argparse
import bisect
import contextlib
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine import Config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONFIGS = ROOT / 'configs'
BACKBONE_CONFIG = CONFIGS / 'pretrain' / 'video-swin-mini_moving-shapes.py'
SHIPPED = 'soc-mini'
SHIPPED_CONFIG = CONFIGS / 'soc' / 'soc_mini_moving-shapes.py'
DEFAULT_MINUTES = 14.0
FAMILIES = ('appearance', 'relation', 'change', 'order')
SECONDS_BETWEEN_REPORTS = 15
PROBE_ITERS = 40  # iterations that measure this machine's speed, excluding the slower first half
LEAST_EPOCHS = 12  # a training that sees few clips gets shorter epochs: only whole ones can be planned
SHOWN_PER_FAMILY = 3
FIRST_VIDEOS = range(48, 96)  # of the 192 test videos; 12 per family
GOOD = 80  # J&F of appearance from which on a result is worth looking at


@dataclass(frozen=True)
class Recipe:
    """A training, and what it led to where it was measured (docs/moving_shapes.md)."""

    config: Path
    expected: dict[int, tuple[float, ...]]
    """J&F of FAMILIES by the number of clips that training saw"""

    def expectation(self, clips: float) -> dict[str, float]:
        """J&F by family, interpolated between the logarithms of the measured numbers of clips, constant beyond them."""
        known = sorted(self.expected)
        after = bisect.bisect_left(known, clips)
        if after in (0, len(known)):
            values = self.expected[known[min(after, len(known) - 1)]]
        else:
            low, high = known[after - 1], known[after]
            share = math.log(clips / low) / math.log(high / low)
            values = tuple(a + share * (b - a) for a, b in zip(self.expected[low], self.expected[high], strict=True))
        return dict(zip(FAMILIES, values, strict=True))

    def clips_for(self, appearance: float) -> float:
        """Clips after which appearance is this good, interpolated as in `expectation`; infinite if it never was."""
        low, before = None, 0.0
        for clips in sorted(self.expected):
            value = self.expected[clips][0]
            if value >= appearance:
                return (
                    float(clips) if low is None else low * (clips / low) ** ((appearance - before) / (value - before))
                )
            low, before = clips, value
        return math.inf


PRETRAINED = Recipe(
    CONFIGS / 'soc' / 'soc_mini_moving-shapes_short.py',
    {
        2_400: (74.1, 62.9, 72.9, 67.9),
        3_200: (76.4, 76.0, 82.8, 67.1),
        11_200: (85.0, 88.5, 88.9, 72.0),
        28_800: (87.5, 92.0, 89.6, 73.7),
    },
)
FROM_SCRATCH = Recipe(
    CONFIGS / 'soc' / 'soc_tiny_moving-shapes.py',
    {
        8_800: (58.8, 33.0, 27.1, 26.7),
        21_600: (61.6, 35.8, 29.1, 27.5),
        31_200: (82.9, 47.8, 29.3, 22.4),
        33_600: (80.8, 46.1, 28.1, 25.9),
    },
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--procs', type=int, help='training processes (default: one per GPU if --gpus, else 2, or 1 on one core)'
    )
    parser.add_argument(
        '--gpus', type=int, default=0, help='train on this many GPUs, one process each (default: on the CPU)'
    )
    parser.add_argument(
        '--minutes', type=float, default=DEFAULT_MINUTES, help=f'training time to aim at (default: {DEFAULT_MINUTES:g})'
    )
    parser.add_argument(
        '--from-scratch',
        action='store_true',
        help="start from random weights instead of soc-mini's backbone, neck and text encoder",
    )
    parser.add_argument('--work-dir', default=str(ROOT / 'work_dirs' / 'quickstart'), help='output folder')
    args = parser.parse_args()
    if args.minutes <= 0:
        parser.error(f'--minutes must be positive, found {args.minutes}')
    if args.procs is not None and args.procs < 1:
        parser.error(f'--procs must be at least 1, found {args.procs}')
    if args.gpus:
        import torch

        if args.gpus > torch.cuda.device_count():
            parser.error(f'--gpus {args.gpus}: this machine shows {torch.cuda.device_count()}')
        if args.procs not in (None, args.gpus):
            parser.error(f'--procs {args.procs} with --gpus {args.gpus}: one process per GPU')
        args.procs = args.gpus
    args.procs = args.procs or min(len(os.sched_getaffinity(0)), 2)
    if 8 % args.procs:  # they share a batch of 8
        parser.error(f'expected 1, 2, 4 or 8 processes, found {args.procs}')
    args.work_dir = Path(args.work_dir).resolve()
    args.recipe = FROM_SCRATCH if args.from_scratch else PRETRAINED
    args.data_root = Path(os.environ.get('MMSOC_DATA') or ROOT / 'data') / 'moving-shapes'
    return args


class Steps:
    """Numbers the steps and records their results in ``quickstart.json``, so that a second run skips finished steps."""

    def __init__(self, work_dir: Path, total: int) -> None:
        self.total, self.current, self.start = total, 0, time.time()
        self.file = work_dir / 'quickstart.json'
        work_dir.mkdir(parents=True, exist_ok=True)
        self.state = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def begin(self, title: str) -> None:
        self.current += 1
        print(
            f'\n[{self.current}/{self.total}] {title}  ({(time.time() - self.start) / 60:.1f} min since the start)',
            flush=True,
        )

    def keep(self, **values) -> None:
        from mmsoc.utils.files import dump_json

        self.state.update(values)
        dump_json(self.state, self.file, indent=1)


def run(*command, gpus: int = 0, log: Path | None = None, progress: Callable[[], str] | None = None) -> None:
    """Runs a command; its output goes to the terminal, or to a log that is named on failure.

    Args:
        progress: returns a status line; polled every few seconds, and printed when it changes.
    """
    env = dict(os.environ, PYTHON=sys.executable)
    if not gpus:
        env['CUDA_VISIBLE_DEVICES'] = ''
    command = [str(part) for part in command]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('w') if log else contextlib.nullcontext() as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stream, stderr=stream and subprocess.STDOUT)
        said = ''
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SECONDS_BETWEEN_REPORTS if progress else None)
                if progress and (now := progress()) != said:
                    said = now
                    print(f'      {said}', flush=True)
        except KeyboardInterrupt:
            process.wait()  # the terminal has interrupted it as well
            sys.exit('\nInterrupted. Run the same command again to continue.')
    if process.returncode:
        if log is not None:
            print(''.join(log.read_text(errors='replace').splitlines(keepends=True)[-20:]), file=sys.stderr)
        sys.exit(
            f'\nquickstart stopped: {" ".join(command)} ended with status {process.returncode}'
            + (f' (the whole log: {log})' if log else '')
            + '\nRun the same command again to continue.'
        )


def train(
    args,
    config: Path,
    folder: Path,
    options: Sequence[str],
    minutes: float | None = None,
    epoch_size: int | None = None,
) -> None:
    """Trains with a config, or resumes, and reports progress.

    Args:
        minutes: that it takes; None: as the number of epochs in the config says.
        epoch_size: clips; None: the config's.
    """
    cfg = Config.fromfile(config)
    iterations = (epoch_size or cfg.epoch_size) // total_batch(cfg)

    def progress() -> str:
        records = scalars(folder)
        if not records:
            return f'starting (log: {log})'
        done = records[-1]['step'] / iterations
        left = (minutes or records[-1]['time'] * iterations * cfg.max_epochs / 60) - minutes_of(folder)
        return f'epoch {int(done) + 1}, loss {records[-1]["loss"]:.2f}, about {max(left, 0):.1f} min left'

    log = folder / 'train.log'
    run(
        'bash',
        'tools/dist_train.sh',
        config,
        args.procs,
        '--work-dir',
        folder,
        '--resume',
        '--cfg-options',
        f'train_dataloader.batch_size={total_batch(cfg) // args.procs}',
        *options,
        gpus=args.gpus,
        log=log,
        progress=progress,
    )


def total_batch(cfg: Config) -> int:
    """Of all processes, whatever their number: the learning rate is for it."""
    return cfg.auto_scale_lr.base_batch_size


def scalars(folder: Path) -> list[dict]:
    """The training log of all runs in a work directory, in order of iteration; a repeated iteration counts once."""
    records: dict[int, dict] = {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            if not line.endswith('}'):
                continue  # still being written
            record = json.loads(line)
            if 'loss' in record:
                records[record['step']] = record
    return [records[step] for step in sorted(records)]


def minutes_of(folder: Path) -> float:
    """Training time according to the log of a work directory."""
    records = scalars(folder)
    steps = [record['step'] for record in records]
    interval = min((b - a for a, b in zip(steps[:-1], steps[1:], strict=True)), default=1)
    return sum(record['time'] for record in records) * interval / 60


def train_backbone(args) -> Path:
    """Trains the backbone, or resumes: a tenth of the minutes on two cores. Returns its checkpoint."""
    cfg = Config.fromfile(BACKBONE_CONFIG)
    epochs = max(round(cfg.max_epochs * args.minutes / DEFAULT_MINUTES), 1)
    folder = args.work_dir / 'backbone'
    done = sorted(folder.glob('epoch_*.pth'), key=lambda path: int(path.stem.split('_')[1]))
    if done and (folder / 'done').is_file():
        print(f'done already: {done[-1]}')
        return done[-1]
    decay = next(i for i, scheduler in enumerate(cfg.param_scheduler) if scheduler.type == 'PolyLR')
    train(args, BACKBONE_CONFIG, folder, [f'train_cfg.max_epochs={epochs}', f'param_scheduler.{decay}.end={epochs}'])
    (folder / 'done').touch()
    return folder / f'epoch_{epochs}.pth'


def measure_speed(args, steps: Steps) -> None:
    """Records how long an epoch takes on this machine, from a few iterations, and says what to expect."""
    cfg = Config.fromfile(args.recipe.config)
    probe = args.work_dir / 'probe'
    batch = total_batch(cfg)
    switch = next(i for i, hook in enumerate(cfg.custom_hooks) if hook.type == 'mmdet.PipelineSwitchHook')
    late = [f'train_dataloader.sampler.family_starts.{name}={int(start > 0)}' for name, start in starts(cfg).items()]
    run(
        'bash',
        'tools/dist_train.sh',
        args.recipe.config,
        args.procs,
        '--work-dir',
        probe,
        '--cfg-options',
        f'train_dataloader.batch_size={batch // args.procs}',
        'train_cfg.max_epochs=2',
        f'custom_hooks.{switch}.switch_epoch=1',
        *late,
        f'train_dataloader.sampler.epoch_size={PROBE_ITERS * batch}',
        'val_dataloader=None',
        'val_evaluator=None',
        'val_cfg=None',
        'default_hooks.checkpoint.save_best=None',
        'default_hooks.checkpoint.interval=9',
        'default_hooks.logger.interval=4',
        'log_processor.window_size=4',
        gpus=args.gpus,
        log=probe / 'probe.log',
    )
    seconds = []  # per epoch of single frames, of videos
    for epoch in (1, 2):
        times = [record['time'] for record in scalars(probe) if record['epoch'] == epoch]
        times = times[len(times) // 2 :]
        seconds.append(round(sum(times) / len(times) * cfg.epoch_size / batch, 2))
    minutes = max(args.minutes - minutes_of(args.work_dir / 'backbone'), args.minutes / 10)
    image_share = cfg.image_epochs / cfg.max_epochs
    per_epoch = seconds[0] * image_share + seconds[1] * (1 - image_share)
    clips = max(minutes * 60 / per_epoch, 2) * cfg.epoch_size
    print(
        f'an epoch ({cfg.epoch_size} clips) takes about {seconds[0]:.0f} s on single frames and {seconds[1]:.0f} s on videos '
        f'here: {minutes:.1f} minutes are about {clips:,.0f} clips'
    )
    expected = args.recipe.expectation(clips)
    fewest, most = min(args.recipe.expected), max(args.recipe.expected)
    print(
        'expected J&F after that'
        + (f' (of {most:,} clips, the most that was measured)' if clips > most * 1.2 else '')
        + (f' (of {fewest:,} clips, the fewest that was measured: it will be less)' if clips < fewest / 1.2 else '')
        + ': '
        + ', '.join(f'{family} {value:.0f}' for family, value in expected.items())
        + ' (measured in single runs: yours may end up to 6 points lower)'
    )
    needed = args.recipe.clips_for(GOOD)
    if expected['appearance'] < GOOD and needed < math.inf:
        print(
            f'That is poor, since this machine is slow: appearance gets to {GOOD} after about {needed:,.0f} clips. For these, '
            f'interrupt and run again with --minutes {math.ceil(needed / cfg.epoch_size * per_epoch / 60)}.'
        )
    # A started training keeps its epochs.
    size = steps.state.get('epoch_size') or min(
        cfg.epoch_size, max(int(clips / LEAST_EPOCHS / batch), PROBE_ITERS) * batch
    )
    steps.keep(
        minutes=minutes,
        seconds=[value * size / cfg.epoch_size for value in seconds],
        epoch_size=size,
        expected={key: round(value, 1) for key, value in expected.items()},
    )


def starts(cfg: Config) -> dict[str, int]:
    """The epoch in which each family of sentences begins."""
    return dict(cfg.train_dataloader.sampler.family_starts)


def train_soc(args, steps: Steps, backbone: Path | None) -> Path:
    """Trains, or resumes; returns the best checkpoint."""
    seconds = ','.join(map(str, steps.state['seconds']))
    options = [
        'train_cfg.type=TimedTrainLoop',
        f'train_cfg.minutes={steps.state["minutes"]}',
        f'train_cfg.seconds={seconds}',
        f'train_dataloader.sampler.epoch_size={steps.state["epoch_size"]}',
    ]
    if backbone is not None:
        options.append(f'model.backbone.pretrained={backbone}')
    if not steps.state.get('trained'):
        train(args, args.recipe.config, args.work_dir, options, steps.state['minutes'], steps.state['epoch_size'])
        steps.keep(trained=True)
    best = sorted(args.work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if not best:
        sys.exit(f'quickstart stopped: no best_*.pth in {args.work_dir}')
    return best[-1]


def plan_of(folder: Path) -> dict[str, Any]:
    """How the training was planned at its last checkpoint: `TimedTrainLoop`."""
    from mmengine.runner import find_latest_checkpoint

    from mmsoc.utils.checkpoints import read_checkpoint

    return read_checkpoint(find_latest_checkpoint(folder))['message_hub']['runtime_info']['timed_train_loop']


def swapped_expressions(source: Path, target: Path) -> None:
    """The same videos and objects, each with a sentence about another object (of the same video if possible)."""
    from mmsoc.utils.files import dump_json

    videos = json.loads(source.read_text())['videos']
    draw = random.Random(0)
    by_family: dict[str, list[tuple[str, str]]] = {}
    for name, video in videos.items():
        for expression in video['expressions'].values():
            by_family.setdefault(expression['family'], []).append((name, expression['exp']))
    for name, video in videos.items():
        given = [dict(expression) for expression in video['expressions'].values()]
        for expression in video['expressions'].values():
            others = [other['exp'] for other in given if other['obj_id'] != expression['obj_id']]
            if not others:  # the video has no sentence about another object: use another video's
                others = [
                    text
                    for video_name, text in by_family[expression['family']]
                    if video_name != name and text != expression['exp']
                ]
            expression['exp'] = draw.choice(others)
    dump_json(dict(videos=videos), target)


def test(args, config: Path, weights: str | Path, name: str, ann_file: Path | None = None) -> list[dict]:
    """Scores of each sentence of the held-out videos.

    Args:
        name: of the report in the work directory.
        ann_file: other sentences.
    """
    out = args.work_dir / f'{name}.json'
    options = [f'test_dataloader.dataset.data_root={args.data_root}']
    if ann_file is not None:
        options.append(f'test_dataloader.dataset.ann_file={ann_file}')
    run(
        'bash',
        'tools/dist_test.sh',
        config,
        weights,
        args.procs,
        '--work-dir',
        args.work_dir / 'test',
        '--out',
        out,
        '--cfg-options',
        *options,
        gpus=args.gpus,
        log=args.work_dir / f'{name}.log',
    )
    return json.loads(out.read_text())['rows']


def by_family(rows: list[dict], key: str = 'J&F') -> dict[str, float]:
    """Mean over the sentences of each family and over all, 0-100."""
    groups = {family: [row[key] for row in rows if row['family'] == family] for family in FAMILIES}
    groups['all'] = [row[key] for row in rows]
    return {name: round(100 * sum(values) / len(values), 2) for name, values in groups.items() if values}


def table(columns: dict[str, dict[str, float]]) -> str:
    """J&F by family; a column of the table is a method."""
    widths = [max(len(name), 6) for name in columns]
    lines = [' ' * 12 + ''.join(f'  {name:>{width}}' for name, width in zip(columns, widths, strict=True))]
    for family in (*FAMILIES, 'all'):
        cells = (f'{values[family]:.1f}' if family in values else '' for values in columns.values())
        lines.append(f'{family:12s}' + ''.join(f'  {cell:>{width}}' for cell, width in zip(cells, widths, strict=True)))
    return '\n'.join(lines)


BASELINES = (
    'random: the perfect mask of a random object, blind to the sentence; empty: no mask at all; frame: the whole frame'
)


def baselines_of(data_root: Path, rows: list[dict]) -> dict[str, dict[str, float]]:
    from tools.analysis_tools.moving_shapes_baselines import baselines

    found = baselines(data_root, {row['video'] for row in rows})
    return dict(random=found['random_object'], empty=found['empty'], frame=found['whole_frame'])


def inferencer_of(args, weights: str | Path) -> Any:
    from mmsoc.apis import SOCInferencer

    return SOCInferencer(weights=weights, device=None if args.gpus else 'cpu', show_progress=False)


def draw_sheet(
    data_root: Path, rows: Iterable[dict], models: dict[str, Any], path: Path, one_row_per_model: bool = False
) -> list:
    """Writes a contact sheet of the frames with each model's masks, a row per video, or per video and model.

    Returns:
        The images.
    """
    from PIL import Image
    from pycocotools import mask as coco_mask

    from mmsoc.apis.video_io import open_frames
    from mmsoc.utils.files import atomic_path
    from mmsoc.visualization import RVOSLocalVisualizer, contact_sheet

    # White and mostly an outline: the sentences name colours, which a tint would change.
    visualizer = RVOSLocalVisualizer('quickstart', colors=((255, 255, 255),), alpha=0.15, contour=3)
    images: list = []
    num_columns = 1
    for row in rows:
        source = open_frames(data_root / 'valid' / 'JPEGImages' / row['video'])
        before = len(images)
        for name, model in models.items():
            (found,) = model(source, row['sentence'])['predictions']['sentences']
            caption = f'{name}: {row["sentence"]} [{row["family"]}]'
            images += [
                visualizer.draw_sentences(image, [coco_mask.decode(mask)], [caption], scores=[found['score']], zoom=4)
                for image, mask in zip(source.read(), found['masks'])
            ]
        num_columns = (len(images) - before) // (len(models) if one_row_per_model else 1)
    with atomic_path(path) as temporary:
        Image.fromarray(contact_sheet(images, ncols=num_columns)).save(temporary)
    return images


def shown(rows: list[dict], per_family: int) -> list[dict]:
    """The first sentence of some videos of each family, in the order of the videos."""
    found: dict[str, list[dict]] = {family: [] for family in FAMILIES}
    for row in sorted(rows, key=lambda row: (row['video'], row['exp_id'])):
        if row['exp_id'] == '0' and len(found[row['family']]) < per_family:
            found[row['family']].append(row)
    return sorted((row for of_family in found.values() for row in of_family), key=lambda row: row['video'])


def show_shipped(args, steps: Steps) -> None:
    """soc-mini on some held-out videos: a table and a contact sheet, before anything is trained."""
    folder = args.work_dir / SHIPPED
    if (folder / 'result.txt').is_file():
        print((folder / 'result.txt').read_text())
        return
    from mmengine.runner import Runner

    from mmsoc.preparation.moving_shapes import Settings, generate

    data_root = folder / 'held-out'
    generate(data_root, Settings(train_videos=4))
    inferencer = inferencer_of(args, SHIPPED)
    cfg = Config.fromfile(SHIPPED_CONFIG)
    cfg.merge_from_dict(
        {
            'test_dataloader.dataset.data_root': str(data_root),
            'test_dataloader.dataset.indices': list(FIRST_VIDEOS),
            'test_evaluator.out_file': str(folder / 'test.json'),
            'work_dir': str(folder / 'log'),
            'log_level': 'WARNING',
        }
    )
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):  # its table lists the videos
        Runner(
            inferencer.model,
            work_dir=cfg.work_dir,
            test_dataloader=cfg.test_dataloader,
            test_cfg=cfg.test_cfg,
            test_evaluator=cfg.test_evaluator,
            log_level=cfg.log_level,
            default_scope='mmsoc',
            experiment_name=SHIPPED,
        ).test()
    rows = json.loads((folder / 'test.json').read_text())['rows']
    text = table({SHIPPED: by_family(rows), **baselines_of(data_root, rows)})
    draw_sheet(data_root, shown(rows, SHOWN_PER_FAMILY), {SHIPPED: inferencer}, folder / 'contact_sheet.png')
    text += f'\n{BASELINES}\n\n  the same videos with its masks: {folder / "contact_sheet.png"}'
    text = f'J&F on {len(FIRST_VIDEOS)} held-out videos, {len(rows)} sentences:\n\n{text}'
    (folder / 'result.txt').write_text(text + '\n')
    print(text)


def plot_loss(args, steps: Steps) -> None:
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from mmsoc.utils.files import atomic_path

    records = scalars(args.work_dir)
    figure, axis = plt.subplots(figsize=(8, 4.5))
    axis.plot([r['step'] for r in records], [r['loss'] for r in records], label='total')
    for name in ('loss_mask', 'loss_dice', 'loss_cls', 'loss_bbox', 'loss_giou', 'loss_contrastive'):
        axis.plot([r['step'] for r in records], [r[name] for r in records], label=name, linewidth=0.8)
    axis.set(
        xlabel='iteration',
        ylabel='loss (weighted)',
        yscale='log',
        title='MovingShapes, small SOC; further kinds of sentences start at the dotted lines',
    )
    cfg, plan = Config.fromfile(args.recipe.config), plan_of(args.work_dir)
    for start in sorted(set(plan['family_starts'].values()) - {0}):  # each adds new, harder sentences
        families = ', '.join(family for family, begin in plan['family_starts'].items() if begin == start)
        step = start * steps.state['epoch_size'] / total_batch(cfg)
        axis.axvline(step, color='grey', linestyle=':', linewidth=0.8)
        # Inside, where it cannot meet the title.
        axis.text(
            step, 0.98, families, transform=axis.get_xaxis_transform(), rotation=90, ha='right', va='top', fontsize=7
        )
    axis.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    with atomic_path(args.work_dir / 'loss.png') as path:
        figure.savefig(path, dpi=120, bbox_inches='tight')


def main() -> None:
    args = parse_args()
    from mmsoc.utils.files import dump_json
    from mmsoc.visualization import write_video

    steps = Steps(args.work_dir, total=7 + args.from_scratch)
    if steps.state.setdefault('from_scratch', args.from_scratch) != args.from_scratch:
        sys.exit(
            f'{args.work_dir} holds a training {"from scratch" if steps.state["from_scratch"] else "from pre-trained parts"}; '
            'use another --work-dir'
        )

    steps.begin(f'{SHIPPED}, which comes with mmsoc, on held-out videos')
    show_shipped(args, steps)

    steps.begin(f'MovingShapes in {args.data_root}')
    run(sys.executable, 'tools/dataset_converters/moving_shapes.py', '--out', args.data_root)

    backbone = None
    if args.from_scratch:
        steps.begin(f'Pre-training the backbone (log and checkpoint: {args.work_dir / "backbone"})')
        backbone = train_backbone(args)

    steps.begin('Measuring the speed of this machine')
    if steps.state.get('trained') or (steps.state.get('asked') == args.minutes and 'seconds' in steps.state):
        print('done already')
    else:
        measure_speed(args, steps)
        steps.keep(asked=args.minutes)

    steps.begin(
        f'Training for {steps.state["minutes"]:.1f} minutes on {args.procs} processes (log and checkpoints: {args.work_dir})'
    )
    checkpoint = train_soc(args, steps, backbone)

    steps.begin(f'Test of {checkpoint.name} and {SHIPPED} on held-out videos')
    wrong = args.work_dir / 'swapped_expressions.json'
    swapped_expressions(args.data_root / 'meta_expressions' / 'valid' / 'meta_expressions.json', wrong)
    rows = test(args, args.recipe.config, checkpoint, 'test')
    swapped = test(args, args.recipe.config, checkpoint, 'test_swapped', wrong)
    shipped = test(args, SHIPPED_CONFIG, SHIPPED, f'test_{SHIPPED}')

    steps.begin('Table and images')
    columns = dict(
        trained=by_family(rows),
        expected=steps.state['expected'],
        swapped=by_family(swapped),
        **{SHIPPED: by_family(shipped)},
        **baselines_of(args.data_root, rows),
    )
    epochs = plan_of(args.work_dir)['epochs']
    minutes = minutes_of(args.work_dir / 'backbone') + minutes_of(args.work_dir)
    clips = epochs * steps.state['epoch_size']
    result = dict(
        jf=columns,
        j=by_family(rows, 'J'),
        f=by_family(rows, 'F'),
        epochs=epochs,
        clips=clips,
        training_minutes=round(minutes, 2),
    )
    dump_json(result, args.work_dir / 'result.json', indent=1)
    text = f'{table(columns)}\n{BASELINES};\nswapped: the model, given a sentence about another object'
    (args.work_dir / 'result.txt').write_text(text + '\n')
    plot_loss(args, steps)
    models = {'trained': inferencer_of(args, checkpoint), SHIPPED: inferencer_of(args, SHIPPED)}
    images = draw_sheet(args.data_root, shown(rows, SHOWN_PER_FAMILY), models, args.work_dir / 'contact_sheet.png')
    write_video(args.work_dir / 'quickstart.mp4', images, fps=3)
    print(
        f'\nJ&F on {len({row["video"] for row in rows})} held-out videos, {len(rows)} sentences, after {clips:,} clips in '
        f'{minutes:.1f} minutes of training:\n\n{text}\n'
    )
    for name, what in (
        ('result.json', 'the figures'),
        ('result.txt', 'this table'),
        ('test.json', 'one row per sentence'),
        ('loss.png', 'the loss curve'),
        ('contact_sheet.png', 'held-out videos, a row each'),
        ('quickstart.mp4', 'the same as a video'),
        (checkpoint.name, 'the weights'),
    ):
        print(f'  {what:30s} {args.work_dir / name}')
    # The first one is of appearance, which the model handles best.
    first = shown(rows, 1)[0]
    video = args.data_root / 'valid' / 'JPEGImages' / first['video']
    print(
        '\nThe images were made by this command; it also takes your own file or folder and sentence:\n'
        f'  python tools/infer.py {video} --text "{first["sentence"]}" --weights {checkpoint} --out {args.work_dir / "segmented"}'
    )


if __name__ == '__main__':
    main()
