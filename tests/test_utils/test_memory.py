"""Memory settings act on a whole process, so each test starts one."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch, mmengine.runner, mmsoc.models  # as in tools/train.py, before the first tensor
from mmsoc.utils.memory import use_huge_pages
use_huge_pages()
print(torch.empty(10**6).data_ptr() % 4096)
"""


def offset_in_page(**environment: str) -> int:
    inherited = {key: value for key, value in os.environ.items() if key != 'THP_MEM_ALLOC_ENABLE'}
    command = [sys.executable, '-c', SCRIPT]
    result = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(sys.platform != 'linux', reason='huge pages are Linux')
def test_large_tensors_get_pages_of_their_own():
    assert offset_in_page() == 0
    assert offset_in_page(THP_MEM_ALLOC_ENABLE='0') != 0  # the user's choice stays
