"""Region similarity J and contour accuracy F, the measures of the DAVIS challenges."""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from mmsoc.datasets.io import dump_json, read_ids
from mmsoc.registry import METRICS


def region_similarity(gt: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two masks.

    Args:
        gt, pred: bool (H, W).
        void: bool (H, W), pixels that do not count.

    Returns:
        In 0..1; 1 if both masks are empty.
    """
    gt, pred = _without_void(gt, pred, void)
    union = np.count_nonzero(gt | pred)
    return np.count_nonzero(gt & pred) / union if union else 1.0


def boundary_f(gt: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None, bound_th: float = 0.008) -> float:
    """F: agreement of two masks' boundaries, the harmonic mean of precision and recall.

    A boundary pixel is matched if the other boundary has a pixel not farther away than the radius.

    Args:
        gt, pred: bool (H, W).
        void: bool (H, W), pixels that are taken out of both masks.
        bound_th: the radius in pixels if >= 1, else as a share of the frame's diagonal (rounded up).

    Returns:
        In 0..1; 1 if neither mask has a boundary (both empty, or both fill the frame).
    """
    gt, pred = _without_void(gt, pred, void)
    radius = math.ceil(bound_th if bound_th >= 1 else bound_th * math.hypot(*gt.shape))
    window = _window(gt | pred)
    gt_boundary, pred_boundary = boundary_map(gt[window]), boundary_map(pred[window])
    num_gt, num_pred = np.count_nonzero(gt_boundary), np.count_nonzero(pred_boundary)
    if num_gt == 0 and num_pred == 0:
        return 1.0
    if num_gt == 0 or num_pred == 0:
        return 0.0
    disk = _disk(radius)
    precision = np.count_nonzero(pred_boundary & cv2.dilate(gt_boundary, disk)) / num_pred
    recall = np.count_nonzero(gt_boundary & cv2.dilate(pred_boundary, disk)) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour; the frame's border is no boundary.

    Args:
        mask: bool (H, W).

    Returns:
        uint8 (H, W) of 0 and 1.
    """
    boundary = np.zeros(mask.shape, bool)
    boundary[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary.astype(np.uint8)


def _without_void(gt: np.ndarray, pred: np.ndarray, void: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    assert gt.ndim == 2 and gt.shape == pred.shape, (gt.shape, pred.shape)
    gt, pred = gt.astype(bool, copy=False), pred.astype(bool, copy=False)
    if void is None:
        return gt, pred
    valid: np.ndarray = ~void.astype(bool, copy=False)
    return gt & valid, pred & valid


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    # All boundary pixels lie in the masks' bounding box grown by one pixel. Only the pixels of one boundary ask for
    # those of the other, so nothing outside of this window can change F; where the window is smaller than the frame,
    # its border pixels are outside of both masks and behave as they do in the frame.
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


@lru_cache(maxsize=16)
def _disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def frame_scores(
    sample: dict, *, metric: str, skip_first_last: bool = False, void_label: int | None = None, bound_th: float = 0.008
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every sentence in every frame of a video.

    Args:
        sample: a predicted sample with ``pred_masks`` (per sentence and frame an RLE at the original size) and the metainfo
            ``texts``, ``video_id``, ``obj_ids`` and ``mask_paths``.
        metric: whose errors these are.
        skip_first_last, void_label, bound_th: see :class:`JFMetric`.

    Returns:
        J and F, float (E, T) each, in 0..1.

    Raises:
        ValueError: the data set has no masks or object ids, or masks and predictions do not fit.
    """
    video = sample['video_id']
    texts, paths, obj_ids = sample['texts'], sample['mask_paths'], sample['obj_ids']
    if paths is None:
        raise ValueError(
            f"{metric}: video {video} has no masks to compare with; set data_prefix['mask'] of the data set to "
            'an existing folder, or leave this evaluator out'
        )
    if obj_ids is None:
        raise ValueError(
            f"{metric}: the expressions of video {video} have no 'obj_id', so it is unknown which object of "
            'the masks they name; use an ann_file of the data set that has them'
        )
    predictions = sample['pred_masks']
    if len(predictions) != len(texts) or any(len(masks) != len(paths) for masks in predictions):
        raise ValueError(
            f'{metric}: video {video}: expected masks for {len(texts)} sentences and {len(paths)} frames, found '
            f'{[len(masks) for masks in predictions]} frames for the sentences'
        )
    kept = range(1, len(paths) - 1) if skip_first_last else range(len(paths))
    if not kept:
        raise ValueError(f'{metric}: video {video} has {len(paths)} frames, and skip_first_last leaves none')

    region = np.empty((len(texts), len(kept)))
    contour = np.empty_like(region)
    seen: set[int] = set()
    for column, t in enumerate(kept):
        ids = read_ids(paths[t], f'video {video}')
        seen.update(np.flatnonzero(np.bincount(ids.ravel())).tolist())
        void = None if void_label is None else ids == void_label
        for row, obj_id in enumerate(obj_ids):
            pred = coco_mask.decode(predictions[row][t]).astype(bool)
            if pred.shape != ids.shape:
                raise ValueError(
                    f'{metric}: video {video}, sentence {texts[row]!r}: the predicted mask is '
                    f'{pred.shape[1]}x{pred.shape[0]}, but {paths[t]} is {ids.shape[1]}x{ids.shape[0]}'
                )
            gt = ids == int(obj_id)
            region[row, column] = region_similarity(gt, pred, void)
            contour[row, column] = boundary_f(gt, pred, void, bound_th)
    for t in set(range(len(paths))) - set(kept):
        if not seen.issuperset(map(int, obj_ids)):
            seen.update(np.unique(read_ids(paths[t], f'video {video}')).tolist())
    unknown = {obj_id for obj_id in obj_ids if int(obj_id) not in seen}
    if unknown:
        raise ValueError(
            f'{metric}: video {video}: no mask shows the objects {sorted(unknown)}; the masks show {sorted(seen - {0})}'
        )
    return region, contour


@METRICS.register_module()
class JFMetric(BaseMetric):
    """Mean J and F over frames for each sentence, then over sentences; J&F is the mean of both; all in 0..1.

    Reads from each sample ``pred_masks`` (per sentence and frame an RLE at the original size), ``pred_scores``, and
    from its metainfo ``texts``, ``exp_ids``, ``video_id``, ``frames``, ``obj_ids`` and ``mask_paths``, and optionally
    ``families`` and ``held_out``: then there are also ``J&F_<family>``, ... and ``J&F_held_out``, ..., the means over
    the sentences of a family and over the held-out ones.

    Args:
        skip_first_last: leave out the first and last frame of each video, as the semi-supervised DAVIS protocol does.
        void_label: value in the masks that marks pixels which do not count (255 in DAVIS 2017); None: there is none.
        bound_th: see :func:`boundary_f`.
        out_file: JSON file for the means and for one row per sentence.
        max_table_videos: how many videos the printed table shows.

    Raises:
        ValueError: the data set has no masks or object ids, or masks and predictions do not fit.
    """

    default_prefix = 'rvos'

    def __init__(
        self,
        *,
        skip_first_last: bool = False,
        void_label: int | None = None,
        bound_th: float = 0.008,
        out_file: str | None = None,
        max_table_videos: int = 40,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.skip_first_last = skip_first_last
        self.void_label = void_label
        self.bound_th = bound_th
        self.out_file = out_file
        self.max_table_videos = max_table_videos

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends exactly one object per sample: mmengine cuts the collected results to the number of samples."""
        for sample in data_samples:
            self.results.append(self._score_video(sample))

    def _score_video(self, sample: dict) -> dict:
        video, texts = sample['video_id'], sample['texts']
        region, contour = frame_scores(
            sample,
            metric='JFMetric',
            skip_first_last=self.skip_first_last,
            void_label=self.void_label,
            bound_th=self.bound_th,
        )
        scores = [float(score) for score in sample['pred_scores']]
        rows: list[dict] = [
            dict(video=video, exp_id=exp_id, sentence=text, J=j, F=f, score=score, num_frames=region.shape[1])
            | {'J&F': (j + f) / 2}
            for exp_id, text, j, f, score in zip(
                sample['exp_ids'], texts, region.mean(1).tolist(), contour.mean(1).tolist(), scores, strict=True
            )
        ]
        for key, values in (('family', sample.get('families')), ('held_out', sample.get('held_out'))):
            if values is not None:
                rows = [scored | {key: value} for scored, value in zip(rows, values, strict=True)]
        return dict(video=video, rows=rows)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Returns J, F and J&F, and the same for each subset (:func:`subsets`), and prints and writes them."""
        if not results:
            raise ValueError('JFMetric: there is nothing to evaluate; was the test loader empty?')
        rows = [row for result in results for row in result['rows']]
        means = mean_jf(rows)
        for name, subset in subsets(rows).items():
            means |= {f'{key}_{name}': value for key, value in mean_jf(subset).items()}
        self._print(results)
        if self.out_file is not None:
            dump_json(
                dict(metrics=means, num_videos=len(results), num_sentences=len(rows), rows=rows),
                self.out_file,
                indent=1,
            )
            MMLogger.get_current_instance().info(f'JFMetric: {len(rows)} rows written to {self.out_file}')
        return means

    def _print(self, results: list[dict]) -> None:
        table = Table(title='mean over sentences')
        table.add_column('video', overflow='fold')
        for name in ('sentences', 'frames', 'J&F', 'J', 'F'):
            table.add_column(name, justify='right')

        def add(name: str, rows: list[dict]) -> None:
            values = mean_jf(rows)
            frames = {row['video']: row['num_frames'] for row in rows}
            table.add_row(
                name, str(len(rows)), str(sum(frames.values())), *(f'{values[key]:.4f}' for key in ('J&F', 'J', 'F'))
            )

        for result in results[: self.max_table_videos]:
            add(result['video'], result['rows'])
        if len(results) > self.max_table_videos:
            table.add_row(f'({len(results) - self.max_table_videos} more videos)', *[''] * 5)
        rows = [row for result in results for row in result['rows']]
        table.add_section()
        for name, subset in subsets(rows).items():
            add(name.replace('_', ' '), subset)
        add('all', rows)
        text = io.StringIO()
        Console(file=text, width=100).print(table)
        MMLogger.get_current_instance().info('\n' + text.getvalue().rstrip())


def subsets(rows: list[dict]) -> dict[str, list[dict]]:
    """The rows of each family, in the order in which they appear, and those that are ``held_out``; {} if none says so.

    A row can be of a family and held out.
    """
    result: dict[str, list[dict]] = {}
    for row in rows:
        if row.get('family') is not None:
            result.setdefault(row['family'], []).append(row)
    held_out = [row for row in rows if row.get('held_out')]
    return result | ({'held_out': held_out} if held_out else {})


def mean_jf(rows: list[dict]) -> dict[str, float]:
    """J&F, J and F, 0..1, over rows that have J and F."""
    j = float(np.mean([row['J'] for row in rows]))
    f = float(np.mean([row['F'] for row in rows]))
    return {'J&F': (j + f) / 2, 'J': j, 'F': f}  # the first one is what `save_best='auto'` follows
