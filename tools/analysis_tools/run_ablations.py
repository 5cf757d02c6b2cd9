"""The paper's ablations, and SOC beside ReferFormer, on MovingShapes: trains the small twins and writes tables and plots.

    python tools/dataset_converters/moving_shapes.py
    python tools/analysis_tools/run_ablations.py --tables 3 5 8 --seeds 3

A run is one config of configs/soc/ablations/moving-shapes with one seed. All start from the same pre-trained backbone and text
encoder, see the same clips in the same order for a seed, and get the same number of updates. One process trains a run, and as many
run at once as there are cores, or GPUs (--gpus). An interrupted run is resumed; a finished one has left a JSON file in
OUT/runs, and is not repeated as long as its config and the number of epochs are the same. Table and plot of each of the
paper's tables, with mean and spread over the seeds, are made from all files there: OUT/table_3.md, .csv, .png.
Runs on another MovingShapes set than the one at hand do not count.
"""

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from mmsoc.preparation.moving_shapes.writer import MANIFEST
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.files import dump_json, load_json
from tools.quickstart import scalars

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'soc' / 'ablations' / 'moving-shapes'
FAMILIES = ('appearance', 'relation', 'change', 'order')
COLUMNS = (*FAMILIES, 'all')
MEASURES = {column: (column, 1) for column in COLUMNS} | {
    'var_J_x100': ('variance of J', 2),
    'var_J&F_x100': ('variance of J&F', 2),
}
"""of a record: heading and number of decimals"""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    label: str
    config: str
    """in CONFIGS"""
    paper: float | None = None
    """J&F on Ref-YouTube-VOS in the paper"""
    options: tuple[str, ...] = ()
    """of the test; the training is that of the config"""

    @property
    def name(self) -> str:
        """Of the run's files, without the seed."""
        parts = [self.config]
        for option in self.options:
            key, _, value = option.rpartition('=')
            key = key.rpartition('.')[2]
            parts.append(value if key == 'type' else f'{key}-{value}')
        return '_'.join(parts)


