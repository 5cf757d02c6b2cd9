"""The quickstart on generated data: generate, train, test, visualize. Called by tools/quickstart.sh; see there."""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine import Config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONFIG = ROOT / 'configs' / 'soc' / 'soc_tiny_moving-shapes.py'
BACKBONE_CONFIG = ROOT / 'configs' / 'pretrain' / 'video-swin-mini_moving-shapes.py'
DEFAULT_MINUTES = 14.0
FAMILIES = ('appearance', 'relation', 'change', 'order')
SECONDS_BETWEEN_REPORTS = 15
PROBE_ITERS = 40  # iterations that measure this machine's speed, excluding the slower first half
SHOWN_PER_FAMILY = 3


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
    args.procs = args.procs or min(os.cpu_count() or 1, 2)
    args.work_dir = Path(args.work_dir).resolve()
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


def train(args, config: Path, folder: Path, options: Sequence[str], epochs: int, seconds: Sequence[float] = ()) -> None:
    """Trains with a config, or resumes, and reports progress.

    Args:
        options: in addition to those that set the number of epochs.
        seconds: expected duration of each epoch; () if all are equal.
    """
    cfg = Config.fromfile(config)
    iterations = cfg.epoch_size // (cfg.batch_size * args.procs)
    decay = next(i for i, scheduler in enumerate(cfg.param_scheduler) if scheduler.type == 'PolyLR')

    def progress() -> str:
        records = scalars(folder)
        if not records:
            return f'starting (log: {log})'
        done = records[-1]['step'] / iterations
        of_epoch = seconds or [records[-1]['time'] * iterations] * epochs
        left = sum(min(max(epoch + 1 - done, 0), 1) * of_epoch[epoch] for epoch in range(epochs))
        return f'epoch {min(int(done) + 1, epochs)} of {epochs}, loss {records[-1]["loss"]:.2f}, about {left / 60:.1f} min left'

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
        f'train_cfg.max_epochs={epochs}',
        f'param_scheduler.{decay}.end={epochs}',
        *options,
        gpus=args.gpus,
        log=log,
        progress=progress,
    )


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
    train(args, BACKBONE_CONFIG, folder, (), epochs)
    (folder / 'done').touch()
    return folder / f'epoch_{epochs}.pth'


