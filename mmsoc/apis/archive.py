"""Many videos: tasks, workers that keep the model, and what remains after a failure (tools/infer_many.py)."""

import csv
import glob
import hashlib
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from mmsoc.utils.errors import DISK_ERRORS, UserError, is_out_of_memory
from mmsoc.utils.files import dump_json, load_json

from .results import SCORES
from .video_io import IMAGE_SUFFIXES

BROKEN = 'broken.json'
"""in the folder of a video that could not be segmented: its reason"""
SETTINGS = 'settings.json'
"""in the folder of a finished video: what it was made with"""
VIDEO_SUFFIXES = (
    '.mp4',
    '.m4v',
    '.mov',
    '.mkv',
    '.webm',
    '.avi',
    '.mpg',
    '.mpeg',
    '.ts',
    '.wmv',
    '.flv',
    '.gif',
    '.ogv',
)
ATTEMPTS = 2
"""of a video whose worker died"""


@dataclass(frozen=True)
class Task:
    """A video and its sentences."""

    video: str
    """path, or a URL that fsspec can open"""
    texts: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Unique name of the results' folder: the video's name, and a digest of its path and sentences."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]
        stem = re.sub(r'[^\w.-]+', '_', Path(self.video.rstrip('/')).stem)[:60]
        return f'{stem}-{digest}'


@dataclass
class Outcome:
    """What became of a task."""

    task: Task
    status: str
    """``done``, ``broken``, or ``earlier``: finished by an earlier run"""
    seconds: float = 0.0
    frames: int = 0
    scores: list[float] = field(default_factory=list)
    reason: str = ''


def read_manifest(path: str | Path) -> list[Task]:
    """Tasks of a csv file with the columns ``video`` and ``text``, a sentence per row; a video may have several.

    Relative paths are below the file's folder.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: a column is missing, or a row is incomplete; names its line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'manifest {path}: there is no such file (looked in {os.getcwd()})')
    texts: dict[str, list[str]] = {}
    try:
        with path.open(newline='', encoding='utf-8-sig') as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'manifest {path}: expected a csv file in UTF-8; {error}') from error
    if not {'video', 'text'} <= set(columns):
        raise UserError(f'manifest {path}: expected the columns video and text, found {", ".join(columns) or "none"}')
    for line, row in rows:
        video, text = (row['video'] or '').strip(), (row['text'] or '').strip()
        if not video or not text:
            raise UserError(f'manifest {path}, line {line}: expected a video and a text, found {row}')
        if '://' not in video:
            video = str(path.parent / video)
        if text not in texts.setdefault(video, []):
            texts[video].append(text)
    if not texts:
        raise UserError(f'manifest {path}: there are no rows')
    return [Task(video, tuple(of_video)) for video, of_video in texts.items()]


def tasks_of(sources: Sequence[str], texts: Sequence[str]) -> list[Task]:
    """Tasks of manifests (``.csv``), or of videos, globs and folders of videos with the same sentences for all.

    Raises:
        UserError: nothing is found, or ``texts`` are missing, or given for a manifest.
    """
    found: list[Task] = []
    for source in sources:
        if source.endswith('.csv'):
            if texts:
                raise UserError(f'--text: the manifest {source} has the sentences')
            found += read_manifest(source)
            continue
        if not texts:
            raise UserError(f'--text: expected at least one sentence for {source}')
        videos = list(_videos(source))
        if not videos:
            raise UserError(
                f'{source}: expected a manifest (.csv), a video, a glob or a folder of videos, found nothing'
            )
        found += [Task(video, tuple(texts)) for video in videos]
    return list(dict.fromkeys(found))


def _videos(source: str) -> Iterator[str]:
    if '://' in source:
        import fsspec

        if any(sign in source for sign in '*?['):
            system, _, paths = fsspec.get_fs_token_paths(source)
            yield from (system.unstrip_protocol(path) for path in sorted(paths))
        else:
            yield source
        return
    if os.path.isdir(source):
        inside = sorted(path for path in Path(source).iterdir() if not path.name.startswith('.'))
        images = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
        videos = [path for path in inside if path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES]
        if images and videos:
            raise UserError(
                f'{source}: expected a folder of videos or a folder of frames, found both ({images[0].name}, {videos[0].name}); '
                'name the videos by a glob'
            )
        # A folder of frames is one video.
        yield from [source] if images else map(str, videos)
        return
    if os.path.exists(source):
        yield source
        return
    yield from sorted(glob.glob(source, recursive=True))


class Segmenter:
    """A worker's model.

    Args:
        out: folder of all results.
        load: keyword arguments of `SOCInferencer`.
        call: those of its call.
    """

    def __init__(self, out: str | Path, load: Mapping[str, Any], call: Mapping[str, Any]) -> None:
        from .inferencer import SOCInferencer

        self.out = Path(out)
        self.call = dict(call)
        self.settings = settings_of(load, call)
        self.inferencer = SOCInferencer(**load, show_progress=False)

    def __call__(self, task: Task) -> Outcome:
        """Segments; a broken video becomes an outcome and a file with its reason."""
        start = time.monotonic()
        folder = self.out / task.folder
        (folder / BROKEN).unlink(missing_ok=True)
        try:
            with _local(task.video) as path:
                found = self.inferencer(
                    path, list(task.texts), out_dir=folder, overwrite=folder.exists(), return_masks=False, **self.call
                )['predictions']
            dump_json(self.settings, folder / SETTINGS)
        except Exception as error:
            # A full disk concerns every video, and so does a GPU after an error other than running out of memory.
            if getattr(error, 'errno', None) in DISK_ERRORS or (
                'CUDA error' in str(error) and not is_out_of_memory(error)
            ):
                raise
            return self._broken(task, error, time.monotonic() - start)
        scores = [sentence['score'] for sentence in found['sentences']]
        return Outcome(task, 'done', time.monotonic() - start, found['num_frames'], scores)

    def _broken(self, task: Task, error: Exception, seconds: float) -> Outcome:
        reason = ' '.join(str(error).split())
        if not isinstance(error, UserError | OSError):
            reason = f'{type(error).__name__}: {reason}'
        write_broken(self.out, task, reason)
        return Outcome(task, 'broken', seconds, reason=reason)


def write_broken(out: Path, task: Task, reason: str) -> None:
    folder = out / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    dump_json(dict(asdict(task), reason=reason), folder / BROKEN, indent=1, ensure_ascii=False)


@contextmanager
def _local(video: str) -> Iterator[str]:
    """The path of a local copy."""
    if '://' not in video:
        yield video
        return
    import fsspec

    with tempfile.TemporaryDirectory(prefix='mmsoc-') as folder:
        path = os.path.join(folder, os.path.basename(video.rstrip('/')))
        system, remote = fsspec.core.url_to_fs(video)
        system.get(remote, path, recursive=system.isdir(remote))
        yield path


def settings_of(load: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, str]:
    """What determines the results of a video: a digest of the weights' file, if it is one, and of all arguments but the device."""
    weights = Path(str(load.get('weights')))
    stat = weights.stat() if weights.is_file() else None
    used = {key: value for key, value in load.items() if key != 'device'}
    content = [used, dict(call), stat and (stat.st_size, stat.st_mtime_ns)]
    return dict(digest=hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest())


