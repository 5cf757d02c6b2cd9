"""One-page report on a GPU: correctness, speed, and what limits it.

    python tools/analysis_tools/gpu_report.py --out gpu_report                         # ten minutes on one GPU
    python tools/analysis_tools/gpu_report.py --out gpu_report --parts speed launches  # some parts
    python tools/analysis_tools/gpu_report.py --out cpu_report --device cpu --small    # the small model, two minutes on a CPU

Writes report.md, which docs/benchmarks.md can include, and report.json. Parts, in this order:

    parity    golden files of the released implementation on the CPU and, with mmcv's compiled op, on the GPU (MMSOC_REFERENCE)
    cuda      all other tests of tests/cuda
    speed     time, memory and share of the device's peak of a training step and of predictions, with a naive baseline, by stage
    launches  kernel launches, computing time and waits of a step and of a prediction; on a CPU dispatched operations
    loader    samples per second of the training data loader, on generated data, and what a training step consumes
    more      speed of longer clips and of more sentences

Each measurement runs in a separate process. If one fails, the page shows the end of its error, and the others continue;
measurements that exceed --minutes are skipped, and the page lists them. Exit status 1 if anything failed.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from benchmark import ROOT, CaseError, compare, cpu_name, make_case, run_case

TOOLS = 'tools/analysis_tools'
FULL = dict(config='configs/soc/soc_swin-t_ytvos.py', size='360x640', frames=8, runs=5)
SMALL = dict(config='configs/soc/soc_tiny_moving-shapes.py', size='64x96', frames=2, runs=1)

# Dense peak in TFLOP/s (no sparsity; half precision with float32 accumulation) by a part of the device's name; the
# first match counts. From NVIDIA's data sheets and architecture white papers.
PEAKS = [
    ('H200 NVL', dict(fp32=60, tf32=418, bf16=836, fp16=836)),
    ('H200', dict(fp32=67, tf32=494, bf16=989, fp16=989)),
    ('H100 NVL', dict(fp32=60, tf32=418, bf16=836, fp16=836)),
    ('H100 PCIe', dict(fp32=51, tf32=378, bf16=756, fp16=756)),
    ('H100', dict(fp32=67, tf32=494, bf16=989, fp16=989)),
    ('A100', dict(fp32=19.5, tf32=156, bf16=312, fp16=312)),
    ('A30', dict(fp32=10.3, tf32=82, bf16=165, fp16=165)),
    ('A10G', dict(fp32=31.2, tf32=35, bf16=70, fp16=70)),
    ('A10', dict(fp32=31.2, tf32=62.5, bf16=125, fp16=125)),
    ('L40S', dict(fp32=91.6, tf32=183, bf16=362, fp16=362)),
    ('L40', dict(fp32=90.5, tf32=90.5, bf16=181, fp16=181)),
    ('L4', dict(fp32=30.3, tf32=60, bf16=121, fp16=121)),
    ('V100-PCIE', dict(fp32=14, fp16=112)),
    ('V100', dict(fp32=15.7, fp16=125)),
    ('T4', dict(fp32=8.1, fp16=65)),
    ('RTX 4090 Laptop', {}),
    ('RTX 4090 D', {}),
    ('RTX 4090', dict(fp32=82.6, tf32=82.6, bf16=165, fp16=165)),
    ('RTX 3090 Ti', dict(fp32=40, tf32=40, bf16=80, fp16=80)),
    ('RTX 3090', dict(fp32=35.6, tf32=35.6, bf16=71, fp16=71)),
]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', metavar='DIR', help='folder for report.md and report.json')
    parser.add_argument('--device', default='cuda', help='cuda, cuda:1, ... or cpu (default: %(default)s)')
    parser.add_argument(
        '--small', action='store_true', help='the small model and small clips: does the report itself run?'
    )
    parser.add_argument('--minutes', type=float, default=10.0, help='time budget (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='(default: all)')
    parser.add_argument('--worker', choices=WORKERS, help=argparse.SUPPRESS)  # a measurement, in its own process
    parser.add_argument('--settings', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker is None and args.out is None:
        parser.error('the following arguments are required: --out')
    if args.minutes <= 0:
        parser.error(f'--minutes must be above 0, found {args.minutes:g}')
    return parser, args


# ---------------------------------------------------------------------------------------------------- processes and time


class Skipped(Exception):
    """The reason why a part was skipped."""


class Failed(Exception):
    """The reason why a measurement failed, in a line, and the end of its process's output."""

    def __init__(self, reason, output=''):
        super().__init__(reason)
        self.output = last_lines(output)


