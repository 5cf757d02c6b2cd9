"""Which objects each mask shows: a scan of all mask PNGs of a data set, kept in a small JSON file."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.logging import MMLogger
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch.utils.data import get_worker_info

from mmsoc.utils.files import dump_json, load_json, read_ids

_FORMAT = 1
ObjectFrames = dict[str, dict[str, list[int]]]


def object_frames(mask_root: str, videos: Mapping[str, Sequence[str]], cache_dir: str | None = None) -> ObjectFrames:
    """The object ids in every mask of the given videos.

    The result is kept in ``object_frames_<hash of mask_root>.json`` in ``cache_dir``, else beside ``mask_root``, else
    (where that is not writable) in the user's cache folder. Each video is kept with a fingerprint of its frame list
    and of its masks' sizes and modification times, so a video that changed is read again. With several processes the
    first one reads and the others wait.

    Args:
        mask_root: folder that holds ``<video>/<frame>.png``.
        videos: frame names per video id.
        cache_dir: where to keep the result.

    Returns:
        ``{video: {frame: [ids without 0]}}``.

    Raises:
        FileNotFoundError, ValueError: a mask is missing or unreadable (see `mmsoc.utils.files.read_ids`).
    """
    # A loader's worker of a distributed run is no member of the group: it must not wait for the others.
    shared = is_distributed() and get_worker_info() is None
    result: list = [None]
    if is_main_process() or not shared:
        try:
            result = [_load_or_scan(mask_root, videos, cache_dir)]
        except Exception as error:  # handed on, so that every process stops with the same message
            result = [error]
    if shared:
        broadcast_object_list(result)
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _load_or_scan(mask_root: str, videos: Mapping[str, Sequence[str]], cache_dir: str | None) -> ObjectFrames:
    logger = MMLogger.get_current_instance()
    places = _cache_places(mask_root, cache_dir)
    kept = _load_cache(places)
    prints = {video: _fingerprint(mask_root, video, frames) for video, frames in videos.items()}
    stale = [video for video in videos if kept.get(video, {}).get('fingerprint') != prints[video]]
    if stale:
        logger.info(
            f'reading the masks of {len(stale)} of {len(videos)} videos in {mask_root} to see which objects they show'
        )
        with ThreadPoolExecutor() as pool:
            scans = pool.map(lambda video: _scan_video(mask_root, video, videos[video]), stale)
            found = list(track(scans, description='masks', total=len(stale), console=Console(stderr=True)))
        kept.update({video: dict(fingerprint=prints[video], frames=frames) for video, frames in zip(stale, found)})
        _save_cache(kept, places)
    return {video: kept[video]['frames'] for video in videos}


def _cache_places(mask_root: str, cache_dir: str | None) -> list[Path]:
    name = f'object_frames_{hashlib.sha256(os.path.abspath(mask_root).encode()).hexdigest()[:12]}.json'
    if cache_dir is not None:
        return [Path(cache_dir) / name]
    user_cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return [Path(mask_root).parent / name, user_cache / 'mmsoc' / name]


def _load_cache(places: Sequence[Path]) -> dict:
    for place in places:
        if not place.is_file():
            continue
        try:
            content = load_json(place, 'object frames')
            if content['format'] == _FORMAT:
                return content['videos']
            reason = f'it has format {content["format"]}, expected {_FORMAT}'
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error)
        MMLogger.get_current_instance().warning(f'{place} is not used: {reason}')
    return {}


def _save_cache(kept: dict, places: Sequence[Path]) -> None:
    logger = MMLogger.get_current_instance()
    for place in places:
        try:
            dump_json(dict(format=_FORMAT, videos=kept), place)
        except OSError as error:
            logger.warning(f'{place} cannot be written: {error}')
            continue
        logger.info(f'kept in {place}')
        return
    logger.warning('the masks will be read again at the next start; set cache_dir of the data set to a writable folder')


def _fingerprint(mask_root: str, video: str, frames: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        path = os.path.join(mask_root, video, f'{frame}.png')
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            raise FileNotFoundError(f'mask {path} is missing (video {video})') from None
        digest.update(f'{frame} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


def _scan_video(mask_root: str, video: str, frames: Sequence[str]) -> dict[str, list[int]]:
    found = {}
    for frame in frames:
        ids = read_ids(os.path.join(mask_root, video, f'{frame}.png'), f'video {video}')
        counts = Image.fromarray(ids).histogram()  # many times faster than np.unique, which sorts
        found[frame] = [i for i, count in enumerate(counts) if count and i != 0]
    return found
