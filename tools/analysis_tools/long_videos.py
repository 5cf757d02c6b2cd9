"""Compares ways to predict videos longer than the training clips, on MovingShapes by family.

    python tools/dataset_converters/moving_shapes.py --out data/long --train-videos 4 --valid-videos 160 --num-frames 96 \\
        --event-frames 24
    python tools/analysis_tools/long_videos.py configs/soc/soc_tiny_moving-shapes_videos.py CHECKPOINT --data data/long

``whole``: all frames at once, as in ``tools/test.py``. ``stream``: in chunks, with one query chosen for the whole video
(`StreamPredictor`, as in ``tools/infer.py``). ``frame``: as ``stream``, with a query chosen for each frame (the
selector `QueryPerFrame`). ``windows``: independent windows, each with its own query (``test_cfg.frames_per_clip``), a
common approach. ``carried``: windows in which the cluster's video queries are initialized with those of the previous
window. ``live``: causally, one chunk of ``--live-frames`` after the other (`LivePredictor`), with a memory of 96
frames; ``live-thinned`` and ``live-recent``: with one of 24 (`ThinnedFrames`, `RecentFrames`); ``live-frame``: with a
query chosen for each frame. For comparison: the perfect mask of a random object.

``--cluster-every 1 2 4 8`` adds ``whole`` with a cluster that sees only every first, second, ... frame of these videos,
while all frames are predicted. This shows the cost of clustering more frames than in training, on the same videos.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.append(str(Path(__file__).resolve().parents[2]))  # lets a checkout run without installing mmsoc
sys.path.append(str(Path(__file__).resolve().parent))

import torch
from mmdet.structures import TrackDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from moving_shapes_baselines import baselines
from rich.progress import track
from torch import Tensor, nn

from mmsoc.evaluation import JFMetric, mean_jf, subsets
from mmsoc.inference import (
    FrameMemory,
    LivePredictor,
    PredictionConfig,
    QueryPerFrame,
    QueryPerVideo,
    QuerySelector,
    RecentFrames,
    StreamPredictor,
    ThinnedFrames,
    predict_clips,
)
from mmsoc.models import SOC
from mmsoc.registry import DATASETS, MODELS
from mmsoc.utils.errors import user_errors
from mmsoc.utils.files import dump_json, load_json
from mmsoc.weights import register_loader

Predictor = TypeVar('Predictor', StreamPredictor, LivePredictor)
MODES = ('whole', 'stream', 'frame', 'windows', 'carried', 'live', 'live-thinned', 'live-recent', 'live-frame')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--data', required=True, metavar='ROOT', help='a MovingShapes set; its valid split is predicted'
    )
    parser.add_argument('--modes', nargs='*', choices=MODES, default=MODES, help='default: all')
    parser.add_argument(
        '--cluster-every',
        nargs='+',
        type=int,
        default=[],
        metavar='K',
        help='whole, with a cluster that sees every K-th frame',
    )
    parser.add_argument('--families', nargs='+', default=['change'], help='families of the videos (default: change)')
    parser.add_argument(
        '--window', type=int, default=24, help='frames of the modes windows and carried (default: %(default)s)'
    )
    parser.add_argument('--chunk-frames', type=int, default=24, help='of stream (default: %(default)s)')
    parser.add_argument('--overlap', type=int, default=8, help='of stream (default: %(default)s)')
    parser.add_argument('--live-frames', type=int, default=8, help='frames of a live chunk (default: %(default)s)')
    parser.add_argument('--out', metavar='FILE', help='JSON file for the table')
    args = parser.parse_args()
    if min(args.cluster_every, default=1) < 1:
        parser.error(f'--cluster-every: expected numbers of at least 1, found {args.cluster_every}')
    return args


class CarryingCluster(nn.Module):
    """A cluster whose video queries are initialized with those of the previous call; ``carried = None`` resets them."""

    def __init__(self, cluster: nn.Module) -> None:
        super().__init__()
        self.cluster = cluster
        self.enrich = cluster.enrich
        self.carried: Tensor | None = None

    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        self.carried = self.cluster(queries, sentence, start=self.carried)
        return self.carried


class ThinnedCluster(nn.Module):
    """A cluster that sees only every ``every``-th frame; its video queries go to all frames."""

    def __init__(self, cluster: nn.Module, every: int) -> None:
        super().__init__()
        self.cluster = cluster
        self.every = every
        self.enrich = cluster.enrich

    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        return self.cluster(queries[:, :: self.every], sentence)


@contextmanager
def cluster(model: SOC, other: nn.Module) -> Iterator[None]:
    """Replaces the cluster within the ``with`` block."""
    before, model.sim.cluster = model.sim.cluster, other
    try:
        yield
    finally:
        model.sim.cluster = before


def predict(model: SOC, sample: dict, config: PredictionConfig) -> TrackDataSample:
    batch = model.data_preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
    return predict_clips(model, batch['inputs'], batch['data_samples'], config)[0]


def stream(model: SOC, sample: dict, chunk_frames: int, overlap: int, selector: QuerySelector) -> TrackDataSample:
    with chunked(StreamPredictor, model, sample, chunk_frames, overlap, selector=selector) as predictor:
        predictor.feed(sample['inputs'])
        scores = predictor.finish()
        masks = torch.cat(list(predictor.masks()), 1)
    return with_predictions(sample, masks, scores.scores)


def live(
    model: SOC, sample: dict, chunk_frames: int, overlap: int, **slots: QuerySelector | FrameMemory
) -> TrackDataSample:
    predictor = chunked(LivePredictor, model, sample, chunk_frames, overlap, **slots)
    chunks = [*predictor.feed(sample['inputs']), *predictor.finish()]
    masks, scores = (torch.cat(parts, 1) for parts in zip(*((chunk.masks, chunk.frame_scores) for chunk in chunks)))
    return with_predictions(sample, masks, scores.mean(1))


def chunked(
    kind: type[Predictor],
    model: SOC,
    sample: dict,
    chunk_frames: int,
    overlap: int,
    **slots: QuerySelector | FrameMemory,
) -> Predictor:
    """A predictor of the sample's sentences."""
    return kind(
        model,
        sample['data_samples'].texts,
        frame_size=tuple(sample['inputs'].shape[-2:]),
        ori_shape=sample['data_samples'][0].ori_shape,
        chunk_frames=chunk_frames,
        overlap=overlap,
        config=replace(model.test_cfg, frames_per_clip=None, **slots),
    )