def last_lines(text, number=12):
    """The end of an error, without this machine's paths."""
    lines = [
        line.rstrip() for line in text.replace(str(ROOT), '.').replace(str(Path.home()) + os.sep, '~/').splitlines()
    ]
    return '\n'.join([line for line in lines if line][-number:])


class Clock:
    """The remaining time budget."""

    def __init__(self, seconds):
        self.start = time.monotonic()
        self.budget = seconds

    @property
    def seconds(self):
        return time.monotonic() - self.start

    @property
    def left(self):
        return self.budget - self.seconds

    def say(self, message):
        print(f'[{self.seconds:4.0f} s] {message}', file=sys.stderr, flush=True)


class Context:
    """State shared by the parts."""

    def __init__(self, args, clock):
        self.device, self.small, self.clock = args.device, args.small, clock
        self.on_gpu = args.device.startswith('cuda')
        self.sizes = SMALL if args.small else FULL
        self.slowest = 0.0  # seconds of the slowest measurement so far, the estimate for the next
        self.peaks = {}  # precision -> (TFLOP/s, 'published' or 'measured')
        self.step_seconds = {}  # precision -> seconds of a training step
        self.save = None  # called with a part after each measurement
        self.folder = Path(tempfile.mkdtemp(prefix='gpu_report_'))

    def timeout(self, least=5.0):
        """The time limit of a measurement in seconds.

        Raises:
            Skipped: it would exceed the budget.
        """
        expected = max(least, 1.2 * self.slowest)
        if self.clock.left < expected:
            raise Skipped(
                f'no time left: {max(self.clock.left, 0):.0f} s of {self.clock.budget:.0f} s, {expected:.0f} s expected'
            )
        return self.clock.left

    def worker(self, name, **settings):
        """Runs a worker of this file in a separate process."""
        command = [sys.executable, '-W', 'ignore', __file__, '--worker', name, '--device', self.device]
        return self._run([*command, '--settings', json.dumps(settings)], name)

    def _run(self, command, name):
        timeout = self.timeout()
        start = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Failed(f'{name}: stopped after {timeout:.0f} s, the end of the time budget') from error
        self.slowest = max(self.slowest, time.monotonic() - start)
        lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT ')]
        if done.returncode or not lines:
            raise Failed(f'{name} ended with status {done.returncode}', done.stdout + done.stderr)
        return json.loads(lines[0].removeprefix('RESULT '))

    def case(self, **changes):
        """The results of a case of benchmark.py."""
        case = make_case(**{**self.sizes, 'device': self.device, **changes})
        compiled = case['compile'] == 'on'
        timeout = self.timeout(60.0 if compiled and not self.small else 5.0)
        start = time.monotonic()
        try:
            figures = run_case(case, timeout=timeout, stderr=subprocess.PIPE, cwd=ROOT)
        except CaseError as error:
            raise Failed(f'the process {error}', error.stderr) from error
        except subprocess.TimeoutExpired as error:
            raise Failed(f'stopped after {timeout:.0f} s, the end of the time budget') from error
        if not compiled:  # compiling takes many times longer
            self.slowest = max(self.slowest, time.monotonic() - start)
        return {**case, **figures}


def command_of(case):
    """The call of benchmark.py that measures a case."""
    words = ['python', f'{TOOLS}/benchmark.py', '--task', case['task'], '--config', case['config']]
    words += ['--frames', case['frames'], '--size', case['size'], '--sentences', case['sentences']]
    words += ['--precision', case['precision'], '--device', case['device'], '--runs', case['runs']]
    defaults = make_case(case['config'])
    words += [
        w
        for key in ('way', 'batch_size', 'compile')
        if case[key] != defaults[key]
        for w in (f'--{key.replace("_", "-")}', case[key])
    ]
    flags = dict(profile='--profile', count_flops='--flops', count_launches='--launches')
    return shlex.join(map(str, [*words, *(flag for key, flag in flags.items() if case[key])]))


# ------------------------------------------------------------------------------------------------------------- workers


def machine_facts(device, settings):
    """Names and versions of the measured hardware and software."""
    import mmcv
    import mmdet
    import mmengine
    import torch
    from mmcv.ops import get_compiling_cuda_version

    gib = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    facts = {
        'date': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'commit': commit(),
        'CPU': f'{cpu_name()}, {torch.get_num_threads()} thread(s) of PyTorch, {gib:.0f} GiB',
        'system': f'{platform.system()} {platform.release()}, Python {platform.python_version()}',
        'PyTorch': f'{torch.__version__}, CUDA {torch.version.cuda or "none"}',
        'mmcv': f'{mmcv.__version__}, CUDA ops: {get_compiling_cuda_version()}',
        'mmengine, mmdet': f'{mmengine.__version__}, {mmdet.__version__}',
    }
    if device.startswith('cuda'):
        if not torch.cuda.is_available():
            raise SystemExit(f'--device {device}: this machine shows no GPU (torch.cuda.is_available() is False)')
        found = torch.cuda.get_device_properties(device)
        facts['GPU'] = (
            f'{found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}'
        )
        facts['driver'] = driver()
        facts['PyTorch'] += f', cuDNN {torch.backends.cudnn.version()}'
    return dict(
        facts=facts, name=found.name if device.startswith('cuda') else cpu_name(), gpu=device.startswith('cuda')
    )


