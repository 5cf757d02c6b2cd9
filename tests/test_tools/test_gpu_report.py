"""tools/analysis_tools/gpu_report.py on a machine without a GPU: it goes on where something fails, and ends in time."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import ROOT
from tools.analysis_tools import gpu_report

SCRIPT = ROOT / 'tools' / 'analysis_tools' / 'gpu_report.py'
MACHINE = dict(facts={'GPU': 'NVIDIA H100 80GB HBM3'}, name='NVIDIA H100 80GB HBM3', gpu=True)


@pytest.fixture
def report(tmp_path, monkeypatch):
    """A function: exit status, page and JSON of a report whose processes are replaced by ``run_case`` (and some ``parts``)."""

    def run(*arguments, run_case=None, worker=None, **parts):
        for name, part in parts.items():
            monkeypatch.setitem(gpu_report.PARTS, name, part)
        if run_case is not None:
            monkeypatch.setattr(gpu_report, 'run_case', run_case)
            monkeypatch.setattr(gpu_report, 'compare', lambda *files: dict(logit_difference=1e-5, smallest_iou=0.99))
            monkeypatch.setattr(
                gpu_report.Context,
                'worker',
                lambda self, name, **settings: MACHINE if name == 'machine' else worker(name, settings),
            )
        out = tmp_path / 'out'
        status = gpu_report.main(['--out', str(out), *arguments])
        return status, (out / 'report.md').read_text(), json.loads((out / 'report.json').read_text())

    return run


def figures(case, **options):
    """What a case's process answers."""
    stages = dict(backbone=0.01, backward=0.03) if case['profile'] else {}
    launched = dict(kernel_launches=8000, copies=12, waits=1, busy_seconds=0.03, profiled_seconds=0.2)
    return dict(
        seconds=0.05 if case['way'] == 'fast' else 0.2,
        peak_bytes=2e9,
        stages=stages,
        **(dict(flops=1.2e12) if case['count_flops'] else {}),
        **(dict(launches=launched) if case['count_launches'] else {}),
    )


def test_a_whole_report(report):
    def loader(name, settings):
        assert name == 'loader'
        return dict(samples_per_second=100.0, batch_size=4, first_batch_seconds=1.0, longest_wait=0.1, samples=800)

    skip = lambda context, part: (_ for _ in ()).throw(gpu_report.Skipped('the golden files are not on this machine'))  # noqa: E731
    passes = lambda context, part: part.update(  # noqa: E731
        tests=[
            dict(name='test_op[fp32]', file='cuda', outcome='passed', message='', seconds=1.0, properties={'a': '2e-6'})
        ]
    )
    status, page, data = report('--small', run_case=figures, worker=loader, parity=skip, cuda=passes)
    assert status == 0, page
    assert [part['status'] for part in data['parts']] == ['skipped', 'done', 'done', 'done', 'done', 'done']
    # 1.2 TFLOP in 50 ms are 24 TFLOP/s, of 67 in fp32 and of 989 in bf16.
    for row in (
        '| mmsoc | 2 | 1 | fp32 | off | 50.0 | 4.00 | 2.00 | 1.2 | 24 | 35.8 % | 1.0e-05 | 0.9900 |',
        '| naive | 2 | 1 | fp32 | off | 200.0 | 1.00 | 2.00 |  |  |  |  |  |',
        '| mmsoc | 2 | 1 | bf16 | off | 50.0 | 4.00 | 2.00 | 1.2 | 24 | 2.4 % |',
        '| backward | 30.0 |',
        '| T=2 | 1 | fp32 | 8,000 | 12 | 1 | 30.0 | 50.0 | 60 % | 6.2 |',
        '| soc_tiny_moving-shapes | 4 x 64x96 | 0 | 100.0 | 80.0 (fp32) | 1.2 | 100 | 1.0 |',
        '| `test_op[fp32]` | passed | 2.0e-06 | 1.0 |  |',
        '| Parity with the released implementation | skipped: the golden files are not on this machine |',
        'python tools/analysis_tools/benchmark.py --task predict --config configs/soc/soc_tiny_moving-shapes.py --frames 2 ',
    ):
        assert row in page, page
    assert page.startswith('## NVIDIA H100') and str(ROOT) not in page


