"""What may import what; each in a fresh process."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys

def load(name):
    module = importlib.import_module(name)
    for part in pkgutil.walk_packages(getattr(module, '__path__', []), name + '.'):
        importlib.import_module(part.name)

for name in sys.argv[1:]:
    load(name)
print('\\n'.join(sorted(sys.modules)))
"""


def loaded(*names):
    """All modules that are loaded when these, and all below them, were imported."""
    done = subprocess.run([sys.executable, '-c', IMPORT_ALL, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def below(modules, name):
    return [module for module in modules if module == name or module.startswith(f'{name}.')]


@pytest.fixture(scope='module')
def of_training():
    return loaded('mmsoc.datasets', 'mmsoc.models', 'mmsoc.engine', 'mmsoc.evaluation')


def test_training_does_not_import_preparation(of_training):
    assert below(of_training, 'mmsoc.models') and below(of_training, 'mmsoc.engine.hooks.safe_checkpoint_hook')
    assert below(of_training, 'mmsoc.preparation') == []


def test_preparation_does_not_import_models():
    modules = loaded('mmsoc.preparation')
    assert below(modules, 'mmsoc.preparation.twins.refcoco') and below(modules, 'mmsoc.preparation.own_videos')
    assert below(modules, 'mmsoc.models') == []


def test_the_video_reader_does_not_import_torch():
    modules = loaded('mmsoc.utils.video')
    assert below(modules, 'av') and below(modules, 'torch') == []
