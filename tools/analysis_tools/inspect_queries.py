"""Why did it choose that query? A picture for each sentence:

    python tools/analysis_tools/inspect_queries.py VIDEO --text "the star that moves" --weights soc-mini --out inspected

For every query, the best first: its score in each frame, its masks in some frames, how much its video query attends to each
frame in the cluster, and its similarity to the sentence's guidance (the softmax of the contrastive loss). The chosen query is
marked. In Python: `SOCInferencer.inspect` returns the numbers.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that a checkout works where mmsoc is not installed

import numpy as np
from PIL import Image

from mmsoc.engine.cli import add_model_arguments, check_model_arguments
from mmsoc.utils.errors import user_errors

THUMBNAILS = 6  # frames whose masks are shown


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='VIDEO_OR_FOLDER_OR_IMAGE')
    parser.add_argument('--text', action='append', required=True, metavar='SENTENCE', help='may be repeated')
    add_model_arguments(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the pictures')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--max-queries', type=int, default=10, metavar='N', help='show the N best (default: %(default)s)'
    )
    args = parser.parse_args()
    check_model_arguments(parser, args)
    if args.max_queries < 1:
        parser.error(f'--max-queries must be at least 1, found {args.max_queries}')
    return args


def draw(frames: Sequence[np.ndarray], text: str, found, max_queries: int, path: Path) -> None:
    """
    Args:
        frames: T images, uint8 (H, W, 3).
        found: an `mmsoc.inference.Inspection`.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    from mmsoc.utils.files import atomic_path

    num_frames = len(frames)
    mean = found.scores.mean(0)
    queries = mean.argsort(descending=True)[:max_queries].tolist()
    chosen = set(found.chosen.tolist())
    shown = np.unique(np.linspace(0, num_frames - 1, min(THUMBNAILS, num_frames)).round().astype(int))
    extras = [found.attention is not None, found.similarity is not None]
    columns = len(shown) + 1 + extras[0]
    height, width = frames[0].shape[:2]
    figure, axes = plt.subplots(
        len(queries),
        columns,
        figsize=(1.6 * columns, max(1.6 * height / width, 0.9) * len(queries) + 0.9),
        squeeze=False,
        layout='constrained',
    )
    for row, query in zip(axes, queries, strict=True):
        label = f'query {query}\nscore {mean[query]:.2f}'
        if extras[1]:
            label += f'\nsimilarity {found.similarity[query]:.2f}'
        color = 'tab:red' if query in chosen else 'black'
        row[0].set_ylabel(label, rotation=0, ha='right', va='center', fontsize=7, color=color)
        row[0].plot(found.scores[:, query], color=color, linewidth=1, marker='.', markersize=3)
        row[0].set(ylim=(0, 1), xticks=[], yticks=[0, 1])
        row[0].tick_params(labelsize=6)
        if extras[0]:
            row[1].bar(range(num_frames), found.attention[query], color=color)
            row[1].set(xticks=[], yticks=[], ylim=(0, max(2 / num_frames, float(found.attention.max()))))
        for axis, frame in zip(row[1 + extras[0] :], shown, strict=True):
            mask = np.asarray(
                Image.fromarray(found.masks[frame, query].numpy()).resize((width, height), Image.Resampling.NEAREST)
            )
            image = np.where(mask[..., None], frames[frame], (frames[frame] * 0.3).astype(np.uint8))
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                picked = int(found.chosen[frame]) == query
                spine.set(color='tab:red' if picked else 'none', linewidth=2)
    titles = ['score by frame', *(['attention to frames'] if extras[0] else []), *(f'frame {frame}' for frame in shown)]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    figure.suptitle(f'{text}\nred: the chosen query', fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, bbox_inches='tight')
    plt.close(figure)


@user_errors()
def main() -> None:
    args = parse_args()
    from mmsoc.apis import SOCInferencer
    from mmsoc.apis.results import mask_folders
    from mmsoc.apis.video_io import open_frames

    inferencer = SOCInferencer(
        args.config, args.weights, args.device, cfg_options=args.cfg_options, show_progress=False
    )
    source = open_frames(args.source)
    frames = list(source.read())
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    found = inferencer.inspect(source, args.text)
    for text, name, of_text in zip(args.text, mask_folders(args.text), found, strict=True):
        path = out / f'{name}.png'
        draw(frames, text, of_text, args.max_queries, path)
        print(path)


if __name__ == '__main__':
    main()
