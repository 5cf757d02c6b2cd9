"""Writes twins, each atomically."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from mmsoc.preparation.folders import atomic_folder, locked, restore
from mmsoc.preparation.moving_shapes import Settings
from mmsoc.preparation.moving_shapes.writer import VERSION as GENERATOR_VERSION
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, load_json

from .a2d_sentences import write_a2d_sentences
from .jhmdb_sentences import write_jhmdb_sentences
from .mevis import write_mevis
from .ref_davis17 import write_ref_davis17
from .ref_youtube_vos import write_ref_youtube_vos
from .refcoco import write_refcoco
from .source import Source

VERSION = 1  # increase when the same parameters give another twin
MANIFEST = 'moving_shapes_twin.json'

LAYOUTS: dict[str, tuple[str, Callable[[Path, Source], dict[str, int]]]] = {  # folder below the root, writer
    'ref-youtube-vos': ('ref-youtube-vos', write_ref_youtube_vos),
    'ref-davis17': ('ref-davis', write_ref_davis17),
    'a2d-sentences': ('a2d_sentences', write_a2d_sentences),
    'jhmdb-sentences': ('jhmdb_sentences', write_jhmdb_sentences),
    'refcoco': ('coco', write_refcoco),
    'mevis': ('mevis', write_mevis),
}


def is_there(folder: Path, expected: dict, overwrite: bool) -> bool:
    """Whether the twin exists with the same parameters.

    Raises:
        UserError: it exists with other parameters and must not be overwritten, or the folder is not a twin.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f'{folder} exists and is no twin (it has no {MANIFEST}), so that it is not touched; name another --out'
        )
    found = load_json(folder / MANIFEST, MANIFEST)
    found = found if isinstance(found, dict) else {}
    differing = [
        f'{name} {found.get(name)!r} instead of {value!r}'
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if differing and not overwrite:
        raise UserError(f'{folder} holds a twin with other parameters: {", ".join(differing)}; --overwrite replaces it')
    return not differing


def write_twin(root: Path, layout: str, source: Source, overwrite: bool) -> tuple[Path, dict[str, int] | None]:
    """Writes a twin atomically, unless it exists; returns its folder, and its counts if it was written.

    It is written to a hidden folder beside the target, which is renamed at the end. Leftovers of a killed run are
    removed.

    Raises:
        UserError: as `is_there`, or another process is writing it.
    """
    name, write = LAYOUTS[layout]
    folder = root.absolute() / name
    parameters = dict(
        version=VERSION, generator=GENERATOR_VERSION, layout=layout, public=source.public, **asdict(source.settings)
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder, 'MovingShapes'):
        restore(folder)
        if is_there(folder, parameters, overwrite):
            return folder, None
        with atomic_folder(folder) as partial:
            counts = write(partial, source)
            dump_json(dict(parameters, counts=counts), partial / MANIFEST, indent=1)
    return folder, counts


def write_twins(
    root: str | Path,
    settings: Settings,
    layouts: Sequence[str] = tuple(LAYOUTS),
    *,
    public: bool = False,
    overwrite: bool = False,
) -> Iterator[str]:
    """Writes twins; yields a line about each when it is complete.

    Args:
        root: folder of the twins.
        settings: of the videos.
        layouts: keys of ``LAYOUTS``.
        public: Ref-YouTube-VOS valid in its public form, without masks and ``obj_id``.
        overwrite: replace twins that have other parameters.

    Raises:
        UserError: see `write_twin`.
    """
    source = Source(settings, public)
    for layout in layouts:
        start = time.monotonic()
        folder, counts = write_twin(Path(root), layout, source, overwrite)
        if counts is None:
            yield f'{folder}: there already, with the same parameters; nothing to do'
        else:
            numbers = ', '.join(f'{number} {name}' for name, number in counts.items())
            yield f'{folder}: written in {time.monotonic() - start:.1f} s: {numbers}'
