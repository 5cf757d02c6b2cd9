"""Contact sheets of MovingShapes: some videos of each family, one per row, with the named object outlined.

    python tools/analysis_tools/moving_shapes_pictures.py --out docs/images

writes moving_shapes_{family}.png. Videos of the valid split are drawn from the seed alone; no generated set is needed.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmsoc.preparation.moving_shapes import FAMILIES, Settings, draw_video
from mmsoc.utils.errors import user_errors
from mmsoc.utils.files import atomic_path
from mmsoc.visualization import RVOSLocalVisualizer, add_caption, contact_sheet


def sheet(settings: Settings, family: str, rows: int, first: int, scale: int) -> np.ndarray:
    """uint8 (H, W, 3): ``rows`` videos of a family from the valid split, each frame enlarged, both sentences below."""
    visualizer = RVOSLocalVisualizer(colors=((255, 255, 255), (0, 0, 0)), alpha=0.0, contour=1)
    sheets = []
    for row in range(rows):
        scene, video = draw_video(settings, 'valid', (first + row) * len(FAMILIES) + FAMILIES.index(family))
        frames = []
        for t in range(settings.num_frames):
            frame = cv2.resize(video.frames[t], None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
            ids = cv2.resize(video.ids[t], None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
            for i, claim in enumerate(scene.expressions):
                frame = visualizer.draw_frame(frame, ids == scene.things.index(claim.target) + 1, index=i)
            frames.append(frame)
        sheet = contact_sheet(frames, ncols=len(frames))
        for i, claim in enumerate(scene.expressions):
            note = '  (held out)' if claim.held_out else ''
            sheet = add_caption(sheet, claim.text + note, visualizer.colors[i], font_size=14)
        sheets.append(sheet)
    return contact_sheet(sheets, ncols=1)


@user_errors()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default='docs/images', help='folder (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    parser.add_argument('--rows', type=int, default=4, help='videos per family (default: %(default)s)')
    parser.add_argument('--first', type=int, default=0, help='the first video of each family (default: %(default)s)')
    parser.add_argument('--scale', type=int, default=2, help='enlargement (default: %(default)s)')
    args = parser.parse_args()
    for family in FAMILIES:
        drawn = sheet(Settings(seed=args.seed), family, args.rows, args.first, args.scale)
        with atomic_path(Path(args.out) / f'moving_shapes_{family}.png') as path:
            # the grain would dominate the file size
            Image.fromarray(drawn & 0xF0 | 8).save(path, optimize=True)
        print(Path(args.out) / f'moving_shapes_{family}.png')


if __name__ == '__main__':
    main()