def commit():
    """The checkout's commit, and whether it has local changes."""

    def git(*args):
        done = subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    if shutil.which('git') is None or git('rev-parse', '--short=12', 'HEAD') is None:
        return 'unknown (no git checkout)'
    return git('rev-parse', '--short=12', 'HEAD') + (' with local changes' if git('status', '--porcelain') else '')


def driver():
    if shutil.which('nvidia-smi') is None:
        return 'unknown (no nvidia-smi)'
    query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    lines = subprocess.run(query, capture_output=True, text=True).stdout.split('\n')
    return lines[0].strip() or 'unknown'


def measured_peaks(device, settings):
    """TFLOP/s of a large matrix product in each precision that the device supports."""
    import torch

    from mmsoc.utils.precision import set_tf32

    size = settings['size']
    gpu = device.startswith('cuda')
    peaks = {}
    for precision in settings['precisions']:
        if precision == 'bf16' and gpu and not torch.cuda.is_bf16_supported():
            continue
        set_tf32(precision == 'tf32')
        dtype = dict(bf16=torch.bfloat16, fp16=torch.float16).get(precision, torch.float32)
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = float('inf')
        for _ in range(settings['runs']):
            if gpu:
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            a @ b
            if gpu:
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
        peaks[precision] = 2 * size**3 / best / 1e12
    return peaks


def loader_speed(device, settings):
    """Samples per second of a config's training data loader, without a consumer."""
    from mmengine import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    MMLogger.get_instance('mmengine', log_level='ERROR')
    cfg = Config.fromfile(str(ROOT / settings['config']))
    init_default_scope('mmsoc')
    loader_cfg = cfg.train_dataloader
    loader_cfg.num_workers = settings['workers']
    loader_cfg.dataset.data_root = settings['data_root']
    if 'expected_videos' in loader_cfg.dataset:
        loader_cfg.dataset.expected_videos = None
    loader_cfg.sampler = dict(type='DefaultSampler', shuffle=True)
    for hook in cfg.get('custom_hooks', []):
        if hook.type.endswith(
            'PipelineSwitchHook'
        ):  # the videos of the last epochs, not the single frames of the first ones
            loader_cfg.dataset.pipeline = hook.switch_pipeline
    loader = Runner.build_dataloader(loader_cfg, seed=0)
    seconds, samples, longest, first = 0.0, 0, 0.0, None
    while seconds < settings['seconds']:
        start = last = time.perf_counter()
        for index, batch in enumerate(loader):
            now = time.perf_counter()
            if first is None:
                first = now - start  # starts the workers and fills their queues
            if index:
                samples += len(batch['inputs'])
                longest = max(longest, now - last)
            else:
                begin = now
            last = now
            if index and seconds + now - begin > settings['seconds']:
                break
        if last == begin:
            raise SystemExit(f'the data set has too few samples: {len(loader)} batch per epoch')
        seconds += last - begin
    return dict(
        samples_per_second=samples / seconds,
        batch_size=loader.batch_size,
        first_batch_seconds=first,
        longest_wait=longest,
        samples=samples,
    )


WORKERS = dict(machine=machine_facts, peaks=measured_peaks, loader=loader_speed)


# --------------------------------------------------------------------------------------------------------------- tests


def run_tests(context, part, share, *arguments):
    """Runs pytest in a separate process; its results go into ``part``."""
    report = context.folder / f'{part["name"]}.xml'
    # -rs and --tb=short: the page's details of failures are read from the XML.
    words = ['-m', 'pytest', *arguments, '-q', '--tb=short', '-p', 'no:cacheprovider']
    part['commands'].append(shlex.join(['python', *words]))
    timeout = min(context.timeout(), share * context.clock.budget)
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *words, f'--junitxml={report}'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=dict(os.environ, HF_HUB_OFFLINE='1'),
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f'stopped after {timeout:.0f} s', (error.stdout or b'').decode(errors='replace')) from error
    if not report.is_file():
        raise Failed(f'pytest ended with status {done.returncode}', done.stdout + done.stderr)
    part['tests'] = read_junit(report)
    failed = [test['name'] for test in part['tests'] if test['outcome'] == 'failed']
    if failed:
        raise Failed(
            f'{len(failed)} of {len(part["tests"])} tests failed: {", ".join(failed)}',
            next(test['message'] for test in part['tests'] if test['outcome'] == 'failed'),
        )
    if done.returncode not in (0, 5):  # 5: none was selected
        raise Failed(f'pytest ended with status {done.returncode}', done.stdout + done.stderr)
    if all(test['outcome'] == 'skipped' for test in part['tests']):
        raise Skipped('; '.join(sorted({test['message'] for test in part['tests']})) or 'no test was selected')


