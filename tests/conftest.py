import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parent.parent


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