def test_the_full_report_on_a_known_gpu(report, monkeypatch):
    """Everything that it would run: sizes, precisions, ways, and data that can be generated."""
    from tools.dataset_converters import moving_shapes

    run, generated, cases = subprocess.run, [], []

    def pretend(command, **options):
        if 'tools/dataset_converters/moving_shapes.py' not in command:
            return run(command, **options)
        generated.append(command[command.index('tools/dataset_converters/moving_shapes.py') :])
        return subprocess.CompletedProcess(command, 0, '', '')

    def run_case(case, **options):
        cases.append(case)
        return figures(case)

    def worker(name, settings):
        return dict(samples_per_second=10.0, batch_size=1, first_batch_seconds=1.0, longest_wait=0.1, samples=80)

    nothing = lambda context, part: None  # noqa: E731
    monkeypatch.setattr(gpu_report.subprocess, 'run', pretend)
    status, page, _ = report(run_case=run_case, worker=worker, parity=nothing, cuda=nothing)
    assert status == 0 and page.startswith('## NVIDIA H100')
    of_predictions = [case for case in cases if case['task'] == 'predict']
    for key, values in dict(frames={8, 36}, sentences={1, 3, 4, 8}, precision={'fp32', 'tf32', 'bf16', 'fp16'}).items():
        assert {case[key] for case in of_predictions} == values
    assert {case['precision'] for case in cases if case['task'] == 'train'} == {'fp32', 'tf32', 'bf16', 'fp16'}
    assert all((ROOT / case['config']).is_file() for case in cases)
    for command in generated:
        monkeypatch.setattr(sys, 'argv', command)
        moving_shapes.parse_args()  # ends the test where it does not take the sizes
    assert len(generated) == 2


def test_it_goes_on_where_something_fails(report):
    def run_case(case, **options):
        if case['precision'] == 'bf16':
            raise gpu_report.CaseError(
                'ended with 1', f'Traceback ...\n  File "{ROOT}/mmsoc/x.py"\nOutOfMemoryError: CUDA out of memory'
            )
        return figures(case)

    def broken(context, part):
        raise KeyError('operations')

    def fails(context, part):
        raise gpu_report.Failed('2 of 9 tests failed: test_a, test_b', 'E   assert 0.1 < 1e-5')

    status, page, data = report('--small', run_case=run_case, parity=fails, cuda=fails, launches=broken, loader=broken)
    assert status == 1
    assert [part['status'] for part in data['parts']] == ['failed', 'failed', 'failed', 'failed', 'failed', 'done']
    for words in (
        '**Failed**: 2 of 9 tests failed: test_a, test_b.',
        'E   assert 0.1 < 1e-5',
        '**Failed**: 2 of 5 cases failed.',
        '  File "./mmsoc/x.py"\nOutOfMemoryError: CUDA out of memory',
        '| train, T=2, 1 sentence(s), bf16 | the process ended with 1 |',
        '| mmsoc | 2 | 1 | fp32 |',  # of the same part
        "**Failed**: KeyError: 'operations'.",
        '| mmsoc | 4 | 2 | fp32 |',  # of the part behind them
    ):
        assert words in page, f'{words!r} not in\n{page}'


def test_it_ends_in_time(report, monkeypatch):
    """A case that does not end is stopped; what comes later is left out, and the page says so."""
    now = [0.0]
    monkeypatch.setattr(gpu_report.time, 'monotonic', lambda: now[0])

    def run_case(case, timeout, **options):
        seconds = 40.0 if case['task'] == 'train' else 1000.0
        now[0] += min(seconds, timeout)
        if seconds > timeout:
            raise subprocess.TimeoutExpired('python', timeout)
        return figures(case)

    status, page, _ = report('--small', '--minutes', '3', '--parts', 'speed', 'more', run_case=run_case)
    assert now[0] == 180 and status == 1
    assert '| predict, naive, T=2, 1 sentence(s), fp32 | stopped after 100 s, the end of the time budget |' in page
    assert '| predict, fast, T=2, 1 sentence(s), bf16 | no time left: 0 s of 180 s' in page
    assert '| Longer clips, more sentences | skipped: no time left' in page


@pytest.mark.slow
def test_processes_of_its_own(report):
    """Real ones: a training step, and one whose config does not exist."""

    def speed(context, part):
        context.worker('machine')
        gpu_report.measure_cases(
            context, part, [dict(task='train', count_launches=True, profile=True, runs=0), dict(config='no_such.py')]
        )

    status, page, data = report('--device', 'cpu', '--small', '--parts', 'speed', speed=speed)
    assert status == 1
    (part,) = data['parts']
    case, missing = part['cases']
    assert case['launches']['operations'] > 1000 and case['stages']['backward'] > 0 and case['seconds'] > 0
    assert sum(case['stages'].values()) == pytest.approx(case['seconds'], rel=0.9)
    assert 'no_such.py' in missing['output'] and missing['output'] in page
    assert 'dispatched operations' in page and f'PyTorch | {torch.__version__}' in page


