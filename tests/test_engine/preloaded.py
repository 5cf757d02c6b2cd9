"""tools/*.py in processes of their own that need not import PyTorch and MMEngine first: a second instead of ten."""

import contextlib
import multiprocessing
import os
import runpy
import sys
import warnings
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def start(script, *arguments, **environment):
    """Starts ``python tools/SCRIPT ARGUMENTS`` on the CPU with one thread; returns the process."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmengine.runner', 'mmsoc.engine', 'mmsoc.models', 'mmsoc.visualization'])
    # MMEngine chooses the device when it is imported, which is here.
    with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1'):
        forkserver.ensure_running()
    process = context.Process(target=_run, args=(script, arguments, environment))
    process.start()
    return process


def finish(*processes, seconds=300):
    """Waits until all have ended without an error."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(codes)


def _run(script, arguments, environment):
    os.environ.update({'LOCAL_RANK': '0', **environment})
    sys.argv = [str(TOOLS / script), *map(str, arguments)]
    warnings.simplefilter('ignore')
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        runpy.run_path(sys.argv[0], run_name='__main__')
