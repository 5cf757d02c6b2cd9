"""Time and peak memory of a training step or a prediction: the working tree against another revision of this repository.

    python tools/analysis_tools/compare_steps.py HEAD~3                                  # all cases but full-360x640
    python tools/analysis_tools/compare_steps.py v0.2.0 --case full-360x640 --runs 10 --threads 2 --out steps.json
    python tools/analysis_tools/compare_steps.py v0.2.0 --case predict-small predict-96x160 predict-stream

The revision is checked out into a temporary git worktree, which is removed at the end, and the working tree's package
and configs are copied. For each case, each side runs in a separate, persistent process, and the sides alternate step by
step, so that disturbances of the machine affect both. A step is `model.train_step` as the training loop calls it: from
uint8 clips and samples on the CPU through the data preprocessor, the losses and `parse_losses` to the update by the
optimizer wrapper that MMEngine builds from the side's config. Data loading, hooks and schedules are excluded. In the
cases ``predict-...`` it is `model.test_step`, from the clips to run-length codes, or a `StreamPredictor` from the first
frame to the last mask. A side whose tools/train.py lets the C library keep freed memory does so here as well, unless
--plain-memory is given.

Both sides build the model from their own code and config, with random weights of the published sizes from the same
seed; nothing is downloaded. The total loss verifies this: without dropout before the first step, and in the first step,
where sides that draw dropout in another order differ. Predictions compare the sum of the scores instead. Times are
medians with quartiles; a ratio below 1 means that the working tree is faster. The ratio of pairs is that of two
consecutive steps. Peak memory is that of the process (``VmHWM``, including libraries and weights).
"""