_BASE = Row('SOC', 'base', 59.2)
_ONE_FRAME = ('model.test_cfg.frames_per_clip=1',)
TABLES: dict[str, tuple[str, tuple[Row, ...]]] = {
    '3': (
        'components',
        (
            Row('neither', 'voc-vl_none'),
            Row('without the cluster', 'voc_none', 57.1),
            Row('without the contrastive loss', 'vl_none', 58.0),
            _BASE,
        ),
    ),
    '4': (
        'fusion',
        (
            Row('no fusion', 'fusion_none', 38.3),
            Row('vision to language', 'fusion_v2l', 39.8),
            Row('language to vision', 'fusion_l2v', 58.7),
            _BASE,
        ),
    ),
    '5': (
        'ways to cluster',
        (
            Row('K-means', 'voc_kmeans', 33.8),
            Row('1D convolution', 'voc_conv1d', 55.1),
            Row('average', 'voc_average', 57.5),
            _BASE,
        ),
    ),
    '6': (
        'number of queries',
        (
            Row('4 (paper: 10)', 'queries_4', 58.0),
            Row('6 (paper: 15)', 'queries_6', 58.1),
            Row('8 (paper: 20)', 'base', 59.2),
            Row('10 (paper: 25)', 'queries_10', 58.5),
        ),
    ),
    '8': (
        'parts of the cluster',
        (
            Row('none', 'voc_none', 57.1),
            Row('encoder', 'voc_encoder-only', 58.3),
            Row('decoder', 'voc_decoder-only', 58.1),
            _BASE,
        ),
    ),
    'position': (
        "the frame's position in the cluster",
        (_BASE, Row('with the position', 'frame-position')),
    ),
    'one-frame': (
        'components, each frame predicted alone',
        (
            Row('without the cluster', 'voc_none', options=_ONE_FRAME),
            Row('neither', 'voc-vl_none', options=_ONE_FRAME),
            Row('without the contrastive loss', 'vl_none', options=_ONE_FRAME),
            Row('SOC', 'base', options=_ONE_FRAME),
        ),
    ),
    'frame-backbone': (
        'the cluster, after a backbone that sees one frame at a time',
        (
            Row('without the cluster', 'frame-backbone_voc_none'),
            Row('SOC', 'frame-backbone'),
            Row('with the position', 'frame-backbone_frame-position'),
        ),
    ),
    'referformer': (
        'SOC and ReferFormer',
        (Row('ReferFormer', 'referformer', 56.0), _BASE),
    ),
    'query': (
        'one query for the video, or one for each frame',
        (_BASE, Row('per frame', 'base', options=('model.test_cfg.selector.type=QueryPerFrame',))),
    ),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--tables', nargs='+', default=list(TABLES), choices=TABLES, help='which (default: all): %(choices)s'
    )
    parser.add_argument('--seeds', type=int, default=3, help='runs of each config (default: %(default)s)')
    parser.add_argument(
        '--out', default=str(ROOT / 'docs' / 'evidence'), help='folder of tables and runs (default: %(default)s)'
    )
    parser.add_argument(
        '--work-dir', default=str(ROOT / 'work_dirs' / 'ablations'), help='of the trainings (default: %(default)s)'
    )
    parser.add_argument('--jobs', type=int, help='runs at once (default: one per core, or per GPU with --gpus)')
    parser.add_argument('--gpus', type=int, default=0, help='train on this many GPUs (default: on the CPU)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every training')
    parser.add_argument('--tables-only', action='store_true', help='train nothing; tables of the runs that are there')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, found {args.seeds}')
    args.jobs = args.jobs or args.gpus or len(os.sched_getaffinity(0))
    args.out, args.work_dir = Path(args.out).resolve(), Path(args.work_dir).resolve()
    args.data_root = Path(os.environ.get('MMSOC_DATA') or ROOT / 'data') / 'moving-shapes'
    return args


# ------------------------------------------------------------------------------------------------------------------- runs


