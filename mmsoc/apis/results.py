"""The folder of results that a person gets."""

import platform
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

import mmsoc
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import listed

MASKS, VIDEO, PICTURE, SCORES = 'masks', 'overlay.mp4', 'overlay.png', 'scores.json'


def check_out_dir(out_dir: str | Path, overwrite: bool) -> None:
    """Checks that results may be written there.

    Raises:
        ValueError: it is a file, or holds something: without ``overwrite`` anything at all, else anything but earlier results
            (a mistyped name must not cost anybody a folder).
    """
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise UserError(f'the output folder {out} is a file')
    # Hidden: what a killed run left, and what file managers write.
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith('.')) if out.exists() else []
    if not found:
        return
    if not overwrite:
        raise UserError(
            f'the output folder {out} is not empty: it holds {listed(found, 5)}; name another one, or say `overwrite` '
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

    Earlier results are replaced then; other files stay.

    Raises:
        ValueError: as `check_out_dir`.
    """

    def __init__(self, out_dir: str | Path, overwrite: bool = False) -> None:
        check_out_dir(out_dir, overwrite)
        self.path = Path(out_dir)

    def __enter__(self) -> Path:
        self._made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(prefix='.partial-', dir=self.path))
        return self._partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for name in (MASKS, VIDEO, PICTURE, SCORES):
                    earlier = self.path / name
                    if earlier.is_dir():
                        shutil.rmtree(earlier)
                    else:
                        earlier.unlink(missing_ok=True)
                for path in self._partial.iterdir():
                    path.replace(self.path / path.name)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
            if error is not None and self._made and not any(self.path.iterdir()):
                self.path.rmdir()


def mask_folders(texts: Sequence[str]) -> list[str]:
    """Names for folders: the sentence's number, from 0, and its words; all different."""
    digits = len(str(len(texts) - 1))
    slugs = ('-'.join(re.findall(r'\w+', text.lower()))[:50].strip('-_') for text in texts)
    return [f'{index:0{digits}d}_{slug}'.rstrip('_') for index, slug in enumerate(slugs)]


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a bool (H, W) as an 8-bit grey PNG of 0 and 255."""
    # Fast rather than small: runs of equal pixels are short either way.
    done, content = cv2.imencode('.png', mask.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError(f'{path}: the mask of {mask.shape[1]}x{mask.shape[0]} cannot be encoded as PNG')
    path.write_bytes(content.tobytes())


def versions() -> dict[str, str]:
    """Of this package, and of what decides its results."""
    names = (*mmsoc.DEPENDENCIES, 'transformers', 'av', 'numpy')
    return dict(
        mmsoc=mmsoc.__version__, python=platform.python_version(), **{name: metadata.version(name) for name in names}
    )
