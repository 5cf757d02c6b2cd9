"""The same test set, scored by one, two and three processes with equal thread counts."""

import json
import os
import socket
import subprocess
import sys

import pytest
from preloaded import TOOLS, finish, start

from tests.test_engine.small_soc import write_config, write_data, write_weights


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """A function that returns the JSON report of tools/test.py in that many processes, started by ``launch``."""
    folder = tmp_path_factory.mktemp('processes')
    config = write_config(folder / 'small.py', write_data(folder / 'data'))
    weights = write_weights(folder / 'weights.pth')
    reports = {}

    def test(launch, processes):
        if (launch, processes) not in reports:
            name = f'{launch.__name__}{processes}'
            out = folder / f'{name}.json'
            launch(processes, config, weights, '--out', out, '--work-dir', folder / name)
            reports[launch, processes] = json.loads(out.read_text())
        return reports[launch, processes]

    return test


def by_script(processes, config, weights, *arguments):
    command = ['bash', TOOLS / 'dist_test.sh', config, weights, processes, *arguments]
    env = dict(os.environ, PYTHON=sys.executable, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', HF_HUB_OFFLINE='1')
    result = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]


def preloaded(processes, *arguments):
    """What torchrun does, without waiting for the libraries in each process."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE=str(processes))
    launcher = ['--launcher', 'pytorch'] if processes > 1 else []
    finish(
        *(
            start('test.py', *arguments, *launcher, **address, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(processes)
        )
    )


# 7 videos: 8 draws of two processes, 9 of three; the surplus ones repeat the first videos.
@pytest.mark.parametrize('processes', [2, 3])
@pytest.mark.parametrize('launch', [preloaded, pytest.param(by_script, marks=pytest.mark.slow)])
def test_numbers_do_not_depend_on_the_number_of_processes(report, launch, processes):
    one, several = report(launch, 1), report(launch, processes)
    # Videos 0..6 have 1, 2, 3, 1, 2, 3, 1 sentences.
    expected = [(f'v{i}', str(k)) for i in range(7) for k in range(1 + i % 3)]
    for found in (one, several):
        assert (found['num_videos'], found['num_sentences']) == (7, 13)
        assert [(row['video'], row['exp_id']) for row in found['rows']] == expected
    # Exactly: the same sums in the same order.
    for row, other in zip(one['rows'], several['rows'], strict=True):
        assert row == other
    assert one == several
    # The network says something, and not the same everywhere.
    assert 0 < one['metrics']['J'] < 1 and 0 < one['metrics']['F'] < 1
    assert len({row['J'] for row in one['rows']}) > 5 and len({row['score'] for row in one['rows']}) == 13
