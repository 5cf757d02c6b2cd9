"""Functions that several processes run at once, as ranks that talk through gloo."""

import multiprocessing
import multiprocessing.connection
import os
import socket
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock


class Ended(NamedTuple):
    """A process that ran."""

    status: int | None  # negative: by a signal; None: it had to be killed
    output: str
    seconds: float  # since all processes were started


def run_on_ranks(
    work: Callable, *args: Any, folder: Path, ranks: int = 2, seconds: float = 60, fork: bool = False
) -> list[Ended]:
    """Runs ``work(rank, *args)`` in each of ``ranks`` processes, with torchrun's environment variables, on the CPU with one thread.

    ``work`` starts the process group.

    Args:
        work: a function at the top of a module, or any function with ``fork``.
        folder: for their output.
        seconds: until what still runs is killed.
        fork: fork this process, whose patches they then have. Otherwise they are forked from one that has imported the libraries
            and nothing more: autograd refuses to work in a process forked from one where it worked.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE=str(ranks))
    context: Any = multiprocessing.get_context('fork' if fork else 'forkserver')
    if not fork:
        # As in tests/test_engine/preloaded.py: there is one such server.
        context.set_forkserver_preload(['mmengine.runner', 'mmsoc.engine', 'mmsoc.models', 'mmsoc.visualization'])
        with mock.patch.dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1'):
            forkserver.ensure_running()
    outputs = [folder / f'rank{rank}.txt' for rank in range(ranks)]
    processes = [context.Process(target=_run, args=(work, rank, address, outputs[rank], args)) for rank in range(ranks)]
    start = time.time()
    for process in processes:
        process.start()
    ends = dict.fromkeys(processes, float(seconds))
    while any(running := [process for process in processes if process.exitcode is None]):
        if time.time() - start > seconds:
            break
        multiprocessing.connection.wait([process.sentinel for process in running], timeout=1)
        for process in running:
            if process.exitcode is not None:
                ends[process] = time.time() - start
    statuses = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return [
        Ended(status, output.read_text() if output.exists() else '', ends[process])
        for process, status, output in zip(processes, statuses, outputs, strict=True)
    ]


def _run(work: Callable, rank: int, address: dict[str, str], output: Path, args: tuple) -> None:
    os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank))
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    work(rank, *args)


def assert_ended_well(ended: list[Ended]) -> None:
    assert [process.status for process in ended] == [0] * len(ended), '\n'.join(process.output for process in ended)