def earlier(out: Path, task: Task, settings: Mapping[str, str]) -> Outcome | None:
    """The outcome of an earlier run with the same settings, which need not be repeated. Broken videos are tried again."""
    folder = out / task.folder
    try:
        if load_json(folder / SETTINGS, 'settings') != settings:
            return None
        content = load_json(folder / SCORES, 'results')
        scores = [sentence['score'] for sentence in content['sentences']]
        return Outcome(task, 'earlier', frames=content['num_frames'], scores=scores)
    except (UserError, OSError, KeyError, TypeError):
        return None


# ------------------------------------------------------------------------------------------------------ one machine


def _work(connection: Connection, out: str, load: dict, call: dict, threads: int) -> None:
    """A worker process: tasks in, outcomes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    import torch

    torch.set_num_threads(threads)
    try:
        segment = Segmenter(out, load, call)
    except Exception as error:  # as text: not every exception can be sent
        connection.send(f'{type(error).__name__}: {error}' if not isinstance(error, UserError) else str(error))
        return
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is dead
        connection.send(None)  # ready
        while (task := connection.recv()) is not None:
            try:
                connection.send(segment(task))
            except OSError as error:
                if error.errno not in DISK_ERRORS:
                    raise
                connection.send(str(error))
                return


class _Worker:
    def __init__(self, out: Path, load: dict, call: dict, threads: int) -> None:
        context = get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, str(out), load, call, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.ready = False

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead: the next `recv` will say so
            self.connection.send(task)

    def end(self, patience: float = 0.0) -> None:
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_on_workers(
    tasks: Sequence[Task],
    out: Path,
    loads: Sequence[dict],
    call: Mapping[str, Any],
    *,
    threads: int = 1,
    attempts: int = ATTEMPTS,
    started: Callable[[int, int], None] = lambda worker, pid: None,
) -> Iterator[Outcome]:
    """Yields the outcome of each task as it is finished, from a process for each of ``loads``.

    A worker that dies is replaced, and its video is tried again, ``attempts`` times in all.

    Args:
        loads: keyword arguments of each worker's `SOCInferencer`, e.g. with its device.
        call: those of its call.
        threads: of PyTorch in each worker.
        started: is called with the number and process id of each worker that starts.

    Raises:
        UserError: the model cannot be built, or the disk is full.
    """
    todo, tries = list(reversed(tasks)), dict.fromkeys(tasks, 0)
    workers: dict[int, _Worker] = {}

    def start(index: int) -> None:
        workers[index] = _Worker(out, dict(loads[index]), dict(call), threads)
        started(index, workers[index].process.pid or 0)

    try:
        for index in range(min(len(loads), len(tasks))):
            start(index)
        while workers:
            ends = {worker.connection: index for index, worker in workers.items()}
            for connection in wait(list(ends)):
                index = ends[connection]  # type: ignore[index]
                worker = workers[index]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    worker.end(patience=5)  # so that the exit code is its own
                    del workers[index]
                    task = worker.task
                    if task is not None:
                        tries[task] += 1
                        if tries[task] < attempts:
                            todo.append(task)
                        else:
                            reason = f'its worker died {attempts} times (exit code {worker.process.exitcode})'
                            write_broken(out, task, reason)
                            yield Outcome(task, 'broken', reason=reason)
                    elif not worker.ready:
                        raise UserError(
                            f'a worker died while it loaded the model (exit code {worker.process.exitcode}); is there enough '
                            f'memory for {len(loads)} of them?'
                        ) from None
                    if todo:
                        start(index)
                    continue
                if isinstance(message, str):
                    raise UserError(message)
                worker.ready = True
                if message is not None:
                    worker.task = None
                    yield message
                if todo:
                    worker.give(todo.pop())
                else:
                    worker.end()
                    del workers[index]
    finally:
        for worker in workers.values():
            worker.end()


# -------------------------------------------------------------------------------------------------------------- Ray


def run_on_ray(
    tasks: Sequence[Task],
    out: Path,
    load: Mapping[str, Any],
    call: Mapping[str, Any],
    *,
    workers: int,
    gpus_per_worker: float = 0.0,
    attempts: int = ATTEMPTS,
) -> Iterator[Outcome]:
    """As `run_on_workers`, on actors of a Ray cluster that is initialised.

    ``out`` must be on a file system that all nodes share.
    """
    import ray

    class Actor:
        def __init__(self, out: str, load: Mapping[str, Any], call: Mapping[str, Any]) -> None:
            self.segment = Segmenter(out, load, call)

        def ready(self) -> None:
            return None

        def run(self, task: Task) -> Outcome:
            return self.segment(task)

    remote: Any = ray.remote(num_gpus=gpus_per_worker, max_restarts=-1, max_task_retries=attempts - 1)(Actor)
    actors = [remote.remote(str(out), dict(load), dict(call)) for _ in range(min(workers, len(tasks)))]
    try:
        ray.get([actor.ready.remote() for actor in actors])
    except ray.exceptions.RayError as error:
        raise UserError(f'a worker cannot load the model: {getattr(error, "cause", None) or error}') from error
    todo = list(reversed(tasks))
    running = {actor.run.remote(task): (actor, task) for actor in actors if todo and (task := todo.pop())}
    while running:
        (finished,), _ = ray.wait(list(running), num_returns=1)
        actor, task = running.pop(finished)
        try:
            outcome = ray.get(finished)
        except ray.exceptions.RayError as error:
            reason = f'its worker died {attempts} times, or failed ({type(error).__name__})'
            write_broken(out, task, reason)
            outcome = Outcome(task, 'broken', reason=reason)
        yield outcome
        if todo:
            task = todo.pop()
            running[actor.run.remote(task)] = (actor, task)


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A csv row for each sentence: video, text, status, score, frames, seconds, folder, reason."""
    with path.open('w', newline='', encoding='utf-8') as stream:
        writer = csv.writer(stream)
        writer.writerow(['video', 'text', 'status', 'score', 'frames', 'seconds', 'folder', 'reason'])
        for outcome in outcomes:
            scores: Sequence[float | str] = outcome.scores or [''] * len(outcome.task.texts)
            for text, score in zip(outcome.task.texts, scores, strict=True):
                writer.writerow(
                    [
                        outcome.task.video,
                        text,
                        outcome.status,
                        score,
                        outcome.frames,
                        f'{outcome.seconds:.2f}',
                        outcome.task.folder,
                        outcome.reason,
                    ]
                )
