"""tools/setup_env.sh says what to do where it cannot go on. Small scripts stand in for the programs that it calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
PROGRAMS = ['awk', 'basename', 'bash', 'cat', 'cksum', 'cut', 'dirname', 'grep', 'mkdir', 'sleep', 'tail', 'wc']


class Machine:
    """A checkout and a PATH of its own, with a ``g++`` and a ``python3`` that lacks mmsoc's packages."""

    def __init__(self, folder):
        self.root, self.bin = folder / 'check out', folder / 'bin'
        (self.root / 'tools').mkdir(parents=True)
        self.bin.mkdir()
        for name in ('setup_env.sh', 'check_env.py'):
            shutil.copy(TOOLS / name, self.root / 'tools')
        shutil.copytree(TOOLS.parent / 'requirements', self.root / 'requirements')
        for name in PROGRAMS:
            (self.bin / name).symlink_to(shutil.which(name))
        self.python()
        self.program('g++', 'exit 0')
        self.program('df', 'echo Filesystem; echo "/dev/x 100000000 1 99999999 1% /"')

    def program(self, name, script, folder=None):
        file = (folder or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(f'#!/bin/bash\n{script}\n')
        file.chmod(0o755)
        return file

    def python(self, special='', name='python3'):
        """A Python; ``special`` is a shell case that answers some calls in another way."""
        return self.program(
            name, f'case "$*" in {special}\n  *check_env.py*) exit 1 ;; esac\nexec "{sys.executable}" "$@"'
        )

    def venv_whose_pip(self, script):
        """``python3 -m venv`` makes an environment whose pip does ``script``."""
        pip = self.program(
            'pip_python', f'case "$*" in *"import pip"*) exit 0 ;; *"pip install"*) {script} ;; esac; exit 0'
        )
        self.python(
            f'*"-m venv"*) mkdir -p "${{@: -1}}/bin"; cat "{pip}" > "${{@: -1}}/bin/python"; chmod +x '
            f'"${{@: -1}}/bin/python"; '
            'exit 0 ;;'
        )
        (self.bin / 'chmod').symlink_to(shutil.which('chmod'))

    def venv_that_is_ready(self, special=''):
        """An environment that an earlier run finished; ``special`` as for `python`."""
        (self.root / '.venv').mkdir()
        script = f'case "$*" in {special} *"pip install"*) exit 1 ;; esac'
        python = self.program('python', script, self.root / '.venv' / 'bin')
        stamp = subprocess.run(
            ['bash', '-c', 'cat requirements/*.txt <(echo torch==2.13.0) | cksum | cut -d" " -f1'],
            cwd=self.root,
            capture_output=True,
            text=True,
        ).stdout
        (self.root / '.venv' / '.mmsoc-ready').write_text(stamp)
        return python

    def run(self, **variables):
        return subprocess.run(
            ['bash', 'tools/setup_env.sh'],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            env=dict(PATH=str(self.bin), HOME=os.environ.get('HOME', '/'), **variables),
        )

    def refuses(self, *words, **variables):
        result = self.run(**variables)
        assert result.returncode == 1 and result.stdout == '', result
        for word in words:
            assert word in result.stderr, f'{word!r} not in\n{result.stderr}'


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_no_compiler(machine):
    (machine.bin / 'g++').unlink()
    machine.refuses('no C++ compiler', 'apt-get install g++')
    assert not (machine.root / '.venv').exists()


def test_compiler_that_does_not_work(machine):
    machine.program('g++', 'echo "fatal error: cannot execute cc1plus" >&2; exit 1')
    machine.refuses('g++', 'cannot compile', 'cc1plus', 'apt-get install g++')


def test_wrong_python(machine):
    old = machine.program('python3', 'case "$*" in --version) echo Python 3.8.18 ;; *) exit 1 ;; esac')
    machine.refuses('no Python 3.10 to 3.13 found', 'Python 3.8.18', 'MMSOC_PYTHON=')
    machine.refuses('Python 3.8.18', 'expected Python 3.10 to 3.13', MMSOC_PYTHON=str(old))
    machine.refuses('no such program', MMSOC_PYTHON='/nowhere/python')
    (machine.bin / 'python3').unlink()
    machine.refuses('no Python 3.10 to 3.13 found', 'missing')


def test_no_venv_module(machine):
    machine.python('*"import venv"*) exit 1 ;;')
    machine.refuses('cannot make a virtual environment', '-venv')


def test_no_headers(machine):
    machine.python('*sysconfig*) echo /nowhere; exit 0 ;;')
    machine.refuses("Python's headers are missing (/nowhere/Python.h)", '-dev')


def test_little_space(machine):
    machine.program('df', 'echo Filesystem; echo "/dev/x 100 1 2048000 99% /"')
    machine.refuses('only 2000 MiB free', 'needs about')


@pytest.mark.parametrize(
    'line, words',
    [
        (
            'NewConnectionError: Temporary failure in name resolution',
            ('the package index cannot be reached', 'check the network'),
        ),
        ('OSError: [Errno 28] No space left on device', ('the disk is full', 'then run the same command again')),
        ('g++: fatal error: Killed signal terminated program cc1plus', ('out of memory', 'MAX_JOBS=1')),
        ('ERROR: No matching distribution found for torch', ('no version of a package fits', 'MMSOC_TORCH')),
        ('something else', ('step failed: torch', 'setup.log')),
    ],
)
def test_failing_step(machine, line, words):
    machine.venv_whose_pip(f"echo '{line}'; exit 1")
    machine.refuses(line, *words)
    assert not (machine.root / '.venv' / '.mmsoc-ready').exists()


def test_venv_cannot_be_made(machine):
    machine.python('*"-m venv"*) echo "Permission denied" >&2; exit 1 ;;')
    machine.refuses('Permission denied', 'could not be made')


def test_active_python_is_used_if_it_has_everything(machine):
    machine.python('*check_env.py*) exit 0 ;;', name='python')
    result = machine.run()
    assert result.returncode == 0 and result.stdout.strip() == sys.executable
    assert not (machine.root / '.venv').exists()


def test_unknown_stack(machine):
    machine.refuses('MMSOC_STACK=mmlab: expected openmmlab or onedl', MMSOC_STACK='mmlab')


@pytest.mark.parametrize(
    'stack, others, wanted, removed',
    [
        ('onedl', ('mmcv-2.1.0', 'mmdet-3.3.0'), 'onedl-mmcv>=', ['mmcv', 'mmdet']),
        ('openmmlab', ('onedl_mmcv-2.3.6', 'onedl_mmengine-0.10.12'), 'mmcv>=', ['onedl-mmengine', 'onedl-mmcv']),
        ('', ('onedl_mmcv-2.3.6',), 'onedl-mmcv>=', []),
        ('', (), 'mmcv>=', []),
    ],
)
def test_stack_replaces_the_other(machine, tmp_path, stack, others, wanted, removed):
    """What is asked of pip in a .venv that has parts of a stack."""
    calls = tmp_path / 'calls'
    machine.venv_whose_pip('exit 0')
    python = machine.bin / 'pip_python'
    python.write_text(
        python.read_text().replace(
            'case "$*" in',
            f'echo "$*" >> "{calls}"; case "$*" in "- "*) echo "export FORCE_CUDA=0; MMCV_KIND=CPU" ;;',
        )
    )
    for name in others:
        (machine.root / f'.venv/lib/python3.11/site-packages/{name}.dist-info').mkdir(parents=True)
    result = machine.run(MMSOC_STACK=stack)
    assert result.returncode == 0, result
    asked = calls.read_text().splitlines()
    assert [line.split()[-1] for line in asked if 'pip uninstall' in line] == removed, result
    (mmcv,) = {line.split()[-1] for line in asked if '--no-build-isolation' in line and 'mmcv' in line}
    assert mmcv.startswith(wanted)
    file = 'onedl' if wanted.startswith('onedl') else 'mminstall'
    assert any(line.endswith(f'requirements/{file}.txt') for line in asked)


def test_mmcv_is_compiled_as_cxx20_for_newer_torch(machine, tmp_path):
    """PyTorch 2.14 requires C++20, and mmcv's setup.py passes -std=c++17."""
    shutil.copy(TOOLS / 'cxx20.sh', machine.root / 'tools')
    (tmp_path / 'fakes' / 'torch').mkdir(parents=True)
    (tmp_path / 'fakes' / 'torch' / '__init__.py').write_text(
        'import os, types\n__version__ = os.environ["FAKE_TORCH"]\nversion = types.SimpleNamespace(cuda=None)\n'
    )
    machine.program('g++', 'printf "%s\\n" "$@" >> "$COMPILED"; exit 0')
    machine.venv_whose_pip('[[ "$*" != *" mmcv>="* ]] || ${CXX:-g++} -O2 -std=c++17 "a b.cpp"; exit 0')
    python = machine.bin / 'pip_python'
    python.write_text(
        python.read_text().replace('exit 0 ;; *"pip', f'exit 0 ;; "- "*) exec "{sys.executable}" "$@" ;; *"pip')
    )
    (machine.bin / 'env').symlink_to(shutil.which('env'))
    for version, expected in (('2.13.0', '-std=c++17'), ('2.14.1', '-std=c++20')):
        compiled = tmp_path / version
        shutil.rmtree(machine.root / '.venv', ignore_errors=True)
        result = machine.run(FAKE_TORCH=version, COMPILED=str(compiled), PYTHONPATH=str(tmp_path / 'fakes'))
        assert ['-O2', expected, 'a b.cpp'] == compiled.read_text().splitlines()[-3:], result


def test_active_python_with_the_other_stack_is_not_used(machine):
    machine.python('*"check_env.py --stack onedl"*) exit 1 ;; *check_env.py*) exit 0 ;;', name='python')
    assert machine.run().returncode == 0
    machine.venv_whose_pip("echo 'the first step'; exit 1")
    machine.refuses('the first step', MMSOC_STACK='onedl')


def test_second_run_uses_the_environment(machine):
    python = machine.venv_that_is_ready()
    result = machine.run()
    assert result.returncode == 0 and result.stdout.strip() == str(python), result
    # Another requirement: not ready any more, so the first step starts (and fails here).
    with (machine.root / 'requirements' / 'tests.txt').open('a') as f:
        f.write('another-package\n')
    machine.refuses('step failed: torch')


NOTE = 'note: PyTorch sees a GPU, but mmcv was built without CUDA ops'


def test_notes_are_shown_at_the_end(machine):
    """What check_env.py says of an environment that works but is slow, with the active Python and with .venv."""
    machine.python(f'*check_env.py*) echo "{NOTE}" >&2; exit 0 ;;', name='python')
    result = machine.run()
    assert result.returncode == 0 and result.stdout.strip() == sys.executable
    assert result.stderr.splitlines()[-1] == f'[setup] WARNING: {NOTE.removeprefix("note: ")}'

    (machine.bin / 'python').unlink()
    python = machine.venv_that_is_ready(f'*check_env.py*) echo "{NOTE}" >&2 ;;')
    result = machine.run()
    assert result.returncode == 0 and result.stdout.strip() == str(python)
    assert result.stderr.splitlines()[-1] == f'[setup] WARNING: {NOTE.removeprefix("note: ")}'


def test_notes_of_a_new_environment(machine):
    """The last step of a set-up whose pip installs nothing."""
    machine.venv_whose_pip('exit 0')
    # The Python of the new environment: everything imports, mmcv is for CPUs.
    python = machine.bin / 'pip_python'
    python.write_text(
        python.read_text().replace(
            'exit 0 ;; esac; exit 0',
            f'exit 0 ;; *check_env.py*) echo "{NOTE}" >&2 ;; "- "*|-) echo "export FORCE_CUDA=0; MMCV_KIND=CPU" ;; esac; exit 0',
        )
    )
    for name in ('ls', 'cat'):
        if not (machine.bin / name).exists():
            (machine.bin / name).symlink_to(shutil.which(name))
    result = machine.run()
    assert result.returncode == 0, result
    assert result.stderr.splitlines()[-2:] == [
        f'[setup] done: {machine.root / ".venv"}',
        f'[setup] WARNING: {NOTE.removeprefix("note: ")}',
    ]