def with_predictions(sample: dict, masks: Tensor, scores: Tensor) -> TrackDataSample:
    """
    Args:
        masks: bool (E, T, H, W).
        scores: (E,).
    """
    found = sample['data_samples']
    found.set_data(dict(pred_masks=[encode_mask_results(of_text.numpy()) for of_text in masks], pred_scores=scores))
    return found


def carry(model: SOC, sample: dict, window: int) -> TrackDataSample:
    # All sentences at once, so that each call of the cluster is the next window's.
    frames_per_pass = window * len(sample['data_samples'].texts)
    config = replace(model.test_cfg, frames_per_clip=window, frames_per_pass=frames_per_pass)
    with cluster(model, CarryingCluster(model.sim.cluster)):
        return predict(model, sample, config)


def thin(model: SOC, sample: dict, every: int) -> TrackDataSample:
    with cluster(model, ThinnedCluster(model.sim.cluster, every)):
        return predict(model, sample, replace(model.test_cfg, frames_per_clip=None))


def rows_of(
    way: Callable[[dict], TrackDataSample], name: str, dataset: Sequence[dict], indices: Sequence[int]
) -> list[dict]:
    metric = JFMetric()
    return [
        row
        for index in track(indices, description=name)
        for row in metric.score_video(way(dataset[index]).to_dict())['rows']
    ]


def by_family(rows: list[dict]) -> dict[str, float]:
    groups = {name: group for name, group in subsets(rows).items() if name != 'held_out'}
    return {name: round(100 * mean_jf(group)['J&F'], 2) for name, group in groups.items()}


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).to(get_device()).eval()
    register_loader()
    load_checkpoint(model, args.checkpoint, map_location='cpu', strict=True)
    model.test_cfg = replace(model.test_cfg, selector=QueryPerVideo())  # the paper's, but where a mode names another
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': args.data, 'indices': None})
    expressions = load_json(Path(args.data) / 'meta_expressions/valid/meta_expressions.json', 'expressions')['videos']
    families = {name: next(iter(video['expressions'].values()))['family'] for name, video in expressions.items()}
    indices = [i for i in range(len(dataset)) if families[dataset.get_data_info(i)['video_id']] in args.families]
    if not indices:
        raise SystemExit(f'{args.data}: no video of the families {args.families}')
    whole, windows = (replace(model.test_cfg, frames_per_clip=frames) for frames in (None, args.window))
    ways = dict(
        whole=lambda sample: predict(model, sample, whole),
        stream=lambda sample: stream(model, sample, args.chunk_frames, args.overlap, QueryPerVideo()),
        frame=lambda sample: stream(model, sample, args.chunk_frames, args.overlap, QueryPerFrame()),
        windows=lambda sample: predict(model, sample, windows),
        carried=lambda sample: carry(model, sample, args.window),
    )
    causal = partial(live, model, chunk_frames=args.live_frames, overlap=args.overlap)
    ways |= {
        'live': partial(causal, selector=QueryPerVideo(), memory=ThinnedFrames()),
        'live-thinned': partial(causal, selector=QueryPerVideo(), memory=ThinnedFrames(24)),
        'live-recent': partial(causal, selector=QueryPerVideo(), memory=RecentFrames(24)),
        'live-frame': partial(causal, selector=QueryPerFrame(), memory=ThinnedFrames()),
    }
    chosen = {mode: ways[mode] for mode in args.modes}
    for every in args.cluster_every:
        chosen[f'whole, cluster fed 1 frame of {every}'] = partial(thin, model, every=every)
    table = {name: by_family(rows_of(way, name, dataset, indices)) for name, way in chosen.items()}
    videos = [dataset.get_data_info(i)['video_id'] for i in indices]
    table['random object'] = baselines(args.data, videos)['random_object']
    print(f'J&F of {len(indices)} videos of {len(expressions[videos[0]]["frames"])} frames')
    print('| | ' + ' | '.join(args.families) + ' |\n|---|' + '---:|' * len(args.families))
    for mode, values in table.items():
        print(f'| {mode} | ' + ' | '.join(f'{values[family]:.1f}' for family in args.families) + ' |')
    if args.out:
        dump_json(
            dict(table=table, window=args.window, chunk_frames=args.chunk_frames, overlap=args.overlap),
            args.out,
            indent=1,
        )


if __name__ == '__main__':
    main()