def read_junit(path):
    tests = []
    for case in ElementTree.parse(path).iter('testcase'):
        outcome, message = 'passed', ''
        for child in case:
            if child.tag in ('failure', 'error'):
                outcome, message = 'failed', f'{child.get("message", "")}\n{child.text or ""}'
            elif child.tag == 'skipped':
                outcome, message = 'skipped', child.get('message', '')
        properties = {of.get('name'): of.get('value') for of in case.iter('property')}
        tests.append(
            dict(
                name=case.get('name'),
                file=case.get('classname', ''),
                outcome=outcome,
                message=message,
                seconds=float(case.get('time', 0)),
                properties=properties,
            )
        )
    return tests


def parity(context, part):
    """Golden files of the released implementation."""
    reference = Path(os.environ.get('MMSOC_REFERENCE') or ROOT.parent / 'shared' / 'reference')
    if not list((reference / 'golden').glob('*.npz')):
        raise Skipped('the golden files of the released implementation are not on this machine (MMSOC_REFERENCE)')
    # The small report: one file, forward pass only.
    chosen = ['-k', 'golden and eval'] if context.small else ['-k', 'golden']
    run_tests(context, part, 0.25, 'tests/parity/test_golden.py', 'tests/cuda', *chosen)
    if not any(test['outcome'] == 'passed' and 'cuda' in test['file'] for test in part['tests']):
        part['notes'].append('On the CPU only: no golden file was compared on a GPU with the compiled op.')


def cuda(context, part):
    """All other tests of tests/cuda."""
    run_tests(context, part, 0.25, 'tests/cuda', '-k', 'not golden')


# --------------------------------------------------------------------------------------------------------------- speed


def measure_cases(context, part, cases):
    """Measures one case after the other; failed ones go into ``part`` as well."""
    part.setdefault('cases', [])
    files = {}  # (T, sentences) -> the first prediction, the reference of the others
    for changes in cases:
        case = make_case(**{**context.sizes, 'device': context.device, **changes})
        what = describe(case)
        try:
            compared = case['task'] == 'predict' and not case['count_launches']
            save = str(context.folder / f'{part["name"]}_{len(part["cases"])}.pt') if compared else None
            if context.device == 'cpu' and case['precision'] == 'tf32':
                raise Skipped('TF32: on GPUs only')
            part['commands'].append(command_of(case))
            figures = context.case(**changes, save=save)
            if save:
                reference = files.setdefault((case['frames'], case['sentences']), save)
                if reference != save:
                    figures |= compare(save, reference)
            if case['task'] == 'train':
                context.step_seconds[case['precision']] = figures['seconds']
            context.clock.say(f'{what}: {figures["seconds"]:.3f} s, {figures["peak_bytes"] / 1e9:.2f} GB')
        except Skipped as reason:
            figures = {**case, 'skipped': str(reason)}
            if part['commands'] and part['commands'][-1] == command_of(case):
                part['commands'].pop()
            context.clock.say(f'{what}: skipped, {reason}')
        except Failed as error:
            figures = {**case, 'error': str(error), 'output': error.output}
            context.clock.say(f'{what}: FAILED, {error}')
        part['cases'].append({key: value for key, value in figures.items() if key not in ('save', 'cfg_options')})
        context.save()
    failed = [case for case in part['cases'] if 'error' in case]
    skipped = [case for case in part['cases'] if 'skipped' in case]
    if failed:
        raise Failed(f'{len(failed)} of {len(part["cases"])} cases failed', failed[0]['output'])
    if len(skipped) == len(part['cases']):
        raise Skipped(skipped[0]['skipped'])


def describe(case):
    way = f', {case["way"]}' if case['task'] == 'predict' else ''
    compiled = ', compiled' if case['compile'] == 'on' else ''
    return f'{case["task"]}{way}, T={case["frames"]}, {case["sentences"]} sentence(s), {case["precision"]}{compiled}'


def published_peaks(name):
    """The published peaks; empty for an unknown device."""
    return next((peaks for part, peaks in PEAKS if re.search(rf'\b{re.escape(part)}\b', name, re.IGNORECASE)), {})


