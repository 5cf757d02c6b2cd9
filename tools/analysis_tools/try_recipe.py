"""Runs recipes end to end on small twins of their data sets, before the real data and GPUs are available.

    python tools/analysis_tools/try_recipe.py configs/soc/soc_swin-t_a2d.py configs/soc/soc_swin-t_mevis.py

For each config: writes the twins that it reads (tools/dataset_converters/moving_shapes_twins.py), puts the small model
of configs/_base_/models/soc_tiny.py and small frames into the recipe, trains with tools/dist_train.sh (validation
included), tests the checkpoint in one process and in several with tools/test.py and tools/dist_test.sh, and compares
both reports: every number must be the same. The recipe's data sets, pipelines, clip sampling, batches, schedule, hooks,
metrics and test_cfg are kept.

The scores show that everything works together; they say nothing about the recipe's quality.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import find_latest_checkpoint

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import user_errors

ROOT = Path(__file__).resolve().parents[2]
SMALL_MODEL = ROOT / 'configs' / '_base_' / 'models' / 'soc_tiny.py'
SIZES = ('expected_videos', 'expected_samples', 'expected_sentences')


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--out', default='work_dirs/try_recipe', help='output folder (default: %(default)s)')
    parser.add_argument(
        '--procs', type=int, default=2, help='processes of training and of the second test (default: %(default)s)'
    )
    parser.add_argument('--epochs', type=int, default=3, help='(default: %(default)s)')
    parser.add_argument(
        '--lr',
        type=float,
        default=7e-4,
        help='learning rate, for a small model with random weights (default: %(default)s)',
    )
    parser.add_argument(
        '--videos',
        type=int,
        nargs=2,
        default=(16, 8),
        metavar=('TRAIN', 'VALID'),
        help='videos of each twin (default: 16 8)',
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=(96, 64), metavar=('W', 'H'), help='size of the frames (default: 96 64)'
    )
    parser.add_argument('--load-from', metavar='CHECKPOINT', help='checkpoint that a fine-tuning recipe starts from')
    args = parser.parse_args(arguments)
    for config in args.configs:
        if not Path(config).is_file():
            parser.error(f'{config}: no such config')
    for name in ('procs', 'epochs'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, found {getattr(args, name)}')
    args.out = Path(args.out).resolve()
    return args


def dicts(node: Any) -> Iterator[dict]:
    """Every dictionary in a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from dicts(part)


def shrink_loader(loader: dict, size: Sequence[int]) -> dict:
    """Adapts a loader, in place, to frames of (width, height) and data sets of any size."""
    loader['num_workers'] = 0
    for part in dicts(loader):
        if part.get('type') == 'ShortSideResize':
            part['scale'] = tuple(size)
        elif part.get('type') == 'RandomShortSideResize':
            part['sides'], part['longest'] = [min(size)], max(size)
        elif part.get('type') == 'RandomClipCrop':
            part['min_size'] = part['max_size'] = min(size)
        for key in SIZES:
            if key in part:
                part[key] = None
    return loader


def shrink(cfg: Config, args: argparse.Namespace) -> None:
    """The recipe with a small model and small frames, for data sets of any size."""
    test_cfg = cfg.model.get('test_cfg', {})
    cfg.model = Config.fromfile(SMALL_MODEL).model
    cfg.model.test_cfg = {**cfg.model.get('test_cfg', {}), **test_cfg}
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        shrink_loader(loader, args.size)
    cfg.train_cfg.max_epochs = args.epochs
    cfg.optim_wrapper.optimizer.lr = args.lr
    cfg.default_hooks.logger.interval = 1
    if args.load_from is not None:
        cfg.load_from = str(Path(args.load_from).resolve())


def make_odd(cfg: Config) -> int:
    """Drops one test sample if their number is even: numbers that the processes do not divide are error-prone."""
    init_default_scope(cfg.default_scope)
    samples = len(DATASETS.build(cfg.test_dataloader.dataset))
    if samples % 2 == 0:
        samples -= 1
        cfg.test_dataloader.dataset.indices = samples
    return samples


def run(log: Path, *command: object) -> None:
    # The same number of threads everywhere, since sums in another order differ in the last digits.
    env = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1')
    command = tuple(map(str, command))
    with log.open('w') as stream:
        status = subprocess.run(command, env=env, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status:
        print(''.join(log.read_text(errors='replace').splitlines(keepends=True)[-30:]), file=sys.stderr)
        raise SystemExit(f'{" ".join(command)} ended with status {status}; the whole log: {log}')


def try_recipe(path: Path, args: argparse.Namespace) -> bool:
    """Runs a recipe; returns whether both tests gave the same report."""
    folder = args.out / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    cfg = Config.fromfile(path)
    shrink(cfg, args)
    samples = make_odd(cfg)
    config = folder / path.name
    cfg.dump(str(config))
    print(
        f'{path.stem}: {samples} test samples; training in {args.procs} processes (log: {folder / "train.log"})',
        flush=True,
    )
    run(folder / 'train.log', 'bash', 'tools/dist_train.sh', config, args.procs, '--work-dir', folder / 'train')
    checkpoint = find_latest_checkpoint(str(folder / 'train'))
    reports = []
    for procs in (1, args.procs):
        out = folder / f'report_{procs}.json'
        launch = ('bash', 'tools/dist_test.sh', config, checkpoint, procs)
        if procs == 1:
            launch = (sys.executable, 'tools/test.py', config, checkpoint)
        run(folder / f'test_{procs}.log', *launch, '--work-dir', folder / f'test_{procs}', '--out', out)
        reports.append(json.loads(out.read_text()))
    same = reports[0] == reports[1]
    print(f'  metrics: {json.dumps(reports[0]["metrics"])}')
    print(f'  1 and {args.procs} processes: {"the same report" if same else "DIFFERENT REPORTS"} '
          f'({folder / "report_1.json"}, {folder / f"report_{args.procs}.json"})', flush=True)  # fmt: skip
    return same


@user_errors()
def main() -> None:
    args = parse_args()
    twins = args.out / 'twins'
    os.environ['MMSOC_DATA'] = str(twins)
    args.out.mkdir(parents=True, exist_ok=True)
    options = ('--train-videos', args.videos[0], '--valid-videos', args.videos[1], '--size', *args.size)
    run(
        args.out / 'twins.log',
        sys.executable,
        'tools/dataset_converters/moving_shapes_twins.py',
        '--out',
        twins,
        *options,
    )
    different = [path for path in args.configs if not try_recipe(Path(path).resolve(), args)]
    if different:
        raise SystemExit(f'the number of processes changed the scores of {", ".join(different)}')


if __name__ == '__main__':
    main()
