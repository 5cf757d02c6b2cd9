"""Checks a submission for everything that an evaluation server would reject, and lists all faults.

    python tools/analysis_tools/validate_submission.py submission.zip --layout ref-youtube-vos \\
        --expressions data/ref-youtube-vos/meta_expressions/valid/meta_expressions.json \\
        --exclude data/ref-youtube-vos/meta_expressions/test/meta_expressions.json \\
        --images data/ref-youtube-vos/valid/JPEGImages

Expected is exactly <video>/<exp_id>/<frame>.png for every sentence and every frame of the expressions file, below
Annotations/ for ref-youtube-vos and at the top for mevis; 8-bit images with one channel and the values 0 and 255, of
the size of the frames (--images; without it, all images of a video must have the same size). The valid file of
Ref-YouTube-VOS lists valid and test videos together: give the test file with --exclude or, if it is not available, use
--only-images. The exit status is 1 if there is a fault.
"""

import argparse
import io
import sys
import zipfile
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc

import numpy as np
from PIL import Image

from mmsoc.evaluation.submission import LAYOUTS
from mmsoc.utils.errors import UserError, user_errors
from mmsoc.utils.files import load_json


def expected_videos(args: argparse.Namespace) -> dict[str, dict]:
    """The videos that the submission should hold: ``{video: dict(expressions=..., frames=...)}``.

    Raises:
        FileNotFoundError, ValueError: a file or folder is missing or invalid.
    """
    videos = _videos(args.expressions, '--expressions')
    for video, record in videos.items():
        for key, kind in (('expressions', dict), ('frames', list)):
            if not isinstance(record, dict) or not isinstance(record.get(key), kind):
                raise UserError(f'--expressions {args.expressions}, video {video}: expected {key!r}, a {kind.__name__}')
    if args.exclude is not None:
        excluded = _videos(args.exclude, '--exclude')
        videos = {video: record for video, record in videos.items() if video not in excluded}
    if args.images is not None and not Path(args.images).is_dir():
        raise FileNotFoundError(f'--images: there is no folder {args.images}')
    if args.only_images:
        videos = {video: record for video, record in videos.items() if (Path(args.images) / video).is_dir()}
    if not videos:
        raise UserError(f'no video is left of those in {args.expressions}')
    return videos


def _videos(path: str, option: str) -> dict[str, dict]:
    content = load_json(path, option)
    if not isinstance(content, dict) or not isinstance(content.get('videos'), dict):
        raise UserError(f"{option} {path}: expected an object with the key 'videos'")
    return content['videos']


def frame_sizes(folder: Path, frames: list[str]) -> dict[str, tuple[int, int]]:
    """Width and height of each frame.

    Raises:
        FileNotFoundError: a frame is missing.
    """
    sizes = {}
    for frame in frames:
        try:
            with Image.open(folder / f'{frame}.jpg') as image:
                sizes[frame] = image.size
        except FileNotFoundError:
            raise FileNotFoundError(
                f'--images: {folder / f"{frame}.jpg"} is missing, which the expressions list'
            ) from None
    return sizes


def image_faults(data: bytes, size: tuple[int, int] | None) -> tuple[list[str], tuple[int, int] | None]:
    """The faults of a PNG, and its size (None if it cannot be read)."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode, found = image.format, image.mode, image.size
            pixels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        return [f'cannot be read as an image ({error})'], None
    faults = []
    if kind != 'PNG':
        faults.append(f'expected a PNG, found {kind}')
    if mode != 'L':
        faults.append(f'expected 8 bits and one channel (mode L), found mode {mode}')
    else:
        others = sorted(set(np.flatnonzero(np.bincount(pixels.ravel())).tolist()) - {0, 255})
        if others:
            faults.append(f'expected the values 0 and 255, found also {others[:5]}{", ..." if len(others) > 5 else ""}')
    if size is not None and found != size:
        faults.append(f'expected {size[0]}x{size[1]}, found {found[0]}x{found[1]}')
    return faults, found


def find_faults(args: argparse.Namespace) -> tuple[list[str], str]:
    """All faults, one line each, and a summary of the checked files."""
    videos = expected_videos(args)
    top = LAYOUTS[args.layout]
    expected = {
        f'{top}{video}/{exp_id}/{frame}.png': (video, frame)
        for video, record in videos.items()
        for exp_id in record['expressions']
        for frame in record['frames']
    }
    try:
        archive = zipfile.ZipFile(args.submission)
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no file {args.submission}') from None
    except (zipfile.BadZipFile, IsADirectoryError) as error:
        return [f'{args.submission} is no zip archive ({error})'], ''
    faults = []
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        names = [entry.filename for entry in entries]
        counts = Counter(names)
        present = set(names)
        if top and present and not any(name.startswith(top) for name in present):
            faults.append(f'the top folder {top} is missing: the archive begins with {_top(names[0])}')
        elif (
            not top and present and all('/' in name for name in present) and len({_top(name) for name in present}) == 1
        ):
            only = _top(names[0])
            if only.rstrip('/') not in videos:
                faults.append(f'there should be no top folder, but everything lies in {only}')
        faults += [f'{name}: {count} times in the archive' for name, count in sorted(counts.items()) if count > 1]
        faults += [f'{name}: not expected' for name in sorted(present - expected.keys())]
        faults += [f'{name}: missing' for name in sorted(expected.keys() - present)]
        sizes: dict[str, dict[str, tuple[int, int]]] = {}
        first: dict[str, tuple[int, int]] = {}
        for name in sorted(present & expected.keys()):
            video, frame = expected[name]
            if args.images is not None and video not in sizes:
                sizes[video] = frame_sizes(Path(args.images) / video, videos[video]['frames'])
            size = sizes[video][frame] if args.images is not None else first.get(video)
            try:
                data = archive.read(name)
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
                faults.append(f'{name}: cannot be unpacked ({error})')
                continue
            found_faults, found = image_faults(data, size)
            faults += [f'{name}: {fault}' for fault in found_faults]
            if found is not None:
                first.setdefault(video, found)
    num_sentences = sum(len(record['expressions']) for record in videos.values())
    return faults, (
        f'{len(entries)} files; expected {len(expected)} masks of {num_sentences} sentences and {len(videos)} videos'
        + ('' if args.images is not None else '; sizes were compared within each video only (no --images)')
    )


def _top(name: str) -> str:
    return name.partition('/')[0] + ('/' if '/' in name else '')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('submission', metavar='ZIP')
    parser.add_argument('--expressions', required=True, metavar='JSON', help='meta_expressions.json of the split')
    parser.add_argument('--layout', required=True, choices=sorted(LAYOUTS))
    parser.add_argument('--exclude', metavar='JSON', help='expressions of videos that are not part of the split')
    parser.add_argument('--images', metavar='DIR', help='folder with <video>/<frame>.jpg, for the sizes')
    parser.add_argument(
        '--only-images', action='store_true', help='expect only the videos that have a folder in --images'
    )
    args = parser.parse_args()
    if args.only_images and args.images is None:
        parser.error('--only-images needs --images')
    return args


def main() -> None:
    args = parse_args()
    with user_errors():
        faults, summary = find_faults(args)
    print('\n'.join([*faults, summary] if summary else faults))
    if faults:
        raise SystemExit(f'{len(faults)} faults: {args.submission} would be rejected')
    print(f'{args.submission} is complete')


if __name__ == '__main__':
    main()
