"""Time and peak memory of a training step and of a prediction, each case in a separate process.

    python tools/analysis_tools/benchmark.py                                      # SOC with Video-Swin-T, 8 frames of 360x640
    python tools/analysis_tools/benchmark.py --backbone swin-t swin-b --task train --with-cp off on
    python tools/analysis_tools/benchmark.py --task predict --frames 8 36 --sentences 1 4 --device cuda --precision fp32 fp16
    python tools/analysis_tools/benchmark.py --task predict --way naive shared fast --frames 24 --sentences 4
    python tools/analysis_tools/benchmark.py --task predict --profile             # and the time of each stage

``--way``: ``fast`` is `SOC.predict`; ``naive`` a naive implementation (naive_loop.py): unmodified mmaction2 and mmdet
modules, everything recomputed for each sentence, masks of all queries and layers; ``shared`` the same with one backbone
pass for all sentences. All use the same weights and input. Ways, precisions and ``--compile`` are compared with the
first one given: the table shows the speed-up, the difference of mask logits, and the least IoU of a frame's masks.

All combinations of the options' values are measured. Weights are random, with the published sizes; nothing is
downloaded. A training step is `model.train_step`: from uint8 clips on the host through data preprocessor, losses and
backward pass to the config's optimizer step (with ``bf16`` and ``fp16``: as with ``tools/train.py --amp``); a
prediction starts from normalised frames and ends with run-length codes at the input's size. Peak memory is that of the
process on a CPU (``VmHWM``, including libraries and weights), and that of PyTorch's allocations on a GPU. Times are
medians after one warm-up run.

``--flops`` counts the floating-point operations of a run by PyTorch's FlopCounterMode (recomputation in a backward pass
counts again); ``--launches`` counts a run's kernel launches on a GPU, its computing time and the host's waits, and on a
CPU the operations that PyTorch dispatches.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mmengine.config import DictAction

from mmsoc.utils.errors import user_errors

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # lets a checkout run without installing mmsoc


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', nargs='+', choices=['predict', 'train'], default=['predict', 'train'])
    parser.add_argument('--way', nargs='+', choices=['fast', 'shared', 'naive'], default=['fast'], help='of predicting')
    parser.add_argument('--profile', action='store_true', help='also the seconds of each stage')
    parser.add_argument('--flops', action='store_true', help='also the floating-point operations')
    parser.add_argument(
        '--launches', action='store_true', help='also kernel launches (GPU) or dispatched operations (CPU)'
    )
    parser.add_argument(
        '--compile', nargs='+', choices=['off', 'on'], default=['off'], help='model.test_cfg.compile (way fast)'
    )
    parser.add_argument(
        '--backbone', nargs='+', default=['swin-t'], metavar='NAME', help='those of configs/soc/soc_NAME_ytvos.py'
    )
    parser.add_argument('--config', nargs='+', help='other configs than those of --backbone')
    parser.add_argument('--frames', nargs='+', type=int, default=[8], help='T')
    parser.add_argument('--size', nargs='+', default=['360x640'], metavar='HxW', help='of a frame')
    parser.add_argument('--sentences', nargs='+', type=int, default=[1], help='per clip')
    parser.add_argument('--batch-size', nargs='+', type=int, default=[1], help='clips')
    parser.add_argument('--precision', nargs='+', choices=['fp32', 'tf32', 'bf16', 'fp16'], default=['fp32'])
    parser.add_argument(
        '--with-cp', nargs='+', choices=['off', 'on'], default=['off'], help='model.backbone.with_cp (training)'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ...')
    parser.add_argument(
        '--runs',
        type=int,
        default=3,
        help='timed runs of each case, after a warm-up run (0: only that run, timed)',
    )
    parser.add_argument('--threads', type=int, help='of PyTorch on CPU (default: its own choice)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help='over every config'
    )
    parser.add_argument('--out', help='write the figures to this JSON file as well')
    parser.add_argument('--case', help=argparse.SUPPRESS)  # one case, in the process that measures it
    args = parser.parse_args()
    if args.runs < 0:
        parser.error(f'--runs must be at least 0, found {args.runs}')
    for size in args.size:
        if len(size.split('x')) != 2 or not all(part.isdigit() and int(part) for part in size.split('x')):
            parser.error(f'--size {size}: expected HEIGHTxWIDTH in pixels, e.g. 360x640')
    args.config = args.config or [str(ROOT / 'configs' / 'soc' / f'soc_{name}_ytvos.py') for name in args.backbone]
    for config in args.config:
        if not Path(config).is_file():
            known = sorted(path.stem[4:-6] for path in (ROOT / 'configs' / 'soc').glob('soc_*_ytvos.py'))
            parser.error(f'{config}: there is no such file (--backbone knows {known})')
    return parser, args


def peak_memory(device):
    """Bytes."""
    if device.startswith('cuda'):
        import torch

        return torch.cuda.max_memory_allocated(device)
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError('/proc/self/status has no VmHWM: peak memory can be measured on Linux only')


def make_case(config, **changes):
    """A case for `measure`, `build` and `make_batch`: a prediction of one clip on the CPU, with ``changes``."""
    case = dict(
        task='predict',
        config=config,
        frames=8,
        size='360x640',
        sentences=1,
        batch_size=1,
        precision='fp32',
        with_cp='off',
        way='fast',
        save=None,
        profile=False,
        count_flops=False,
        count_launches=False,
        compile='off',
        device='cpu',
        runs=3,
        threads=None,
        cfg_options={},
    )
    unknown = set(changes) - set(case)
    if unknown:
        raise TypeError(f'unknown {sorted(unknown)}; expected some of {sorted(case)}')
    return case | changes


def build(case):
    """The case's model with random weights, and its config."""
    import torch
    from mmengine import Config
    from mmengine.registry import init_default_scope

    from mmsoc.registry import MODELS

    cfg = Config.fromfile(case['config'])
    options = {'model.test_cfg.compile': case['compile'] == 'on', 'model.test_cfg.precision': case['precision']}
    cfg.merge_from_dict(options | case['cfg_options'])
    init_default_scope(cfg.get('default_scope', 'mmsoc'))
    text_encoder = cfg.model.text_encoder
    if text_encoder.get('tokenizer') is None:
        text_encoder.tokenizer = dict(
            type='HashTokenizer', vocab_size=text_encoder.get('config', {}).get('vocab_size', 50265)
        )
    if case['with_cp'] == 'on':
        cfg.model.backbone.with_cp = True
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for parameter in model.parameters():  # with fresh weights all queries would have similar scores
            parameter += 0.02 * torch.randn_like(parameter)
    return cfg, model.to(case['device']).train(case['task'] == 'train')


