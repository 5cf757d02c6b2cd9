"""Scans of many files: one process reads them, keeps the result in a JSON file and shares it with the others."""

import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from torch.utils.data import get_worker_info

from mmsoc.utils.files import dump_json, load_json

T = TypeVar('T')
ShownIds = dict[str, dict[str, list[int]]]
"""``{video: {frame: ids}}``"""

_FORMAT = 1
_BEAT = 10.0
"""seconds between two heartbeats; far below any timeout of a process group"""


class ScannedFiles(NamedTuple):
    """A kind of file with numbered content: masks with objects, annotations with instances."""

    name: str
    """name of the cache file: ``<name>_<hash of the folder>.json``"""
    what: str
    """the files, for a message"""
    shown: str
    """what they show, for a message"""
    suffix: str
    read: Callable[[str, str], list[int]]
    """reads the ids in one file, given its path and what it belongs to (for errors)"""


def scan_ids(
    kind: ScannedFiles, root: str, videos: Mapping[str, Sequence[str]], cache_dir: str | None = None
) -> ShownIds:
    """The ids that each file of the given videos shows.

    The result is cached in ``<kind.name>_<hash of root>.json`` in ``cache_dir``, else beside ``root``, else (if that is
    not writable) in the user's cache folder. Each video has a fingerprint of its files' names, sizes and modification
    times, so a changed video is read again. With several processes the first one reads while the others wait
    (`on_main_process`).

    Args:
        root: folder that holds ``<video>/<frame><kind.suffix>``.
        videos: frame names per video.
        cache_dir: folder for the cache.

    Returns:
        ``{video: {frame: ids}}``.

    Raises:
        FileNotFoundError: a file is missing.
        Exception: whatever ``kind.read`` raises, in every process.
    """
    return on_main_process(lambda: _load_or_scan(kind, root, videos, cache_dir))


class _Outcome(NamedTuple):
    result: Any = None
    error: BaseException | None = None


def on_main_process(work: Callable[[], T]) -> T:
    """Runs ``work`` in the first process only; every process returns or raises its outcome.

    A collective that waits longer than the process group's timeout aborts the run. The first process therefore sends
    the others a heartbeat every few seconds, so ``work`` may take any time.

    Args:
        work: runs in a separate thread if there are several processes, so it must use neither the GPU nor the process
            group. Its result must be picklable.

    Raises:
        Exception: whatever ``work`` raises, in every process; if it cannot be pickled, the others raise a RuntimeError
            with its text.
    """
    # A data loader's worker of a distributed run is not in the process group and must not wait for it.
    if not is_distributed() or get_worker_info() is not None:
        return work()
    if not is_main_process():
        outcome = _await_outcome()
        if outcome.error is not None:
            raise outcome.error
        return outcome.result
    with ThreadPoolExecutor(max_workers=1) as thread:
        future = thread.submit(work)
        while not wait([future], timeout=_BEAT).done:
            broadcast_object_list([None])
    broadcast_object_list([_outcome_of(future)])
    return future.result()


def _await_outcome() -> _Outcome:
    received: list[_Outcome | None] = [None]
    while received[0] is None:
        broadcast_object_list(received)
    return received[0]


def _outcome_of(future: Future) -> _Outcome:
    """The outcome sent to the other processes; any failure must reach them."""
    error = future.exception()
    if error is None:
        return _Outcome(result=future.result())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f'{type(error).__name__}: {error}')
    return _Outcome(error=error)


def _load_or_scan(
    kind: ScannedFiles, root: str, videos: Mapping[str, Sequence[str]], cache_dir: str | None
) -> ShownIds:
    logger = MMLogger.get_current_instance()
    places = _cache_places(kind, root, cache_dir)
    kept = _load_cache(places)
    prints = {video: _fingerprint(kind, root, video, frames) for video, frames in videos.items()}
    stale = [video for video in videos if kept.get(video, {}).get('fingerprint') != prints[video]]
    if stale:
        logger.info(
            f'reading the {kind.what} of {len(stale)} of {len(videos)} videos in {root} to see which {kind.shown} they show'
        )
        with ThreadPoolExecutor() as pool:
            scans = pool.map(lambda video: _scan_video(kind, root, video, videos[video]), stale)
            found = list(track(scans, description=kind.what, total=len(stale), console=Console(stderr=True)))
        kept.update({video: dict(fingerprint=prints[video], frames=frames) for video, frames in zip(stale, found)})
        _save_cache(kind, kept, places)
    return {video: kept[video]['frames'] for video in videos}


def _cache_places(kind: ScannedFiles, root: str, cache_dir: str | None) -> list[Path]:
    name = f'{kind.name}_{hashlib.sha256(os.path.abspath(root).encode()).hexdigest()[:12]}.json'
    if cache_dir is not None:
        return [Path(cache_dir) / name]
    user_cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return [Path(root).parent / name, user_cache / 'mmsoc' / name]


def _load_cache(places: Sequence[Path]) -> dict:
    for place in places:
        if not place.is_file():
            continue
        try:
            content = load_json(place, 'results of an earlier scan')
            if content['format'] == _FORMAT:
                return content['videos']
            reason = f'it has format {content["format"]}, expected {_FORMAT}'
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error)
        MMLogger.get_current_instance().warning(f'{place} is not used: {reason}')
    return {}


def _save_cache(kind: ScannedFiles, kept: dict, places: Sequence[Path]) -> None:
    logger = MMLogger.get_current_instance()
    for place in places:
        try:
            dump_json(dict(format=_FORMAT, videos=kept), place)
        except OSError as error:
            logger.warning(f'{place} cannot be written: {error}')
            continue
        logger.info(f'kept in {place}')
        return
    logger.warning(
        f'the {kind.what} will be read again at the next start; set cache_dir of the data set to a writable folder'
    )


def _fingerprint(kind: ScannedFiles, root: str, video: str, frames: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        path = os.path.join(root, video, frame + kind.suffix)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise FileNotFoundError(f'{path} is missing (video {video})') from None
        digest.update(f'{frame} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


def _scan_video(kind: ScannedFiles, root: str, video: str, frames: Sequence[str]) -> dict[str, list[int]]:
    return {frame: kind.read(os.path.join(root, video, frame + kind.suffix), f'video {video}') for frame in frames}
