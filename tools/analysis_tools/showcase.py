"""The README's animation: what a model makes of the sample videos.

python tools/analysis_tools/showcase.py --weights soc-mini --out docs/images/soc-mini.gif
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed

import numpy as np
from PIL import Image

from mmsoc.engine.cli import require_weights
from mmsoc.preparation.moving_shapes.samples import FPS, sample_videos
from mmsoc.utils.errors import user_errors
from mmsoc.utils.files import atomic_path
from mmsoc.visualization import contact_sheet

WIDTH = 400  # of a video
COLORS = 96


@user_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', default='soc-mini', help='checkpoint or name (default: %(default)s)')
    parser.add_argument('--out', default='docs/images/soc-mini.gif', help='GIF (default: %(default)s)')
    args = parser.parse_args()
    require_weights(parser, args.weights, '--weights')
    from mmsoc.apis import SOCInferencer

    inferencer = SOCInferencer(weights=args.weights, show_progress=False)
    # The objects' own colors count here.
    inferencer.visualizer.alpha, inferencer.visualizer.contour = 0.15, 4
    inferencer.visualizer.colors = [(255, 0, 200), (255, 255, 255)]
    videos = [inferencer(sample.frames, sample.texts, return_vis=True)['visualization'] for sample in sample_videos()]
    sheets = []
    for frames in zip(*videos, strict=True):
        sheet = Image.fromarray(contact_sheet([*frames], ncols=2))
        size = (2 * WIDTH, round(sheet.height * 2 * WIDTH / sheet.width))
        sheets.append(sheet.resize(size, Image.Resampling.LANCZOS))
    palette = Image.fromarray(np.concatenate([np.asarray(sheet) for sheet in sheets[::4]])).quantize(COLORS)
    drawn = [sheet.quantize(palette=palette, dither=Image.Dither.NONE) for sheet in sheets]
    with atomic_path(Path(args.out)) as path:
        drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=1000 // FPS, loop=0, optimize=True)
    print(f'{args.out}: {Path(args.out).stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
