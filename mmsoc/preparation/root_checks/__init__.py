"""Lists all faults of a prepared data root, for users who have just unpacked one.

The data sets themselves stop at the first fault, and detect some only when a sample is loaded. `examine` checks every
file and returns all faults. ``tools/dataset_converters/check_data_root.py`` prints it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .actors import check_a2d_sentences, check_jhmdb_sentences
from .check import KINDS, LEVELS, Finding, RootCheck
from .refcoco import check_refcoco
from .report import print_report
from .videos import check_mevis, check_ref_davis17, check_ref_youtube_vos

CHECKS: dict[str, Callable[[RootCheck], None]] = {
    'ref-youtube-vos': check_ref_youtube_vos,
    'ref-davis17': check_ref_davis17,
    'a2d-sentences': check_a2d_sentences,
    'jhmdb-sentences': check_jhmdb_sentences,
    'refcoco': check_refcoco,
    'mevis': check_mevis,
}


def examine(dataset: str, root: str | Path, **options: Any) -> RootCheck:
    """Checks a data root.

    Args:
        dataset: a key of ``CHECKS``.
        root: the ``data_root`` of the configs.
        options: those of `RootCheck`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    check = RootCheck(Path(root), **options)
    if not check.root.is_dir():
        raise FileNotFoundError(f'there is no folder {root} (looked in {os.getcwd()})')
    check.archives()
    CHECKS[dataset](check)
    return check


__all__ = ['CHECKS', 'KINDS', 'LEVELS', 'Finding', 'RootCheck', 'examine', 'print_report']