import argparse
import contextlib
import copy
import importlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SMALL = dict(config='configs/soc/soc_tiny_moving-shapes.py', batch_size=4, sentences=2, size='64x96')
_FULL = dict(config='configs/soc/soc_swin-t_ytvos.py', batch_size=1, sentences=1, frames=8)
_SMALL_PREDICTION = dict(_SMALL, batch_size=1, sentences=3, task='predict')
CASES = {
    'small-pictures': dict(_SMALL, frames=1),
    'small-videos': dict(_SMALL, frames=4),  # num_frames of configs/_base_/datasets/moving_shapes.py
    'full-96x160': dict(_FULL, size='96x160'),
    'full-360x640': dict(_FULL, size='360x640'),
    'predict-small': dict(_SMALL_PREDICTION, frames=8),
    'predict-96x160': dict(_FULL, size='96x160', sentences=2, task='predict'),
    'predict-stream': dict(_SMALL_PREDICTION, frames=48, task='stream'),
}
PARTS = ('forward', 'backward', 'update')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('revision', nargs='?', default='HEAD', help='a commit, tag or branch (default: %(default)s)')
    parser.add_argument(
        '--case',
        nargs='+',
        choices=CASES,
        default=['small-pictures', 'small-videos', 'full-96x160'],
        help='what runs',
    )
    parser.add_argument('--runs', type=int, default=20, help='timed steps per side (default: %(default)s)')
    parser.add_argument('--warm-up', type=int, default=2, help='steps before them, not counted (default: %(default)s)')
    parser.add_argument(
        '--plain-memory', action='store_true', help='freed memory goes back to the system on both sides'
    )
    parser.add_argument('--threads', type=int, default=1, help='of PyTorch in each process (default: %(default)s)')
    parser.add_argument('--out', help='write the figures to this JSON file as well')
    parser.add_argument('--worker', help=argparse.SUPPRESS)  # the root of a side, in the process that trains it
    parser.add_argument('--settings', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, least in (('runs', 1), ('warm_up', 1), ('threads', 1)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, found {getattr(args, name)}')
    return args


# ---------------------------------------------------------------------------------------------- in the process of a side


def work(root: Path, settings: dict) -> None:
    """Answers each line of standard input with a line of JSON: ``step`` with a step, ``end`` with the peak memory."""
    # Output of libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)

    def answer(**values) -> None:
        answers.write(json.dumps(values) + '\n')
        answers.flush()

    # Before the script's folder and an installed mmsoc.
    sys.path.insert(0, str(root))
    spec = importlib.util.find_spec('mmsoc')
    found = Path(spec.origin).resolve() if spec is not None else None
    if found is None or not found.is_relative_to(root):
        sys.exit(f'mmsoc is at {found}, expected it in {root}')
    if not settings['plain_memory']:
        with contextlib.suppress(ImportError):  # an older revision
            importlib.import_module('mmsoc.utils.memory').keep_freed_memory()
    benchmark = _load_benchmark()
    import torch
    from mmengine.logging import MMLogger
    from mmengine.optim import build_optim_wrapper

    MMLogger.get_instance('mmengine', log_level='ERROR')
    torch.set_num_threads(settings['threads'])
    torch.manual_seed(0)
    task = settings['case'].get('task', 'train')
    case = benchmark.make_case(**settings['case'] | dict(task='train', config=str(root / settings['case']['config'])))
    cfg, model = benchmark.build(case)
    noise, samples = benchmark.make_batch(case)
    clips = [clip.mul(60).add(115).clamp(0, 255).to(torch.uint8) for clip in noise]

    def batch() -> dict:
        # The preprocessor and the model modify samples; a data loader provides new ones in every step.
        return dict(inputs=list(clips), data_samples=copy.deepcopy(samples))

    model.eval()
    if task == 'train':
        total, _ = model.parse_losses(model(**model.data_preprocessor(batch(), True), mode='loss'))
        before = total.item()
        del total
        step = training_step(model, build_optim_wrapper(model, cfg.optim_wrapper), batch)
    else:
        step = dict(predict=clip_prediction, stream=stream_prediction)[task](model, batch)
        before = step()['loss']
    torch.manual_seed(0)
    answer(
        mmsoc=str(found),
        loss=before,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        machine=benchmark.cpu_name(),
    )
    for line in sys.stdin:
        if line.strip() == 'end':
            break
        answer(**step())
    answer(peak_bytes=benchmark.peak_memory('cpu'))


def training_step(model, wrapper, batch):
    """The function that runs a step and returns its seconds, its loss and the seconds of its parts."""
    model.train()
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += time.perf_counter() - start
            return result

        return call

    wrapper.backward = timed('backward', wrapper.backward)
    wrapper.step = timed('update', wrapper.step)
    wrapper.zero_grad = timed('update', wrapper.zero_grad)

    def step() -> dict:
        data = batch()
        seconds.update(dict.fromkeys(PARTS, 0.0))
        start = time.perf_counter()
        logs = model.train_step(data, optim_wrapper=wrapper)
        whole = time.perf_counter() - start
        seconds['forward'] = whole - seconds['backward'] - seconds['update']
        return dict(seconds=whole, loss=float(logs['loss']), parts=dict(seconds))

    return step


def clip_prediction(model, batch):
    """Like `training_step`, for a prediction; its loss is the sum of the scores."""

    def step() -> dict:
        data = batch()
        start = time.perf_counter()
        found = model.test_step(data)
        seconds = time.perf_counter() - start
        scores = sum(float(sample.pred_scores.sum()) for sample in found)
        return dict(seconds=seconds, loss=scores, parts=dict(forward=seconds, backward=0.0, update=0.0))

    return step


def stream_prediction(model, batch):
    """Like `clip_prediction`, for the first clip as a stream."""
    try:
        predictor = importlib.import_module('mmsoc.inference').StreamPredictor
    except ImportError:  # an older revision
        predictor = importlib.import_module('mmsoc.apis.stream').StreamPredictor

    def step() -> dict:
        data = batch()
        frames, sample = data['inputs'][0], data['data_samples'][0]
        size = tuple(frames.shape[-2:])
        start = time.perf_counter()
        with predictor(model, list(sample.texts), frame_size=size, ori_shape=size, chunk_frames=8, overlap=4) as stream:
            stream.feed(frames)
            scores = stream.finish()
            for _ in stream.masks():
                pass
        seconds = time.perf_counter() - start
        parts = dict(forward=seconds, backward=0.0, update=0.0)
        return dict(seconds=seconds, loss=float(scores.scores.sum()), parts=parts)

    return step


def _load_benchmark():
    """The benchmark.py beside this file, so that both sides, however old, get the same batch and initialization."""
    spec = importlib.util.spec_from_file_location('benchmark', Path(__file__).with_name('benchmark.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------- in the process that compares


class Side:
    """The process that trains one side."""

    def __init__(self, root: Path, settings: dict) -> None:
        command = [sys.executable, '-W', 'ignore', __file__, '--worker', str(root), '--settings', json.dumps(settings)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=dict(os.environ, OMP_NUM_THREADS=str(settings['threads'])),
        )
        self.root = root
        self.steps: list[dict] = []

    def read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            killed = ' (killed: the machine has too little memory?)' if code == -9 else ''
            raise SystemExit(f'the process of {self.root} ended with {code}{killed}')
        return json.loads(line)

    def ask(self, what: str) -> dict:
        # `read` reports a process that has ended.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(what + '\n')
            self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        # Without input it ends by itself, unless it is stuck in a step.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def compare(
    roots: dict[str, Path], case: dict, runs: int, warm_up: int, threads: int, plain_memory: bool = False
) -> dict:
    """Results of each side, by name; the other is compared with the first."""
    settings = dict(case=case, threads=threads, plain_memory=plain_memory)
    sides: dict[str, Side] = {}
    figures: dict[str, dict] = {}
    try:
        for name, root in roots.items():  # one after the other: starting may take memory for only one
            sides[name] = Side(root, settings)
            figures[name] = sides[name].read()
        for index in range(warm_up + runs):
            # Alternating, so that going first is no advantage.
            for name in list(sides)[:: 1 if index % 2 == 0 else -1]:
                sides[name].steps.append(sides[name].ask('step'))
        for name, side in sides.items():
            figures[name] |= side.ask('end')
    finally:
        for side in sides.values():
            side.close()

    for name, side in sides.items():
        timed = side.steps[warm_up:]
        seconds = [step['seconds'] for step in timed]
        figures[name] |= dict(
            first_loss=side.steps[0]['loss'],
            last_loss=side.steps[-1]['loss'],
            seconds=statistics.median(seconds),
            quartiles=quartiles(seconds),
            all_seconds=seconds,
            parts={part: statistics.median(step['parts'][part] for step in timed) for part in PARTS},
        )
    old, new = figures.values()
    pairs = [b / a for a, b in zip(old['all_seconds'], new['all_seconds'], strict=True)]
    return dict(
        sides=figures,
        ratio=new['seconds'] / old['seconds'],
        pairs=dict(median=statistics.median(pairs), quartiles=quartiles(pairs)),
        loss_difference=relative(new['loss'], old['loss']),
        first_loss_difference=relative(new['first_loss'], old['first_loss']),
    )


def quartiles(values: list[float]) -> list[float]:
    """The first and the third quartile."""
    if len(values) == 1:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method='inclusive')
    return [first, third]


def relative(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), 1e-12)


def git(*arguments: str) -> str:
    done = subprocess.run(['git', '-C', str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'git {" ".join(arguments)}: {done.stderr.strip()}')
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / 'revision'
        git('worktree', 'add', '--detach', str(root), commit)
        try:
            yield root
        finally:
            git('worktree', 'remove', '--force', str(root))


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the working tree's package and configs, since these may change during the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / 'tree'
        for name in ('mmsoc', 'configs'):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
        yield root


def main() -> None:
    args = parse_args()
    if args.worker:
        work(Path(args.worker), args.settings)
        return
    commit = git('rev-parse', '--verify', f'{args.revision}^{{commit}}')
    head = git('rev-parse', 'HEAD')
    changed = bool(git('status', '--porcelain', '--', 'mmsoc', 'configs'))
    parts = [f'{part} ms' for part in PARTS]
    header = [
        'case',
        'side',
        'median ms',
        'quartiles',
        'ratio',
        'of pairs',
        *parts,
        'peak GB',
        'loss differs by',
        'first step',
    ]
    print('| ' + ' | '.join(header) + ' |\n|' + '---|' * len(header), flush=True)
    results = {}
    with checked_out(commit) as revision, copied() as tree:
        for name in args.case:
            result = compare(
                {'revision': revision, 'working tree': tree},
                CASES[name],
                args.runs,
                args.warm_up,
                args.threads,
                args.plain_memory,
            )
            results[name] = CASES[name] | result
            for side in result['sides']:
                print('| ' + ' | '.join([name, side, *row(side, result)]) + ' |', flush=True)
    machine = result['sides']['revision']
    print(f'\nrevision: {commit[:12]}; working tree: {head[:12]}{" with changes" if changed else ""}')
    print(
        f'{machine["machine"]}, {machine["threads"]} thread(s) per side, PyTorch {machine["torch"]}; medians of {args.runs} '
        f'steps in turn, after {args.warm_up} that do not count; GB = 10^9 bytes'
    )
    if args.out:
        figures = dict(
            revision=commit, working_tree=dict(head=head, changed=changed), runs=args.runs, warm_up=args.warm_up
        )
        Path(args.out).write_text(json.dumps(figures | dict(cases=results), indent=2))


def row(side: str, result: dict) -> list[str]:
    """Cells of the table; the working tree's row contains the comparisons."""
    figures = result['sides'][side]
    times = [figures['seconds'], *figures['quartiles'], *(figures['parts'][part] for part in PARTS)]
    median, first, third, *parts = (f'{1e3 * seconds:.1f}' for seconds in times)
    ratio = pairs = loss = first_step = ''
    if side == 'working tree':
        low, high = result['pairs']['quartiles']
        ratio = f'{result["ratio"]:.3f}'
        pairs = f'{result["pairs"]["median"]:.3f} ({low:.3f} to {high:.3f})'
        loss, first_step = (f'{result[key]:.1e}' for key in ('loss_difference', 'first_loss_difference'))
    peak = f'{figures["peak_bytes"] / 1e9:.2f}'
    return [median, f'{first} to {third}', ratio, pairs, *parts, peak, loss, first_step]


if __name__ == '__main__':
    main()