@dataclass
class Runs:
    """Trains and tests what is missing."""

    out: Path
    work_dir: Path
    gpus: int
    options: Sequence[str]
    data: dict[str, Any] | None = None
    """the parameters of the MovingShapes set at hand; None if there is none"""

    def __post_init__(self) -> None:
        self._free_gpus: Queue[int] = Queue()
        for gpu in range(self.gpus):
            self._free_gpus.put(gpu)
        self._lock = threading.Lock()
        self._config_locks: dict[tuple[str, int], threading.Lock] = {}

    def file(self, row: Row, seed: int) -> Path:
        return self.out / 'runs' / f'{row.name}_seed{seed}.json'

    def recipe(self, row: Row) -> str:
        """A digest of everything that determines a run but the seed and where the data lies."""
        cfg = Config.fromfile(CONFIGS / f'{row.config}.py').to_dict()
        # Not Config.pretty_text: its layout depends on the version of yapf.
        text = json.dumps([_without_data_root(cfg), row.options, list(self.options)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder(self, config: str, seed: int) -> Path:
        """Of a training: another recipe, or other data, must not resume it."""
        digest = hashlib.sha256(repr((self.recipe(Row('', config)), self.data)).encode()).hexdigest()
        return self.work_dir / f'{config}_seed{seed}_{digest[:8]}'

    def known(self, row: Row, seed: int) -> dict[str, Any] | None:
        """The record of a finished run of this recipe, on the data at hand if there is any."""
        path = self.file(row, seed)
        if not path.is_file():
            return None
        record = load_json(path, 'run')
        same_data = self.data is None or record.get('data') == self.data
        return record if record.get('recipe') == self.recipe(row) and same_data else None

    def run(self, row: Row, seed: int) -> dict[str, Any]:
        """Trains, or goes on, tests, and writes the record."""
        config, folder = CONFIGS / f'{row.config}.py', self.folder(row.config, seed)
        with self._lock:
            training = self._config_locks.setdefault((row.config, seed), threading.Lock())
        with training, self._device() as environment:
            options = [f'randomness.seed={seed}', *self.options]
            self._call(folder, 'train.log', environment, 'train.py', config, '--resume', '--cfg-options', *options)
            checkpoint = find_latest_checkpoint(folder)
            report = folder / f'{row.name}.json'
            chosen = ['--cfg-options', *row.options] if row.options else []
            self._call(
                folder, f'{row.name}.test.log', environment, 'test.py', config, checkpoint, '--out', report, *chosen
            )
        record = self._record(row, seed, folder, report)
        dump_json(record, self.file(row, seed), indent=1)
        return record

    @contextmanager
    def _device(self) -> Iterator[dict[str, str]]:
        """The environment of one run: a free GPU, or one thread of the CPU."""
        gpu = self._free_gpus.get() if self.gpus else None
        try:
            yield dict(os.environ, CUDA_VISIBLE_DEVICES='' if gpu is None else str(gpu), OMP_NUM_THREADS='1')
        finally:
            if gpu is not None:
                self._free_gpus.put(gpu)

    @staticmethod
    def _call(folder: Path, log: str, environment: dict[str, str], tool: str, *arguments: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments), '--work-dir', str(folder)]
        with (folder / log).open('w') as stream:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT
            ).returncode
        if status:
            raise UserError(f'{" ".join(command)} ended with status {status}; its output: {folder / log}')

    def _record(self, row: Row, seed: int, folder: Path, report: Path) -> dict[str, Any]:
        jf, stability = (load_json(report.with_name(f'{report.stem}_{index}.json'), 'report') for index in (0, 1))
        scores = {
            family: 100 * statistics.mean(r['J&F'] for r in jf['rows'] if family in ('all', r['family']))
            for family in COLUMNS
        }
        cfg = Config.fromfile(CONFIGS / f'{row.config}.py')
        return dict(
            config=row.config,
            options=list(row.options),
            seed=seed,
            recipe=self.recipe(row),
            data=self.data,
            jf={key: round(value, 2) for key, value in scores.items()},
            stability={key: round(value, 3) for key, value in stability['metrics'].items() if key.endswith('x100')},
            training_minutes=round(training_minutes(folder, cfg.image_epochs), 1),
            parameters=_parameters(row),
            sentences=len(jf['rows']),
            commit=_commit(),
        )


def _without_data_root(cfg: Any) -> Any:
    if isinstance(cfg, dict):
        return {key: _without_data_root(value) for key, value in cfg.items() if key != 'data_root'}
    return [_without_data_root(value) for value in cfg] if isinstance(cfg, list | tuple) else cfg


