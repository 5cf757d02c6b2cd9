import os
from pathlib import Path

# Before transformers is imported: tests never ask the hub, and need not wait until it does not answer.
os.environ.setdefault('HF_HUB_OFFLINE', '1')

import pytest
import torch
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parent.parent


# Here for fixtures that live longer than a test, and again before each test, which may have changed it.
init_default_scope('mmsoc')


@pytest.fixture(autouse=True)
def _default_scope():
    init_default_scope('mmsoc')


@pytest.fixture(scope='session')
def root() -> Path:
    """The repository."""
    return ROOT


def reference_path() -> Path:
    return Path(os.environ.get('MMSOC_REFERENCE') or ROOT.parent / 'shared' / 'reference')


@pytest.fixture(scope='session')
def reference() -> Path:
    """The reference material, which only tests use; they skip without it."""
    path = reference_path()
    if not path.is_dir():
        pytest.skip(f'no reference material at {path} (set MMSOC_REFERENCE)')
    return path


@pytest.fixture
def seeded():
    torch.manual_seed(0)