def plan_epochs(args, steps: Steps) -> None:
    """Records how many epochs fit into the remaining minutes, from the speed of a few iterations on this machine."""
    key = f'{args.minutes} min on {args.procs} processes, {args.gpus} GPUs'
    if steps.state.get('plan') == key:
        return
    if 'plan' in steps.state and scalars(args.work_dir):
        print(
            f'this work directory holds a training planned for {steps.state["plan"]}; resuming it '
            '(use another --work-dir to start over)'
        )
        return
    cfg = Config.fromfile(CONFIG)
    probe = args.work_dir / 'probe'
    batch = cfg.batch_size * args.procs
    run(
        'bash',
        'tools/dist_train.sh',
        CONFIG,
        args.procs,
        '--work-dir',
        probe,
        '--cfg-options',
        *stages(cfg, 2),
        'train_cfg.max_epochs=2',
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
        seconds.append(sum(times) / len(times) * cfg.epoch_size / batch)
    image_share = cfg.image_epochs / cfg.max_epochs
    per_epoch = seconds[0] * image_share + seconds[1] * (1 - image_share)
    minutes = max(args.minutes - minutes_of(args.work_dir / 'backbone'), 0)
    epochs = max(int(minutes * 60 / per_epoch), 2)  # at least one of each
    print(
        f'one epoch ({cfg.epoch_size} clips) takes about {seconds[0]:.0f} s on single frames and {seconds[1]:.0f} s on videos '
        f'here: {epochs} of them, about {epochs * per_epoch / 60:.1f} minutes of training'
    )
    steps.keep(
        plan=key, epochs=epochs, seconds_of_pictures=round(seconds[0], 1), seconds_of_videos=round(seconds[1], 1)
    )


def scaled(cfg: Config, epochs: int, epoch: int) -> int:
    """The epoch at which a stage of the config begins when training for ``epochs``; stages keep their shares."""
    return 0 if epoch == 0 else min(max(round(epoch * epochs / cfg.max_epochs), 1), epochs - 1)


def stages(cfg: Config, epochs: int) -> list[str]:
    """Options that scale the config's stages to ``epochs``."""
    switch = next(i for i, hook in enumerate(cfg.custom_hooks) if hook.type == 'mmdet.PipelineSwitchHook')
    videos = scaled(cfg, epochs, cfg.image_epochs)
    return [
        f'train_cfg.val_begin={videos + 1}',
        f'custom_hooks.{switch}.switch_epoch={videos}',
        *(
            f'train_dataloader.sampler.family_starts.{family}={scaled(cfg, epochs, start)}'
            for family, start in cfg.family_starts.items()
        ),
    ]


def train_soc(args, steps: Steps, backbone: Path) -> Path:
    """Trains, or resumes; returns the best checkpoint."""
    cfg, epochs = Config.fromfile(CONFIG), steps.state['epochs']
    image_epochs = scaled(cfg, epochs, cfg.image_epochs)
    seconds = [steps.state['seconds_of_pictures']] * image_epochs + [steps.state['seconds_of_videos']] * (
        epochs - image_epochs
    )
    train(args, CONFIG, args.work_dir, [*stages(cfg, epochs), f'model.backbone.pretrained={backbone}'], epochs, seconds)
    best = sorted(args.work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    if not best:
        sys.exit(f'quickstart stopped: no best_*.pth in {args.work_dir}')
    return best[-1]


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


def test(args, checkpoint: Path, data_root: Path) -> tuple[dict, dict]:
    """Reports of the best checkpoint on held-out videos, with their own sentences and with those of other objects."""
    folder = args.work_dir / 'test'

    def score(out: Path, log: str, *options) -> dict:
        command = ['bash', 'tools/dist_test.sh', CONFIG, checkpoint, args.procs, '--work-dir', folder, '--out', out]
        run(*command, *options, gpus=args.gpus, log=args.work_dir / log)
        return json.loads(out.read_text())

    wrong = args.work_dir / 'swapped_expressions.json'
    swapped_expressions(data_root / 'meta_expressions' / 'valid' / 'meta_expressions.json', wrong)
    return (
        score(args.work_dir / 'test.json', 'test.log'),
        score(
            args.work_dir / 'test_swapped.json',
            'test_swapped.log',
            '--cfg-options',
            f'test_dataloader.dataset.ann_file={wrong}',
        ),
    )


def by_family(rows: list[dict], key: str = 'J&F') -> dict[str, float]:
    """Mean over the sentences of each family and over all, 0-100."""
    groups = {family: [row[key] for row in rows if row['family'] == family] for family in FAMILIES}
    groups['all'] = [row[key] for row in rows]
    return {name: round(100 * sum(values) / len(values), 2) for name, values in groups.items() if values}


def table(result: dict, rows: list[dict]) -> str:
    """A row per family."""
    lines = [f'{"":12s} {"J":>6s} {"F":>6s} {"J&F":>6s}   {"empty":>6s} {"frame":>6s} {"random":>6s} {"swapped":>7s}']
    region, contour = by_family(rows, 'J'), by_family(rows, 'F')
    for name in result['jf']:
        lines.append(
            f'{name:12s} {region[name]:6.1f} {contour[name]:6.1f} {result["jf"][name]:6.1f}   '
            f'{result["empty"][name]:6.1f} {result["whole_frame"][name]:6.1f} {result["random_object"][name]:6.1f} '
            f'{result["swapped_sentence"][name]:7.1f}'
        )
    lines += [
        'empty: no mask at all; frame: the whole frame; random: the perfect mask of a random object, blind to the sentence;',
        'swapped: the model, given a sentence about another object',
    ]
    return '\n'.join(lines)


def images(args, data_root: Path, checkpoint: Path, rows: Sequence[dict]) -> str:
    """Loss curve, contact sheet and video of some held-out videos; returns the command for another prediction."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from PIL import Image
    from pycocotools import mask as coco_mask

    from mmsoc.apis import SOCInferencer
    from mmsoc.apis.video_io import open_frames
    from mmsoc.registry import VISUALIZERS
    from mmsoc.utils.files import atomic_path
    from mmsoc.visualization import contact_sheet, write_video

    records = scalars(args.work_dir)
    figure, axis = plt.subplots(figsize=(8, 4.5))
    axis.plot([r['step'] for r in records], [r['loss'] for r in records], label='total')
    for name in ('loss_mask', 'loss_dice', 'loss_cls', 'loss_bbox', 'loss_giou', 'loss_contrastive'):
        axis.plot([r['step'] for r in records], [r[name] for r in records], label=name, linewidth=0.8)
    axis.set(
        xlabel='iteration',
        ylabel='loss (weighted)',
        yscale='log',
        title='MovingShapes, small SOC; sentences come in at the dotted lines\n\n',
    )
    cfg, epochs = Config.fromfile(CONFIG), records[-1]['epoch']
    for family, start in cfg.family_starts.items():  # each adds new, harder sentences
        if start:
            step = scaled(cfg, epochs, start) * records[-1]['step'] / epochs
            axis.axvline(step, color='grey', linestyle=':', linewidth=0.8)
            axis.text(step, 1.01, family, transform=axis.get_xaxis_transform(), rotation=40, fontsize=7, color='grey')
    axis.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
    with atomic_path(args.work_dir / 'loss.png') as path:
        figure.savefig(path, dpi=120, bbox_inches='tight')

    warnings.filterwarnings('ignore', message='torch.meshgrid')
    inferencer = SOCInferencer(weights=checkpoint, device=None if args.gpus else 'cpu', show_progress=False)
    # White and mostly an outline: the sentences name colours, which a tint would change.
    visualizer = VISUALIZERS.build(
        dict(type='RVOSLocalVisualizer', name='quickstart', colors=((255, 255, 255),), alpha=0.15, contour=3)
    )
    shown: dict[str, int] = dict.fromkeys(FAMILIES, 0)
    sheet, num_frames, command = [], 0, ''
    for row in sorted(rows, key=lambda row: (row['video'], row['exp_id'])):
        family, text = row['family'], row['sentence']
        if row['exp_id'] != '0' or shown[family] == SHOWN_PER_FAMILY:
            continue
        shown[family] += 1
        source = open_frames(data_root / 'valid' / 'JPEGImages' / row['video'])
        (found,) = inferencer(source, text)['predictions']['sentences']
        num_frames = len(found['masks'])
        # The first one is of appearance, which the model handles best.
        command = command or (
            f'python tools/infer.py {source.path} --text "{text}" --weights {checkpoint} --out {args.work_dir / "segmented"}'
        )
        for image, mask in zip(source.read(), found['masks']):
            caption = f'{text} [{family}]'
            sheet.append(
                visualizer.draw_sentences(image, [coco_mask.decode(mask)], [caption], scores=[found['score']], zoom=4)
            )
    write_video(args.work_dir / 'quickstart.mp4', sheet, fps=3)
    with atomic_path(args.work_dir / 'contact_sheet.png') as path:
        Image.fromarray(contact_sheet(sheet, ncols=num_frames)).save(path)
    return command


def main() -> None:
    args = parse_args()
    from mmsoc.utils.files import dump_json
    from tools.analysis_tools.moving_shapes_baselines import baselines

    steps = Steps(args.work_dir, total=7)
    data_root = Path(os.environ.get('MMSOC_DATA', ROOT / 'data')) / 'moving-shapes'

    steps.begin(f'MovingShapes in {data_root}')
    run(sys.executable, 'tools/dataset_converters/moving_shapes.py', '--out', data_root)

    steps.begin(f'Pre-training the backbone (log and checkpoint: {args.work_dir / "backbone"})')
    backbone = train_backbone(args)

    steps.begin('Measuring the speed of this machine')
    plan_epochs(args, steps)

    steps.begin(
        f'Training, {steps.state["epochs"]} epochs, {args.procs} processes (log and checkpoints: {args.work_dir})'
    )
    checkpoint = train_soc(args, steps, backbone)

    steps.begin(f'Test of {checkpoint.name} on held-out videos')
    report, swapped = test(args, checkpoint, data_root)

    steps.begin('Baselines')
    videos = {row['video'] for row in report['rows']}
    result = dict(
        jf=by_family(report['rows']),
        swapped_sentence=by_family(swapped['rows']),
        **baselines(data_root, videos),
        training_minutes=round(minutes_of(args.work_dir / 'backbone') + minutes_of(args.work_dir), 2),
    )
    dump_json(result, args.work_dir / 'result.json', indent=1)

    steps.begin('Images')
    command = images(args, data_root, checkpoint, report['rows'])
    text = table(result, report['rows'])
    (args.work_dir / 'result.txt').write_text(text + '\n')
    print(
        f'\nJ&F on {len(videos)} held-out videos, {len(report["rows"])} sentences, after '
        f'{result["training_minutes"]:.1f} minutes of training:\n\n{text}\n'
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
    print(f'\nThe images were made by this command; it also takes your own file or folder and sentence:\n  {command}')


if __name__ == '__main__':
    main()