def make_batch(case):
    """Normalized frames and their samples."""
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample, TrackDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    height, width = map(int, case['size'].split('x'))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case['batch_size'], case['frames'], 3, height, width, generator=generator)
    # 11 tokens and a few more, as in Ref-YouTube-VOS (mean 12).
    texts = [
        'a person who walks to the left' + ' behind the second car' * (index % 2) for index in range(case['sentences'])
    ]
    mask = np.zeros((len(texts), height, width), np.uint8)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    box = torch.tensor([width // 4, height // 4, width // 2 - 1, height // 2 - 1]).float().repeat(len(texts), 1)
    samples = []
    for _ in range(case['batch_size']):
        frames = []
        for _ in range(case['frames']):
            shapes = dict(img_shape=(height, width), ori_shape=(height, width), batch_input_shape=(height, width))
            frame = DetDataSample(metainfo=shapes)
            frame.gt_instances = InstanceData(
                bboxes=box,
                masks=BitmapMasks(mask, height, width),
                labels=torch.zeros(len(texts), dtype=torch.long),
                visible=torch.ones(len(texts), dtype=torch.bool),
            )
            frame.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(mask[:1].copy()))  # for auxiliary heads
            frames.append(frame)
        sample = TrackDataSample(video_data_samples=frames)
        sample.set_metainfo(dict(texts=texts, video_id='benchmark'))
        samples.append(sample)
    return inputs.to(case['device']), samples


def measure(case):
    """Runs one case in this process and returns its results."""
    import torch
    from mmengine.logging import MMLogger

    from mmsoc.utils.precision import set_tf32

    MMLogger.get_instance('mmengine', log_level='ERROR')
    if case['threads']:
        torch.set_num_threads(case['threads'])
    device, precision = case['device'], case['precision']
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise SystemExit('--device cuda: this machine shows no GPU (torch.cuda.is_available() is False)')
    if precision == 'tf32' and not device.startswith('cuda'):
        raise SystemExit('--precision tf32: only on a GPU')
    set_tf32(precision == 'tf32')
    torch.manual_seed(0)
    cfg, model = build(case)
    inputs, samples = make_batch(case)
    wrapper = optim_wrapper(case, cfg, model) if case['task'] == 'train' else None
    run = runner(case, model, inputs, samples, wrapper)

    def synchronize():
        if device.startswith('cuda'):
            torch.cuda.synchronize(device)

    start = time.perf_counter()
    if case['save']:
        save_outputs(case, model, run, samples)
    else:
        run()
    synchronize()
    seconds = [] if case['runs'] else [time.perf_counter() - start]
    for _ in range(case['runs']):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    peak_bytes = peak_memory(device)
    # `profile` comes last: it leaves timers in the model.
    more = {}
    if case['count_flops']:
        more['flops'] = count_flops(model, run)
    if case['count_launches']:
        more['launches'] = count_launches(run, device, synchronize)
    stages = profile(model, wrapper, run, synchronize) if case['profile'] else {}
    return dict(
        more,
        stages=stages,
        seconds=statistics.median(seconds),
        all_seconds=seconds,
        peak_bytes=peak_bytes,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        device_name=torch.cuda.get_device_name(device) if device.startswith('cuda') else cpu_name(),
    )


def optim_wrapper(case, cfg, model):
    """The config's optimizer wrapper; for half precision the one of tools/train.py on a GPU."""
    import torch
    from mmengine.optim import OptimWrapper, build_optim_wrapper

    settings = dict(cfg.optim_wrapper, type='OptimWrapper')
    dtype = dict(bf16='bfloat16', fp16='float16').get(case['precision'])
    if dtype and case['device'].startswith('cuda'):
        # A fixed scale for float16: a dynamic one starts too high and skips the optimizer in the timed steps.
        settings |= dict(
            type='AmpOptimWrapper', dtype=dtype, loss_scale=64.0 if dtype == 'float16' else dict(enabled=False)
        )
    elif dtype:
        import contextlib

        class CPUAmpOptimWrapper(OptimWrapper):  # MMEngine's needs a GPU
            @contextlib.contextmanager
            def optim_context(self, model):
                with super().optim_context(model), torch.autocast('cpu', getattr(torch, dtype)):
                    yield

        wrapper = build_optim_wrapper(model, settings)
        wrapper.__class__ = CPUAmpOptimWrapper
        return wrapper
    return build_optim_wrapper(model, settings)


def runner(case, model, inputs, samples, wrapper):
    """The timed function, which runs one training step or one prediction."""
    import contextlib

    import torch

    if case['task'] == 'train':
        clips = [clip.mul(60).add(115).clamp(0, 255).to('cpu', torch.uint8) for clip in inputs]
        return lambda: model.train_step(dict(inputs=clips, data_samples=samples), optim_wrapper=wrapper)
    if case['way'] == 'fast':
        return lambda: [sample.pred_masks for sample in model(inputs, samples, mode='predict')]
    sys.path.insert(0, str(Path(__file__).parent))
    from naive_loop import make_plain, predict_naively

    make_plain(model)
    half = dict(bf16=torch.bfloat16, fp16=torch.float16).get(case['precision'])

    def run():
        with torch.autocast(inputs.device.type, half) if half else contextlib.nullcontext():
            return predict_naively(model, inputs, samples, share=case['way'] == 'shared')

    return run


def count_flops(model, run):
    """Floating-point operations (two per multiply-add) of matrix products, convolutions and attention in one run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not model.training:  # otherwise PyTorch's counter looks for a graph, which a prediction does not build
        model.requires_grad_(False)
    # Unfused: PyTorch counts the fused attention of a GPU but not that of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    for parameter in trained:
        parameter.requires_grad_(True)
    return counter.get_total_flops()


def count_launches(run, device, synchronize):
    """Kernel launches, seconds of computing and waits of one run on a GPU; dispatched operations on a CPU."""
    import warnings

    import torch

    if not device.startswith('cuda'):
        from torch.utils._python_dispatch import TorchDispatchMode

        class Counting(TorchDispatchMode):
            operations = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                Counting.operations += 1
                return func(*args, **(kwargs or {}))

        with Counting():
            run()
        return dict(operations=Counting.operations)
    from torch.profiler import ProfilerActivity

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = sum('synchronizing CUDA operation' in str(warning.message) for warning in caught)
    synchronize()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        run()
        synchronize()
        seconds = time.perf_counter() - start
    return dict(device_activity(profiler.key_averages()), waits=waits, profiled_seconds=seconds)


def device_activity(averages):
    """From a profile's averages: how many kernels and copies were launched, and how long kernels ran."""
    launches = copies = 0
    busy = 0.0
    for event in averages:
        if 'LaunchKernel' in event.key:  # cudaLaunchKernel, cudaLaunchKernelExC, cuLaunchKernel ...: calls of the host
            launches += event.count
        elif event.key.startswith('Memcpy '):
            copies += event.count
        # Annotations ("Optimizer.step#AdamW.step") span kernels that are counted separately.
        annotation = getattr(event, 'is_user_annotation', False) or event.key.startswith('Optimizer.')
        if str(event.device_type).endswith('CUDA') and not annotation:
            # The name until PyTorch 2.4 was that of CUDA alone.
            busy += getattr(event, 'self_device_time_total', None) or getattr(event, 'self_cuda_time_total', 0.0)
    return dict(kernel_launches=launches, copies=copies, busy_seconds=busy / 1e6)


class CaseError(RuntimeError):
    """A case's process failed; ``stderr`` is its output, if captured."""

    def __init__(self, message, stderr=None):
        super().__init__(message)
        self.stderr = stderr or ''


def run_case(case, **options):
    """The results of one case, measured in a separate process, since peak memory never decreases.

    Args:
        options: of `subprocess.run`, e.g. ``timeout``, ``stderr``.

    Raises:
        CaseError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', __file__, '--case', json.dumps(case)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT ')]
    if done.returncode or not lines:
        killed = ' (killed: the machine has too little memory?)' if done.returncode == -9 else ''
        raise CaseError(f'ended with {done.returncode}{killed}', done.stderr)
    return json.loads(lines[0].removeprefix('RESULT '))


def save_outputs(case, model, run, samples):
    """A way's prediction of the first clip, for `compare`; this run is not timed."""
    import torch

    from mmsoc.inference import MasksAndLogits

    if case['way'] == 'fast':
        before = model.test_cfg
        model.test_cfg = replace(before, output=MasksAndLogits(before.output.mask_threshold))
        codes = run()[0]
        logits = samples[0].pred_logits
        model.test_cfg = before
    else:
        codes, logits = run()
    torch.save(dict(codes=codes, logits=torch.stack(list(logits)).float().cpu()), case['save'])


def compare(file, reference):
    """The largest difference of logits, the largest logit, and the smallest IoU of a frame's masks."""
    import torch
    from pycocotools import mask

    one, other = (torch.load(path, weights_only=False) for path in (file, reference))
    ious = [
        1.0 if not mask.area(mask.merge([a, b])) else mask.iou([a], [b], [0]).item()
        for x, y in zip(one['codes'], other['codes'], strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    return dict(
        logit_difference=(one['logits'] - other['logits']).abs().max().item(),
        largest_logit=other['logits'].abs().max().item(),
        smallest_iou=min(ious),
    )


def profile(model, wrapper, run, synchronize):
    """Seconds that one run spends in each stage, excluding nested stages."""
    from mmsoc.inference import clips

    stages = {}
    inner = [0.0]  # per active stage, the seconds of its nested stages

    def timed(name, function):
        def call(*args, **kwargs):
            synchronize()
            start = time.perf_counter()
            inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                synchronize()
                seconds = time.perf_counter() - start
                stages[name] = stages.get(name, 0.0) + seconds - inner.pop()
                inner[-1] += seconds

        return call

    parts = [
        ('backbone', model.backbone, 'forward'),
        ('text encoder', model.text_encoder, 'forward'),
        ('fusion', model, 'fuse'),
        ('SIM: encoder', model.sim.encoder, 'forward'),
        ('SIM: decoder', model.sim.decoder, 'forward'),
        ('SIM: cluster', model.sim.cluster, 'forward'),
        ('head: branches', model.head, 'forward'),
        ('head: pixel decoder', model.head, 'mask_features'),
        ('head: masks', model.head, 'decode_masks'),
        ('original size, run-length codes', type(model.test_cfg.output), '__call__'),
        ('original size, run-length codes', clips, 'encode_masks'),
    ]
    if wrapper is not None:
        parts += [
            ('data preprocessor', model.data_preprocessor, 'forward'),
            ('matching', model.criterion, 'match'),
            ('losses', model.criterion, 'forward'),
            ('losses', model, 'parse_losses'),
            ('backward', wrapper, 'backward'),
            ('clipping, optimizer', wrapper, 'step'),
            ('clipping, optimizer', wrapper, 'zero_grad'),
        ]
        parts += [('auxiliary heads', head, 'loss') for head in model.auxiliary_heads]
    elif 'naive_loop' in sys.modules:
        naive_loop = sys.modules['naive_loop']
        parts += [
            ('head: masks', naive_loop, 'decode_plainly'),
            ('original size, run-length codes', naive_loop, 'encode_mask_results'),
        ]
    for name, owner, method in parts:
        if hasattr(owner, method):  # parts of other classes may lack one
            setattr(owner, method, timed(name, getattr(owner, method)))
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    stages['all else'] = time.perf_counter() - start - sum(stages.values())
    return stages


def cpu_name():
    names = (
        [
            line.split(':', 1)[1].strip()
            for line in Path('/proc/cpuinfo').read_text().splitlines()
            if line.startswith('model name')
        ]
        if Path('/proc/cpuinfo').is_file()
        else []
    )
    return f'{names[0] if names else "CPU"} ({platform.machine()}), {os.cpu_count()} cores'


@user_errors()
def main():
    parser, args = parse_args()
    if args.case:
        print('RESULT ' + json.dumps(measure(json.loads(args.case))))
        return
    results = []
    header = [
        'task',
        'way',
        'config',
        'T',
        'size',
        'sentences',
        'batch',
        'precision',
        'compiled',
        'checkpointing',
        'seconds',
        'frames x sentences / s',
        'faster',
        'peak GB',
        'logits differ by',
        'of at most',
        'least IoU',
    ]
    print('| ' + ' | '.join(header) + ' |\n|' + '---|' * len(header))
    folder = tempfile.TemporaryDirectory()
    first = {}  # per setting, the first of those to compare
    compared = len(args.way) * len(args.precision) * len(args.compile) > 1
    for task, config, frames, size, sentences, batch_size, with_cp, precision, compiled, way in itertools.product(
        args.task,
        args.config,
        args.frames,
        args.size,
        args.sentences,
        args.batch_size,
        args.with_cp,
        args.precision,
        args.compile,
        args.way,
    ):
        if task == 'predict' and (with_cp == 'on' or (compiled == 'on' and way != 'fast')):
            continue
        if task == 'train' and (way != 'fast' or compiled == 'on'):
            continue
        file = str(Path(folder.name) / f'{len(results)}.pt') if task == 'predict' and compared else None
        case = make_case(
            config,
            task=task,
            frames=frames,
            size=size,
            sentences=sentences,
            batch_size=batch_size,
            precision=precision,
            with_cp=with_cp,
            way=way,
            save=file,
            profile=args.profile,
            count_flops=args.flops,
            count_launches=args.launches,
            compile=compiled,
            device=args.device,
            runs=args.runs,
            threads=args.threads,
            cfg_options=args.cfg_options,
        )
        try:
            figures = run_case(case)
        except CaseError as error:
            sys.exit(f'the case {case} {error}')
        figures['rate'] = frames * batch_size * sentences / figures['seconds']
        reference = first.setdefault(
            (task, config, frames, size, sentences, batch_size, with_cp), dict(figures, file=file)
        )
        if file not in (None, reference['file']):
            figures |= compare(file, reference['file'])
            Path(file).unlink()
        results.append({**case, **figures})
        row = [
            task,
            way,
            Path(config).stem,
            frames,
            size,
            sentences,
            batch_size,
            precision,
            compiled,
            with_cp,
            f'{figures["seconds"]:.2f}',
            f'{figures["rate"]:.2f}',
            f'{figures["rate"] / reference["rate"]:.2f}x',
            f'{figures["peak_bytes"] / 1e9:.2f}',
            *(f'{figures[key]:.2g}' if key in figures else '' for key in ('logit_difference', 'largest_logit')),
            f'{figures["smallest_iou"]:.4f}' if 'smallest_iou' in figures else '',
        ]
        print('| ' + ' | '.join(map(str, row)) + ' |', flush=True)
        if 'flops' in figures:
            tera = figures['flops'] / 1e12
            print(f'    {tera:.3f} TFLOP, {tera / figures["seconds"]:.2f} TFLOP/s', flush=True)
        if 'launches' in figures:
            print('    ' + ', '.join(f'{name}: {value:.6g}' for name, value in figures['launches'].items()), flush=True)
        for name, seconds in figures['stages'].items():
            print(f'    {name}: {seconds:.2f} s, {100 * seconds / sum(figures["stages"].values()):.0f} %', flush=True)
    folder.cleanup()
    if results:
        print(
            f'\n{results[0]["device_name"]}, {results[0]["threads"]} threads, PyTorch {results[0]["torch"]}; '
            f'median of {max(args.runs, 1)} runs; GB = 10^9 bytes'
        )
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=2))


if __name__ == '__main__':
    main()
