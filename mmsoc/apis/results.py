"""The folder of results."""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from logging import WARNING
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from mmengine.logging import print_log

import mmsoc
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import listed

MASKS, VIDEO, OVERLAY_IMAGE, SCORES = 'masks', 'overlay.mp4', 'overlay.png', 'scores.json'
FORMAT_FILES: dict[str, tuple[str, ...]] = {
    'png': (MASKS,),
    'davis': ('davis',),
    'coco': ('coco.json',),
    'ytvis': ('ytvis.json',),
    'cvat': ('cvat.xml',),
    'label-studio': ('label_studio.json', 'label_studio.xml'),
    'matte': ('matte',),
}
"""files and folders of each format of masks (`mmsoc.apis.exports`)"""
# What runs write, apart from hidden folders.
RESULTS = (VIDEO, OVERLAY_IMAGE, SCORES, *(file for files in FORMAT_FILES.values() for file in files))
DEFAULT_FPS = 6
"""frame rate of videos made of frames without one; that of the data sets' annotated frames"""

# Hidden folders beside the results, with a suffix per run; see `_Replacement`.
PARTIAL, NEW, EARLIER, REPLACED = '.mmsoc-partial-', '.mmsoc-new-', '.mmsoc-earlier-', '.mmsoc-replaced-'


def check_out_dir(out_dir: str | Path, overwrite: bool) -> None:
    """Checks that results may be written there, after completing what a killed run began (see `ResultFolder`).

    Raises:
        UserError: it is a file, is not empty (without ``overwrite``), or holds anything but earlier results (with
            ``overwrite``: a mistyped name must not delete a folder).
    """
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise UserError(f'the output folder {out} is a file')
    if not out.exists():
        return
    _complete_interrupted(out)
    # Hidden: incomplete results of a killed run, and what file managers write.
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith('.'))
    if not found:
        return
    if not overwrite:
        raise UserError(
            f'the output folder {out} is not empty: it holds {listed(found, 5)}; name another one, or set `overwrite` '
            '(--overwrite) to replace earlier results'
        )
    if SCORES not in found:
        raise UserError(
            f'the output folder {out} does not hold earlier results (it has no {SCORES}, but {listed(found, 5)}), and is not '
            'overwritten; name another one'
        )


class ResultFolder:
    """Results appear in ``out_dir`` when the ``with`` block ends without an error, all of them or none::

        with ResultFolder('out', overwrite=False) as folder:  # a temporary folder
            (folder / 'scores.json').write_text(...)

    They replace earlier results; other files stay. After an exception, either all earlier results are in place,
    unchanged, or all new ones are.

    A process that is killed (SIGKILL, a power cut) cannot tidy up. Before the block ends, the earlier results are untouched and
    the new ones incomplete in ``out_dir/.mmsoc-partial-*``; the next run warns of that folder. While results are replaced, both are
    complete: a new file is in ``.mmsoc-new-*`` or in its place, an earlier one in its place or in ``.mmsoc-earlier-*``
    (``.mmsoc-replaced-*`` once all are there); the next run puts the new ones in place before it does anything else.

    Only one process at a time may write to a folder.

    Raises:
        UserError: as `check_out_dir`.
    """

    def __init__(self, out_dir: str | Path, overwrite: bool = False) -> None:
        check_out_dir(out_dir, overwrite)
        self.path = Path(out_dir)

    def __enter__(self) -> Path:
        self._made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        left = sorted(map(str, self.path.glob(f'{PARTIAL}*')))
        if left:
            print_log(
                f'{self.path}: incomplete results of a run that was killed: {listed(left)}; delete them',
                logger='current',
                level=WARNING,
            )
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.path))
        self._replacement = _Replacement(self.path, partial.name.removeprefix(PARTIAL))
        return partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._replacement.run()
        finally:
            self._replacement.tidy_up()
            if self._made and not any(self.path.iterdir()):
                self.path.rmdir()


class _Replacement:
    """The renames within ``out`` that replace earlier results by new ones. The names alone tell how far they got:

    1. ``partial`` becomes ``new``: the new results are complete.
    2. Earlier results move to ``earlier``, which becomes ``replaced`` when all are there.
    3. The new ones move out of ``new``. It is removed once empty, which commits the new results.
    4. ``replaced`` is removed.
    """

    def __init__(self, out: Path, token: str) -> None:
        self.out = out
        self.partial, self.new, self.earlier, self.replaced = (
            out / f'{prefix}{token}' for prefix in (PARTIAL, NEW, EARLIER, REPLACED)
        )
        self._moves: list[tuple[Path, Path]] = []

    def run(self) -> None:
        """Replaces the results, or raises and puts the earlier ones back."""
        try:
            self._move(self.partial, self.new)
            self.go_on()
        except BaseException:
            if self.new.exists():
                self._undo()
            raise

    def go_on(self) -> None:
        """Steps 2 and 3, resumed where they were interrupted."""
        if not self.replaced.exists():
            self.earlier.mkdir(exist_ok=True)
            for name in sorted({*RESULTS, *(path.name for path in self.new.iterdir())}):
                if os.path.lexists(self.out / name):
                    self._move(self.out / name, self.earlier / name)
            self._move(self.earlier, self.replaced)
        for path in sorted(self.new.iterdir()):
            self._move(path, self.out / path.name)
        self.new.rmdir()

    def tidy_up(self) -> None:
        """Removes what is no longer needed: nothing while both sets of results are."""
        if self.new.exists():
            return
        for folder in (self.partial, self.replaced):
            shutil.rmtree(folder, ignore_errors=True)
        if self.earlier.exists():
            self.earlier.rmdir()

    def _move(self, source: Path, target: Path) -> None:
        self._moves.append((source, target))  # recorded first: an interrupt may follow the rename
        source.replace(target)

    def _undo(self) -> None:
        for source, target in reversed(self._moves):
            if not os.path.lexists(source):  # otherwise this is the move that failed
                target.replace(source)


def _complete_interrupted(out: Path) -> None:
    """Puts in place the results of a run that was killed while replacing earlier ones."""
    for new in sorted(out.glob(f'{NEW}*')):
        replacement = _Replacement(out, new.name.removeprefix(NEW))
        replacement.go_on()
        replacement.tidy_up()
        print_log(
            f'{out}: a run was killed while it replaced earlier results; its results are in place now',
            logger='current',
            level=WARNING,
        )
    for replaced in sorted(out.glob(f'{REPLACED}*')):
        _Replacement(out, replaced.name.removeprefix(REPLACED)).tidy_up()


def mask_folders(texts: Sequence[str]) -> list[str]:
    """Unique folder names: the sentence's number, from 0, and its words."""
    digits = len(str(len(texts) - 1))
    slugs = ('-'.join(re.findall(r'\w+', text.lower()))[:50].strip('-_') for text in texts)
    return [f'{index:0{digits}d}_{slug}'.rstrip('_') for index, slug in enumerate(slugs)]


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a bool (H, W) as an 8-bit grey PNG of 0 and 255."""
    # Fast rather than small: masks compress well at any level.
    done, content = cv2.imencode('.png', mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError(f'{path}: the mask of {mask.shape[1]}x{mask.shape[0]} cannot be encoded as PNG')
    path.write_bytes(content.tobytes())


def versions() -> dict[str, str]:
    """Versions of this package and of the packages that determine its results."""
    names = (*mmsoc.dependencies(), 'transformers', 'av', 'numpy')
    return dict(
        mmsoc=mmsoc.__version__, python=platform.python_version(), **{name: metadata.version(name) for name in names}
    )