def find_peaks(context, name):
    """The device's peak in each precision: published, else measured by a large matrix product."""
    published = published_peaks(name) if context.on_gpu else {}
    context.peaks = {precision: (value, 'published') for precision, value in published.items()}
    if not published:
        precisions = ['fp32', 'tf32', 'bf16', 'fp16'] if context.on_gpu else ['fp32', 'bf16']
        size = 512 if context.small else 8192 if context.on_gpu else 2048
        found = context.worker('peaks', size=size, runs=5, precisions=precisions)
        context.peaks = {precision: (value, 'measured') for precision, value in found.items()}


def speed(context, part):
    """A training step and a prediction in each precision, by stage."""
    try:
        find_peaks(context, part['device_name'])
    except (Failed, Skipped) as error:
        part['notes'].append(f"The device's peak is not known: {error}.")
    part['peaks'] = context.peaks
    stages = dict(profile=True)
    if context.small:
        cases = [
            dict(task='train', count_flops=True, **stages),
            dict(task='train', precision='bf16'),
            dict(way='naive', **stages),
            dict(count_flops=True, **stages),
            dict(precision='bf16', **stages),
        ]
    else:
        precisions = ['fp32', 'tf32', 'bf16', 'fp16']
        cases = [
            dict(task='train', precision=precision, count_flops=precision == 'fp32', **stages)
            for precision in precisions
        ]
        cases += [dict(way='naive', runs=3, **stages)]
        cases += [dict(precision=precision, count_flops=precision == 'fp32', **stages) for precision in precisions]
        # mmcv's module does not support half precision under autocast (open-mmlab/mmcv#2878).
        cases += [dict(way='naive', precision='tf32', runs=3, **stages), dict(precision='bf16', compile='on')]
    measure_cases(context, part, cases)


def more(context, part):
    """Predictions of longer clips and of more sentences."""
    part['peaks'] = context.peaks
    if context.small:
        cases = [dict(frames=4, sentences=2, count_flops=True)]
    else:
        long = dict(frames=36, runs=2)
        cases = [
            dict(long, sentences=4, way='naive', runs=1, profile=True),
            dict(long, sentences=4, count_flops=True, profile=True),
            dict(long, sentences=4, precision='bf16', profile=True),
            dict(long, sentences=4, precision='tf32', profile=True),
            dict(long, sentences=1, count_flops=True),
            dict(long, sentences=1, precision='bf16'),
            dict(sentences=4, count_flops=True),
            dict(sentences=4, precision='bf16'),
            dict(long, sentences=8, count_flops=True),
            dict(long, sentences=8, precision='bf16'),
            dict(sentences=8, count_flops=True),
            dict(sentences=8, precision='bf16'),
            dict(long, sentences=4, precision='fp16'),
            dict(long, sentences=4, precision='bf16', compile='on'),
            dict(task='train', sentences=4, precision='bf16'),
            dict(long, sentences=8, way='naive', runs=0),
        ]
    measure_cases(context, part, cases)


def launches(context, part):
    """The kernels launched by a step and a prediction."""
    cases = [dict(task='train'), dict(), dict(sentences=3)]
    if context.on_gpu and not context.small:
        cases.append(dict(task='train', precision='bf16'))
    runs = 3 if context.on_gpu else 0
    measure_cases(context, part, [dict(case, runs=runs, count_launches=True) for case in cases])


# -------------------------------------------------------------------------------------------------------------- loader


