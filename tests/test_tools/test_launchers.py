"""The shell scripts hand on their arguments unchanged; programs that print theirs stand in for torchrun and srun."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
PRINT = '#!/bin/bash\nif [ "$1" = -c ]; then echo 12345; else printf "%s\\n" "$@"; echo "OMP=$OMP_NUM_THREADS"; fi\n'


@pytest.fixture
def script(tmp_path):

    def call(name, *args, **variables):
        for program in ('python', 'srun'):
            (tmp_path / program).write_text(PRINT)
            (tmp_path / program).chmod(0o755)
        env = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHON=str(tmp_path / 'python'))
        for variable in (
            'PORT',
            'NNODES',
            'NODE_RANK',
            'MASTER_ADDR',
            'OMP_NUM_THREADS',
            'GPUS',
            'GPUS_PER_NODE',
            'SRUN_ARGS',
        ):
            env.pop(variable, None)
        env['MMSOC_PREFLIGHT'] = 'done'
        return subprocess.run(
            ['bash', str(TOOLS / name), *args], env={**env, **variables}, capture_output=True, text=True, cwd=tmp_path
        )

    return call


def test_dist_train(script):
    lines = script(
        'dist_train.sh', 'a config.py', '2', '--work-dir', 'a b', '--cfg-options', 'x="1 2"'
    ).stdout.splitlines()
    assert lines[:-1] == [
        '-m',
        'torch.distributed.run',
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--master_port=12345',
        '--nproc_per_node=2',
        str(TOOLS / 'train.py'),
        'a config.py',
        '--work-dir',
        'a b',
        '--cfg-options',
        'x="1 2"',
        '--launcher',
        'pytorch',
    ]
    # cores / processes, 1 at least
    assert lines[-1] == f'OMP={max(1, os.sysconf("SC_NPROCESSORS_ONLN") // 2)}'


def test_dist_test_on_several_nodes(script):
    lines = script(
        'dist_test.sh', 'c.py', 'a b.pth', '1', NNODES='2', NODE_RANK='1', MASTER_ADDR='host', OMP_NUM_THREADS='3'
    ).stdout.splitlines()
    # Every node has to use the same port, so a random one would not do.
    assert lines[2:7] == [
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=host',
        '--master_port=29500',
        '--nproc_per_node=1',
    ]
    assert lines[7:] == [str(TOOLS / 'test.py'), 'c.py', 'a b.pth', '--launcher', 'pytorch', 'OMP=3']
    assert '--master_port=7' in script('dist_test.sh', 'c.py', 'a.pth', '1', PORT='7').stdout


def test_slurm(script):
    lines = script(
        'slurm_train.sh',
        'gpu',
        'job',
        'c.py',
        'work dir',
        '--amp',
        GPUS='16',
        SRUN_ARGS='--quotatype=auto -x n1',
        CPUS_PER_TASK='4',
    ).stdout.splitlines()
    assert lines[:10] == [
        '--partition=gpu',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--cpus-per-task=4',
        '--kill-on-bad-exit=1',
        '--quotatype=auto',
        '-x',
        'n1',
    ]
    assert lines[11:-1] == [
        '-u',
        str(TOOLS / 'train.py'),
        'c.py',
        '--work-dir=work dir',
        '--amp',
        '--launcher',
        'slurm',
    ]
    lines = script('slurm_test.sh', 'gpu', 'job', 'c.py', 'a.pth', GPUS='2').stdout.splitlines()
    assert lines[2:5] == ['--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2']
    assert lines[9:-1] == [str(TOOLS / 'test.py'), 'c.py', 'a.pth', '--launcher', 'slurm']


@pytest.mark.parametrize(
    'name, args, expected',
    [
        ('dist_train.sh', ['c.py', '2', '--amp'], ['train', '--nproc', '2', 'c.py', '--amp']),
        ('dist_test.sh', ['c.py', 'a.pth', '2'], ['test', '--nproc', '2', 'c.py', '--checkpoint', 'a.pth']),
        ('slurm_train.sh', ['gpu', 'job', 'c.py', 'w'], ['train', '--nproc', '0', 'c.py', '--work-dir=w']),
        ('slurm_test.sh', ['gpu', 'job', 'c.py', 'a.pth'], ['test', '--nproc', '0', 'c.py', '--checkpoint', 'a.pth']),
    ],
)
def test_the_preflight_comes_first_and_stops_the_script(script, tmp_path, name, args, expected):
    lines = script(name, *args, MMSOC_PREFLIGHT='').stdout.splitlines()
    end = 2 + len(expected)
    assert lines[:end] == [str(TOOLS / 'preflight.py'), '--task', *expected] and lines[end + 1 :]
    failing = tmp_path / 'failing'
    failing.write_text('#!/bin/bash\n[ "$1" = -c ] || { echo called; exit 2; }\n')
    failing.chmod(0o755)
    result = script(name, *args, MMSOC_PREFLIGHT='', PYTHON=str(failing))
    assert result.returncode == 2 and result.stdout == 'called\n'


@pytest.mark.parametrize(
    'name, args',
    [
        ('dist_train.sh', ['c.py']),
        ('dist_test.sh', ['c.py', 'a.pth']),
        ('slurm_train.sh', ['gpu', 'job', 'c.py']),
        ('slurm_test.sh', ['gpu', 'job', 'c.py']),
    ],
)
def test_too_few_arguments(script, name, args):
    result = script(name, *args)
    assert result.returncode == 2 and f'usage: bash tools/{name}' in result.stderr


def test_number_of_processes(script):
    for wrong in ('0', 'a.pth', '--amp', ''):
        result = script('dist_train.sh', 'c.py', wrong)
        assert result.returncode == 2 and f"NPROC is '{wrong}'" in result.stderr


def test_python_is_found(tmp_path):
    for name in ('bash', 'dirname'):
        (tmp_path / name).symlink_to(f'/bin/{name}' if os.path.exists(f'/bin/{name}') else f'/usr/bin/{name}')
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / '_python.sh').write_text((TOOLS / '_python.sh').read_text())
    command = ['bash', '-c', 'source tools/_python.sh; echo "$PYTHON"']

    def find():
        return subprocess.run(command, env=dict(PATH=str(tmp_path)), cwd=tmp_path, capture_output=True, text=True)

    assert find().returncode == 1 and 'tools/setup_env.sh' in find().stderr
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    for name in ('.venv/bin/python', 'python'):  # the active one wins, if it has MMEngine
        (tmp_path / name).write_text('#!/bin/bash\nexit 0\n')
        (tmp_path / name).chmod(0o755)
        assert find().stdout.strip().endswith(name)
    (tmp_path / 'python').write_text('#!/bin/bash\nexit 1\n')
    assert find().stdout.strip().endswith('.venv/bin/python')