def test_command_line():
    def call(*arguments):
        command = [sys.executable, '-W', 'ignore', str(SCRIPT), *arguments]
        return subprocess.run(command, env=dict(os.environ, CUDA_VISIBLE_DEVICES=''), capture_output=True, text=True)

    assert 'required: --out' in call().stderr
    assert '--minutes must be above 0' in call('--out', 'x', '--minutes', '0').stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')
def test_no_gpu(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        gpu_report.main(['--out', str(tmp_path)])
    assert error.value.code == 2
    assert '--device cuda: this machine shows no GPU' in capsys.readouterr().err


def test_activity_of_a_profile():
    """What a profile's averages on a GPU look like: calls of the host, kernels and copies of the device."""

    def event(key, count, device, microseconds):
        return SimpleNamespace(
            key=key, count=count, device_type=f'DeviceType.{device}', self_device_time_total=microseconds
        )

    averages = [
        event('aten::mm', 3, 'CPU', 0),
        event('cudaLaunchKernel', 5, 'CPU', 0),
        event('cuLaunchKernelEx', 2, 'CPU', 0),
        event('cudaMemcpyAsync', 1, 'CPU', 0),
        event('ampere_sgemm_128x64_tn', 7, 'CUDA', 2000),
        event('Optimizer.step#AdamW.step', 1, 'CUDA', 9000),
        event('Memcpy HtoD (Pageable -> Device)', 1, 'CUDA', 500),
    ]
    from benchmark import device_activity

    assert device_activity(averages) == dict(kernel_launches=7, copies=1, busy_seconds=0.0025)


@pytest.mark.parametrize(
    'name, bf16',
    [
        ('NVIDIA H100 80GB HBM3', 989),
        ('NVIDIA H100 PCIe', 756),
        ('NVIDIA A100-SXM4-80GB', 312),
        ('NVIDIA GeForce RTX 4090', 165),
        ('NVIDIA GeForce RTX 4090 Laptop GPU', None),
        ('NVIDIA L4', 121),
        ('NVIDIA L40S', 362),
        ('Tesla V100-SXM2-16GB', None),  # has none
        ('NVIDIA A1000', None),
        ('Quadro T400', None),
    ],
)
def test_published_peaks(name, bf16):
    assert gpu_report.published_peaks(name).get('bf16') == bf16


def test_outcomes_of_tests(tmp_path):
    cases = (
        '<testcase classname="tests.cuda.test_cuda" name="test_a" time="1.5">'
        '<properties><property name="out" value="1e-6"/></properties></testcase>',
        '<testcase name="test_b" time="0"><failure message="assert 1 &lt; 0">E assert</failure></testcase>',
        '<testcase name="test_c" time="0"><skipped message="no GPU here"/></testcase>',
    )
    (tmp_path / 'x.xml').write_text(f'<testsuites><testsuite>{"".join(cases)}</testsuite></testsuites>')
    a, b, c = gpu_report.read_junit(tmp_path / 'x.xml')
    assert (a['outcome'], a['properties'], a['seconds']) == ('passed', {'out': '1e-6'}, 1.5)
    assert (b['outcome'], b['message']) == ('failed', 'assert 1 < 0\nE assert')
    assert (c['outcome'], c['message']) == ('skipped', 'no GPU here')


@pytest.mark.slow
def test_the_small_report_on_a_cpu(tmp_path):
    command = [sys.executable, '-W', 'ignore', SCRIPT, '--out', tmp_path, '--device', 'cpu', '--small']
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    done = subprocess.run([*map(str, command)], cwd=tmp_path, env=env, capture_output=True, text=True)
    page, data = (tmp_path / 'report.md').read_text(), json.loads((tmp_path / 'report.json').read_text())
    assert done.returncode == 0, done.stderr + page
    statuses = {part['name']: part['status'] for part in data['parts']}
    assert statuses.pop('cuda') == 'skipped' and statuses.pop('parity') in ('done', 'skipped')
    assert set(statuses.values()) == {'done'}
    assert 'no GPU here' in page and 'dispatched operations' in page and 'samples/s' in page