def loader(context, part):
    """The training data loader of the small recipe, and of the full one on generated frames of its size."""
    cores = len(os.sched_getaffinity(0))
    recipes = [
        dict(
            config=SMALL['config'],
            generate='--size 96 64 --num-frames 8',
            batch=4,
            frames=4,
            sentences=2,
            size='64x96',
            workers=sorted({0, min(4, cores)}),
        )
    ]
    if not context.small:
        recipes.append(
            dict(
                config=FULL['config'],
                generate='--size 1024 576 --num-frames 12',
                batch=1,
                frames=FULL['frames'],
                sentences=1,
                size=FULL['size'],
                workers=sorted({4, min(8, cores)}),
            )
        )
    part['commands'].append(
        f'python {TOOLS}/gpu_report.py --out DIR --device {context.device} --parts loader' + ' --small' * context.small
    )
    part['loaders'] = []
    problems = []
    for index, recipe in enumerate(recipes):
        try:
            data = context.folder / f'data_{index}'
            videos = '8' if context.small else '32'
            words = [
                'tools/dataset_converters/moving_shapes.py',
                '--train-videos',
                videos,
                '--valid-videos',
                '4',
                *recipe['generate'].split(),
            ]
            part['commands'].append(shlex.join(['python', *words, '--out', 'DATA']))
            done = subprocess.run(
                [sys.executable, '-W', 'ignore', *words, '--out', str(data)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=context.timeout(),
                env=with_package(),
            )
            if done.returncode:
                raise Failed(f'moving_shapes.py ended with status {done.returncode}', done.stdout + done.stderr)
            needs = {}
            if recipe['config'] == context.sizes['config'] and not context.small:
                needs = dict(context.step_seconds)
            if not needs:
                case = context.case(
                    task='train',
                    config=recipe['config'],
                    frames=recipe['frames'],
                    size=recipe['size'],
                    batch_size=recipe['batch'],
                    sentences=recipe['sentences'],
                    runs=3,
                )
                part['commands'].append(command_of(case))
                needs = dict(fp32=case['seconds'])
            for workers in recipe['workers']:
                found = context.worker(
                    'loader',
                    config=recipe['config'],
                    data_root=str(data),
                    workers=workers,
                    seconds=2 if context.small else 8,
                )
                part['loaders'].append(
                    dict(
                        found,
                        config=recipe['config'],
                        workers=workers,
                        frames=recipe['frames'],
                        size=recipe['size'],
                        needs={precision: recipe['batch'] / seconds for precision, seconds in needs.items()},
                    )
                )
                context.clock.say(
                    f'loader of {Path(recipe["config"]).stem}, {workers} workers: '
                    f'{found["samples_per_second"]:.1f} samples/s'
                )
                context.save()
        except subprocess.TimeoutExpired:
            problems.append(Failed('generating the data outlasted the time budget'))
        except (Failed, Skipped) as error:
            problems.append(error)
            context.clock.say(f'loader of {Path(recipe["config"]).stem}: {error}')
    for problem in sorted(problems, key=lambda problem: isinstance(problem, Skipped)):
        if isinstance(problem, Failed) or not part['loaders']:
            raise problem
        part['notes'].append(str(problem))


def with_package():
    """The environment of a process that imports mmsoc from this checkout."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])))


PARTS = dict(parity=parity, cuda=cuda, speed=speed, launches=launches, loader=loader, more=more)
TITLES = dict(
    parity='Parity with the released implementation',
    cuda='Tests on the GPU',
    speed='Speed and memory',
    launches='Kernel launches and waits',
    loader='Data loader',
    more='Longer clips, more sentences',
)


# ---------------------------------------------------------------------------------------------------------------- page


def table(header, rows):
    cells = [[str(cell).replace('|', '\\|').replace('\n', ' ') for cell in row] for row in rows]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in [header, ['---'] * len(header), *cells])


def block(lines, language=''):
    return f'```{language}\n{lines}\n```'


def render(report):
    """The report as Markdown; headings start at the second level, so that a page can include it."""
    machine = report['machine']
    out = [f'## {machine["name"]}', '']
    out += [f'Made by `{report["command"]}` in {report["seconds"] / 60:.1f} of {report["minutes"]:g} minutes.', '']
    out += [table(['', ''], machine['facts'].items()), '']
    out += [
        table(
            ['part', 'result', 'seconds'],
            [(TITLES[part['name']], result_of(part), f'{part["seconds"]:.0f}') for part in report['parts']],
        ),
        '',
    ]
    for part in report['parts']:
        out += [f'### {TITLES[part["name"]]}', '']
        if part['status'] in ('failed', 'skipped'):
            out += [f'**{part["status"].capitalize()}**: {part["reason"]}.', '']
        if part.get('output'):
            out += [block(part['output'], 'text'), '']
        for note in part['notes']:
            out += [note, '']
        for name, show in dict(tests=show_tests, cases=show_cases, loaders=show_loaders).items():
            try:
                out += show(part) if part.get(name) else []
            except Exception as error:  # report.json has the results in any case
                out += [f'The {name} cannot be shown here (report.json has them): {type(error).__name__}: {error}', '']
        if part['commands']:
            out += [block('\n'.join(dict.fromkeys(part['commands'])), 'bash'), '']
    return '\n'.join(out).rstrip() + '\n'


def result_of(part):
    skipped = [case for case in part.get('cases', []) if 'skipped' in case]
    if part['status'] == 'done' and skipped:
        return f'done, {len(skipped)} of {len(part["cases"])} cases skipped'
    return part['status'] + (f': {part["reason"]}' if part.get('reason') else '')


def show_tests(part):
    outcomes = [test['outcome'] for test in part['tests']]
    found = ', '.join(f'{outcomes.count(kind)} {kind}' for kind in ('passed', 'failed', 'skipped') if kind in outcomes)
    out = [f'{found}.', '']
    rows = []
    reasons = sorted({test['message'] for test in part['tests'] if test['outcome'] == 'skipped'})
    out += [f'Skipped: {reason}.\n' for reason in reasons]
    for test in part['tests']:
        if test['outcome'] == 'skipped':
            continue
        said = test['message'].strip().splitlines()[:1] if test['outcome'] == 'failed' else []
        errors = [float(value) for value in test['properties'].values() if is_number(value)]
        rows.append(
            (
                f'`{test["name"]}`',
                test['outcome'],
                f'{max(errors):.1e}' if errors else '',
                f'{test["seconds"]:.1f}',
                said[0][:160] if said else '',
            )
        )
    if rows:
        out += [table(['test', 'outcome', 'largest relative difference', 'seconds', ''], rows), '']
    return out


def is_number(text):
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def show_cases(part):
    out = []
    flops = {setting(case): case['flops'] for case in part['cases'] if 'flops' in case}
    measured = [case for case in part['cases'] if 'seconds' in case]
    for task, title in (('train', 'Training step'), ('predict', 'Prediction')):
        cases = [case for case in measured if case['task'] == task]
        if not cases:
            continue
        if any('launches' in case for case in cases):
            out += show_launches(cases, title)
            continue
        header = [title, 'T', 'sentences', 'precision', 'compiled', 'ms', 'x', 'GB', 'TFLOP', 'TFLOP/s', 'of peak']
        compared = any('smallest_iou' in case for case in cases)
        header += ['logits differ by', 'least IoU'] if compared else []
        first, rows = {}, []
        for case in cases:
            base = first.setdefault(setting(case), case['seconds'])
            amount = flops.get(setting(case)) if case['way'] == 'fast' else None
            rate = amount / case['seconds'] / 1e12 if amount else None
            peak = part['peaks'].get(case['precision'])
            rows.append(
                [
                    'mmsoc' if case['way'] == 'fast' else case['way'],
                    case['frames'],
                    case['sentences'],
                    case['precision'],
                    case['compile'],
                    f'{1000 * case["seconds"]:.1f}',
                    f'{base / case["seconds"]:.2f}',
                    f'{case["peak_bytes"] / 1e9:.2f}',
                    f'{amount / 1e12:.3g}' if amount else '',
                    f'{rate:.3g}' if rate else '',
                    f'{100 * rate / peak[0]:.1f} %' if rate and peak else '',
                ]
            )
            if compared:
                rows[-1] += [
                    f'{case[key]:{form}}' if key in case else ''
                    for key, form in (('logit_difference', '.1e'), ('smallest_iou', '.4f'))
                ]
        out += [table(header, rows), '']
    if part.get('peaks') and out:
        kinds = {kind for _, kind in part['peaks'].values()}
        values = ', '.join(f'{precision} {value:.3g}' for precision, (value, _) in part['peaks'].items())
        out += [
            'Median of the timed runs, after a warm-up run; `x`: how much faster than the first row of the same T and '
            'sentences. '
            f'Peak ({", ".join(sorted(kinds))}, dense, TFLOP/s): {values}. TFLOP: matrix products, convolutions and attention, '
            'with what a backward pass computes again; counted once in fp32.',
            '',
        ]
    out += show_stages(measured)
    problems = [case for case in part['cases'] if 'seconds' not in case]
    if problems:
        out += [
            table(
                ['not measured', 'why'], [(describe(case), case.get('error') or case['skipped']) for case in problems]
            ),
            '',
        ]
    return out


def setting(case):
    return case['task'], case['frames'], case['sentences'], case['batch_size']


def show_stages(cases):
    """Milliseconds by stage, a column for each case of one setting."""
    out = []
    groups = {}
    for case in cases:
        if case.get('stages'):
            groups.setdefault(setting(case), []).append(case)
    for (task, frames, sentences, _), group in groups.items():
        names = list(dict.fromkeys(name for case in group for name in case['stages']))
        names.sort(key=lambda name: name == 'all else')
        rows = [
            [name, *(f'{1000 * case["stages"][name]:.1f}' if name in case['stages'] else '' for case in group)]
            for name in names
        ]
        rows.append(['together', *(f'{1000 * sum(case["stages"].values()):.1f}' for case in group)])
        header = [
            f'{task}, T={frames}, {sentences} sentence(s): ms',
            *(f'{case["way"] + " " if case["way"] != "fast" else ""}{case["precision"]}' for case in group),
        ]
        out += [table(header, rows), '']
    if out:
        out += ['One run, with the host waiting for the device at the start and the end of each stage.', '']
    return out


def show_launches(cases, title):
    if all('operations' in case['launches'] for case in cases):
        rows = [
            (
                case['frames'],
                case['sentences'],
                case['precision'],
                f'{case["launches"]["operations"]:,}',
                f'{1000 * case["seconds"]:.1f}',
            )
            for case in cases
        ]
        return [
            table(
                [title, 'sentences', 'precision', 'dispatched operations (CPU: no kernel launches)', 'ms'],
                [(f'T={frames}', *rest) for frames, *rest in rows],
            ),
            '',
        ]
    rows = []
    for case in cases:
        found = case['launches']
        rows.append(
            (
                f'T={case["frames"]}',
                case['sentences'],
                case['precision'],
                f'{found["kernel_launches"]:,}',
                f'{found["copies"]:,}',
                found['waits'],
                f'{1000 * found["busy_seconds"]:.1f}',
                f'{1000 * case["seconds"]:.1f}',
                f'{100 * found["busy_seconds"] / case["seconds"]:.0f} %',
                f'{1e6 * case["seconds"] / max(found["kernel_launches"], 1):.1f}',
            )
        )
    return [
        table(
            [
                title,
                'sentences',
                'precision',
                'kernel launches',
                'copies',
                'host waits',
                'device busy: ms',
                'whole run: ms',
                'busy',
                'us per launch',
            ],
            rows,
        ),
        '',
    ]


def show_loaders(part):
    rows = []
    for loader in part['loaders']:
        for precision, need in loader['needs'].items():
            enough = loader['samples_per_second'] / need
            rows.append(
                (
                    Path(loader['config']).stem,
                    f'{loader["frames"]} x {loader["size"]}',
                    loader['workers'],
                    f'{loader["samples_per_second"]:.1f}',
                    f'{need:.1f} ({precision})',
                    f'{enough:.1f}',
                    f'{1000 * loader["longest_wait"]:.0f}',
                    f'{loader["first_batch_seconds"]:.1f}',
                )
            )
    return [
        table(
            [
                'config',
                'sample',
                'workers',
                'samples/s',
                'a training step consumes',
                'ratio',
                'longest wait: ms',
                'first batch: s',
            ],
            rows,
        ),
        '',
        'Without a consumer, on generated videos (MovingShapes); for the full recipe frames of 1024x576. Below a ratio of '
        '1, training waits for data: more workers.',
        '',
    ]


# ---------------------------------------------------------------------------------------------------------------- main


def main(argv=None):
    parser, args = parse_args(argv)
    if args.worker:
        sys.path.append(str(ROOT))
        print('RESULT ' + json.dumps(WORKERS[args.worker](args.device, args.settings)))
        return 0
    clock = Clock(60 * args.minutes)
    context = Context(args, clock)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    words = [
        '--out',
        args.out,
        *(['--device', args.device] if args.device != 'cuda' else []),
        *['--small'] * args.small,
        *(['--parts', *args.parts] if args.parts != list(PARTS) else []),
        *(['--minutes', f'{args.minutes:g}'] if args.minutes != 10 else []),
    ]
    words[1] = out.name
    try:
        machine = context.worker('machine')
    except (Failed, Skipped) as error:
        parser.exit(2, f'{getattr(error, "output", "") or error}\n')
    report = dict(
        command=shlex.join(['python', f'{TOOLS}/gpu_report.py', *words]),
        minutes=args.minutes,
        machine=machine,
        seconds=0.0,
        parts=[],
    )

    def save():
        report['seconds'] = clock.seconds
        (out / 'report.json').write_text(json.dumps(report, indent=2) + '\n')
        (out / 'report.md').write_text(render(report))

    context.save = save
    clock.say(f'{machine["name"]}; report in {out}')
    try:
        for name in args.parts:
            part = dict(
                name=name,
                status='running',
                reason='',
                notes=[],
                commands=[],
                seconds=0.0,
                device_name=machine['name'],
                peaks={},
            )
            report['parts'].append(part)
            start = clock.seconds
            clock.say(TITLES[name])
            try:
                PARTS[name](context, part)
                part['status'] = 'done'
            except Skipped as reason:
                part.update(status='skipped', reason=str(reason))
            except Failed as error:
                part.update(status='failed', reason=str(error), output=error.output)
            except Exception as error:  # a bug of this file must not lose the other parts
                import traceback

                part.update(
                    status='failed',
                    reason=f'{type(error).__name__}: {error}',
                    output=last_lines(traceback.format_exc()),
                )
            part['seconds'] = clock.seconds - start
            clock.say(f'{TITLES[name]}: {result_of(part)}')
            save()
    finally:
        save()
        shutil.rmtree(context.folder, ignore_errors=True)
    clock.say(f'{out / "report.md"} and report.json written')
    return int(any(part['status'] == 'failed' for part in report['parts']))


if __name__ == '__main__':
    sys.exit(main())
