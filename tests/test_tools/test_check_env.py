"""tools/check_env.py lists what is missing, and says what works but is slow: a GPU whose mmcv was built for CPUs."""

import importlib.metadata
import runpy
import sys

import mmcv.ops
import pytest
import torch

from tests.conftest import ROOT

SCRIPT = ROOT / 'tools' / 'check_env.py'


@pytest.fixture
def check(monkeypatch, capsys):
    """A function: exit status and standard error of check_env.py on a machine as described."""

    def run(gpu, cuda, mmcv_cuda, nvcc=None):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
        monkeypatch.setattr(torch.version, 'cuda', cuda)
        monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: mmcv_cuda)
        script = runpy.run_path(str(SCRIPT))
        monkeypatch.setitem(script['main'].__globals__, 'faults', lambda sets, stack: [])
        if 'nvcc_release' in script:
            monkeypatch.setitem(script['main'].__globals__, 'nvcc_release', lambda: nvcc)
        monkeypatch.setattr(sys, 'argv', [str(SCRIPT)])
        return script['main'](), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    'gpu, cuda, nvcc, words',
    [
        (True, '13.0', None, ('PyTorch sees a GPU', 'nvcc) 13.0', 'there is no nvcc here')),
        (True, '13.0', '12.4', ('PyTorch sees a GPU', 'the nvcc here is of CUDA 12.4')),
        (False, '13.0', None, ('PyTorch is a build for CUDA 13.0',)),  # set up on a login node
    ],
)
def test_mmcv_without_cuda_ops_is_a_note(check, gpu, cuda, nvcc, words):
    status, said = check(gpu, cuda, 'not available', nvcc)
    assert status == 0
    for word in ('note: ', *words, 'mmcv was built without CUDA ops', 'FORCE_CUDA=1 MMCV_WITH_OPS=1', 'mmcv>='):
        assert word in said, f'{word!r} not in\n{said}'


@pytest.mark.parametrize(
    'gpu, cuda, mmcv_cuda', [(True, '13.0', '13.0'), (False, '13.0', '13.0'), (False, None, 'not available')]
)
def test_nothing_to_note(check, gpu, cuda, mmcv_cuda):
    assert check(gpu, cuda, mmcv_cuda) == (0, '')


@pytest.mark.parametrize(
    'stack, versions, faults',
    [
        (None, {'mmcv': '2.1.0', 'mmengine': '0.10.7', 'mmdet': '3.3.0'}, []),
        (None, {'onedl-mmcv': '2.3.6', 'onedl-mmengine': '0.10.12', 'onedl-mmdetection': '3.5.1'}, []),
        (
            'onedl',
            {'mmcv': '2.1.0'},
            ['mmcv: installed beside', 'onedl-mmengine>=', 'onedl-mmcv>=', 'onedl-mmdetection>='],
        ),
        (
            'openmmlab',
            {'onedl-mmcv': '2.3.6', 'mmengine': '0.10.7', 'mmdet': '3.3.0'},
            ['mmcv>=2.1.0,<2.2: not installed'],
        ),
        (None, {'onedl-mmcv': '2.2.0', 'onedl-mmengine': '0.10.12'}, ['onedl-mmcv>=', 'onedl-mmdetection>=']),
    ],
)
def test_stacks(monkeypatch, capsys, stack, versions, faults):
    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    versions = versions | {'mmaction2': '1.2.0'}
    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), 'mminstall', *(['--stack', stack] if stack else [])])
    status = runpy.run_path(str(SCRIPT))['main']()
    said = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith('note: ')
    ]  # of a PyTorch for CUDA
    assert status == bool(faults) and len(said) == len(faults), said
    for line, start in zip(said, faults, strict=True):
        assert line.startswith(start)
