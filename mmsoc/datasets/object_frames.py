"""The objects that each mask shows."""

from collections.abc import Mapping, Sequence

from PIL import Image

from mmsoc.utils.files import read_ids

from .scanning import ScannedFiles, ShownIds, scan_ids


def object_frames(mask_root: str, videos: Mapping[str, Sequence[str]], cache_dir: str | None = None) -> ShownIds:
    """The object ids in every mask of the given videos; the result is cached (`scan_ids`).

    Args:
        mask_root: folder that holds ``<video>/<frame>.png``.
        videos: frame names per video id.
        cache_dir: folder for the cache; None: beside ``mask_root``, or in the user's cache folder.

    Returns:
        ``{video: {frame: [ids without 0]}}``.

    Raises:
        FileNotFoundError, ValueError: a mask is missing or unreadable (see `mmsoc.utils.files.read_ids`).
    """
    return scan_ids(_MASKS, mask_root, videos, cache_dir)


def _shown_ids(path: str, where: str) -> list[int]:
    counts = Image.fromarray(read_ids(path, where)).histogram()  # many times faster than np.unique, which sorts
    return [i for i, count in enumerate(counts) if count and i != 0]


_MASKS = ScannedFiles(name='object_frames', what='masks', shown='objects', suffix='.png', read=_shown_ids)