def training_minutes(folder: Path, image_epochs: int) -> float:
    """Of an undisturbed training: all iterations at the lower quartile of their stage, images or videos.

    A pause, or other work on the machine, may slow a part of the logged iterations; MMEngine smooths their times.
    """
    records = scalars(folder)
    interval = records[0]['step']
    minutes = 0.0
    for is_image in (True, False):
        times = sorted(record['time'] for record in records if (record['epoch'] <= image_epochs) == is_image)
        if times:
            minutes += times[len(times) // 4] * len(times) * interval / 60
    return minutes


def _parameters(row: Row) -> int:
    """Of what predicts."""
    from mmengine.registry import init_default_scope

    from mmsoc.registry import MODELS

    init_default_scope('mmsoc')
    cfg = Config.fromfile(CONFIGS / f'{row.config}.py').model
    cfg.auxiliary_heads = []
    return sum(parameter.numel() for parameter in MODELS.build(cfg).parameters())


def _commit() -> str:
    found = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


# ----------------------------------------------------------------------------------------------------------------- tables


def summary(records: Sequence[dict[str, Any]], key: str) -> tuple[float, float]:
    """Mean and sample standard deviation (0 of one run) of one of MEASURES."""
    values = [(record['jf'] | record['stability'])[key] for record in records]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def differences(found: dict[Row, list[dict[str, Any]]]) -> list[str]:
    """A sentence for each row: where it differs from SOC (from the first row without SOC) by more than the spread.

    Two means differ if their distance exceeds the sum of the two standard deviations; fewer than three seeds tell nothing.
    """
    reference = next((row for row in found if row.name == 'base'), next(iter(found)))
    sentences = []
    for row, records in found.items():
        if row is reference:
            continue
        if min(len(records), len(found[reference])) < 3:
            sentences.append(f'{row.label}: fewer than three seeds, no ordering is claimed')
            continue
        parts = []
        for key, (heading, digits) in MEASURES.items():
            (mean, spread), (other, of_other) = summary(records, key), summary(found[reference], key)
            if abs(mean - other) > spread + of_other:
                parts.append(f'{heading} {mean - other:+.{digits}f}')
        sentences.append(f'{row.label}: {", ".join(parts) or "no difference"}')
    return [
        f'Differences from "{reference.label}" that exceed the sum of the two standard deviations:',
        '',
        *(f'- {sentence}' for sentence in sentences),
    ]


def write_table(name: str, title: str, found: dict[Row, list[dict[str, Any]]], out: Path) -> None:
    """``table_NAME.md`` and ``.csv`` of the rows that have runs, and a plot."""
    lines = [
        f'# Table {name}: {title}' if name.isdigit() else f'# {title[0].upper()}{title[1:]}',
        '',
        'J&F on the 192 test videos of MovingShapes, mean ± sample standard deviation over the seeds. Variance: 100 times the',
        'variance of J and of J&F over the frames of a video, as in Figure 4. Paper: J&F on Ref-YouTube-VOS as the paper prints it',
        '(ReferFormer: its README), not measured here.',
        '',
        '| | seeds | ' + ' | '.join(heading for heading, _ in MEASURES.values()) + ' | minutes | parameters | paper |',
        '|---|---:|' + '---:|' * (len(MEASURES) + 3),
    ]
    with (out / f'table_{name}.csv').open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                'row',
                'seeds',
                *(f'{key}_{part}' for key in MEASURES for part in ('mean', 'std')),
                'minutes',
                'parameters',
                'paper',
            ]
        )
        for row, records in found.items():
            values = [(*summary(records, key), digits) for key, (_, digits) in MEASURES.items()]
            minutes = statistics.mean(record['training_minutes'] for record in records)
            parameters = records[0]['parameters']
            paper = '' if row.paper is None else f'{row.paper:.1f}'
            cells = [
                *(
                    f'{mean:.{digits}f}' + (f' ± {spread:.{digits}f}' if len(records) > 1 else '')
                    for mean, spread, digits in values
                ),
                f'{minutes:.0f}',
                f'{parameters / 1e6:.2f} M',
                paper,
            ]
            lines.append(f'| {row.label} | {len(records)} | ' + ' | '.join(cells) + ' |')
            writer.writerow(
                [
                    row.label,
                    len(records),
                    *(f'{number:.{digits + 1}f}' for *pair, digits in values for number in pair),
                    f'{minutes:.1f}',
                    parameters,
                    paper,
                ]
            )
    lines += ['', *differences(found), '', f'![](table_{name}.png)', '']
    (out / f'table_{name}.md').write_text('\n'.join(lines))
    plot(title, found, out / f'table_{name}.png')


def plot(title: str, found: dict[Row, list[dict[str, Any]]], path: Path) -> None:
    """J&F by family, a bar for each row, with every seed and the spread drawn."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from mmsoc.utils.files import atomic_path

    figure, axis = plt.subplots(figsize=(8, 4))
    width = 0.8 / len(found)
    for index, (row, records) in enumerate(found.items()):
        places = [column + (index - (len(found) - 1) / 2) * width for column in range(len(COLUMNS))]
        means, spreads = zip(*(summary(records, key) for key in COLUMNS), strict=True)
        axis.bar(places, means, width, yerr=spreads, capsize=3, label=f'{row.label} ({len(records)})')
        for place, key in zip(places, COLUMNS, strict=True):
            axis.plot([place] * len(records), [record['jf'][key] for record in records], 'k.', markersize=3)
    axis.set(xticks=range(len(COLUMNS)), xticklabels=COLUMNS, ylabel='J&F', ylim=(0, 100), title=title)
    axis.legend(fontsize=7, title='number of seeds in brackets', title_fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches='tight')
    plt.close(figure)


def draw_models(configs: dict[str, str], runs: Runs, data_root: Path, path: Path, count: int = 4) -> bool:
    """A contact sheet in the manner of the paper's Figures 6 and 7: sentences about change, each model's masks below the other's.

    Args:
        configs: of each model, by its name in the picture.
        count: number of videos, the first ones of the test.

    Returns:
        Whether the checkpoints of seed 0 are there.
    """
    folders = {name: runs.folder(config, 0) for name, config in configs.items()}
    checkpoints = {name: folder.is_dir() and find_latest_checkpoint(folder) for name, folder in folders.items()}
    if not all(checkpoints.values()):
        return False
    from mmsoc.apis import SOCInferencer
    from tools.quickstart import draw_sheet, shown

    models = {
        name: SOCInferencer(weights=found, device='cpu', show_progress=False) for name, found in checkpoints.items()
    }
    name, config = next(iter(configs.items()))
    report = load_json(folders[name] / f'{config}_0.json', 'report')
    rows = [row for row in shown(report['rows'], count) if row['family'] == 'change']
    draw_sheet(data_root, rows, models, path, one_row_per_model=True)
    return True


@user_errors()
def main() -> None:
    args = parse_args()
    manifest = args.data_root / MANIFEST
    data = load_json(manifest, MANIFEST)['parameters'] if manifest.is_file() else None
    runs = Runs(args.out, args.work_dir, args.gpus, args.cfg_options, data)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = list(dict.fromkeys(row for name in args.tables for row in TABLES[name][1]))
    by_name = {row.name: row for row in rows}
    wanted = [(row, seed) for seed in range(args.seeds) for row in by_name.values()]
    missing = [(row, seed) for row, seed in wanted if runs.known(row, seed) is None]
    others = sum(runs.file(row, seed).is_file() for row, seed in missing)
    print(
        f'{len(wanted)} runs, of which {len(wanted) - len(missing)} are finished'
        + (f' ({others} more have another recipe or other data, and do not count)' if others else ''),
        flush=True,
    )
    if args.tables_only:
        missing = []
    if missing and data is None:
        raise UserError(
            f'{manifest} does not exist; python tools/dataset_converters/moving_shapes.py generates the data '
            '(MMSOC_DATA names another folder than data/)'
        )
    start, done = time.monotonic(), 0
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = {pool.submit(runs.run, row, seed): (row, seed) for row, seed in missing}
        try:
            for future, (row, seed) in futures.items():
                record = future.result()
                done += 1
                left = (time.monotonic() - start) / done * (len(missing) - done)
                print(
                    f'{row.name}, seed {seed}: '
                    + ', '.join(f'{key} {value:.1f}' for key, value in record['jf'].items())
                    + f'; {done} of {len(missing)}, about {left / 60:.0f} min left',
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name in args.tables:
        title, of_table = TABLES[name]
        found = {
            row: [record for seed in range(args.seeds) if (record := runs.known(row, seed)) is not None]
            for row in of_table
        }
        found = {row: records for row, records in found.items() if records}
        if len(found) > 1:
            write_table(name, title, found, args.out)
            print(args.out / f'table_{name}.md')
    picture = args.out / 'soc_and_referformer.png'
    models = {'SOC': 'base', 'ReferFormer': 'referformer'}
    if 'referformer' in args.tables and draw_models(models, runs, args.data_root, picture):
        print(picture)


if __name__ == '__main__':
    main()
