"""Region similarity J and contour accuracy F, the metrics of the DAVIS challenges."""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json, read_ids

from .background import BackgroundMetric


def region_similarity(gt: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None) -> float:
    """J: intersection over union of two masks.

    Args:
        gt, pred: bool (H, W).
        void: bool (H, W), ignored pixels.

    Returns:
        In 0..1; 1 if both masks are empty.
    """
    gt, pred = _without_void(gt, pred, void)
    union = np.count_nonzero(gt | pred)
    return np.count_nonzero(gt & pred) / union if union else 1.0


def boundary_f(gt: np.ndarray, pred: np.ndarray, void: np.ndarray | None = None, bound_th: float = 0.008) -> float:
    """F: agreement of two masks' boundaries, the harmonic mean of precision and recall.

    A boundary pixel is matched if the other boundary has a pixel within the radius.

    Args:
        gt, pred: bool (H, W).
        void: bool (H, W), pixels that are removed from both masks.
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
    precision = np.count_nonzero(pred_boundary & _dilate(gt_boundary, radius)) / num_pred
    recall = np.count_nonzero(gt_boundary & _dilate(pred_boundary, radius)) / num_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour; the frame's border is not a boundary.

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
    # All boundary pixels lie in the masks' bounding box, grown by one pixel. Only boundary pixels are compared, so
    # nothing outside this window can change F; if the window is smaller than the frame, its border pixels are outside
    # both masks and behave as they do in the frame.
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _dilate(boundary: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by the disk x^2 + y^2 <= radius^2, uint8 (H, W) of 0 and 1.

    The disk is a union of rectangles, from the narrowest and highest to the widest, a single row. Each is derived from
    the previous one, so few short segments replace a kernel as large as the disk.
    """
    wide = boundary
    found = np.zeros_like(boundary)
    for row, column in _disk(radius):
        wide = cv2.dilate(wide, row)
        found = cv2.dilate(cv2.bitwise_or(found, wide), column)
    return found


@lru_cache(maxsize=16)
def _disk(radius: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a row that widens the rectangle and a column that heightens all rectangles so far, uint8 of ones."""
    half_widths = [math.isqrt(radius**2 - y**2) for y in range(radius, -1, -1)]
    steps: list[list[int]] = []
    for y, (half, before) in enumerate(zip(half_widths, [0, *half_widths])):
        if half > before or not steps:
            steps.append([half - before, 0])
        steps[-1][1] += y < radius
    return [(np.ones((1, 2 * x + 1), np.uint8), np.ones((2 * y + 1, 1), np.uint8)) for x, y in steps]


def frame_scores(
    sample: dict, *, metric: str, skip_first_last: bool = False, void_label: int | None = None, bound_th: float = 0.008
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of every sentence in every frame of a video.

    Args:
        sample: a predicted sample with ``pred_masks`` (per sentence and frame an RLE at the original size) and the
            metainfo ``texts``, ``video_id``, and the ground truth: ``gt_rles`` (like ``pred_masks``), or ``mask_paths``
            (a PNG of object ids per frame) and ``obj_ids``.
        metric: name of the metric, for error messages.
        skip_first_last, void_label, bound_th: see `JFMetric`.

    Returns:
        J and F, float (E, T) each, in 0..1.

    Raises:
        ValueError: the data set has no masks or object ids, or masks and predictions do not match.
    """
    video, texts = sample['video_id'], sample['texts']
    truth: _Truth
    if sample.get('gt_rles') is not None:
        truth = _CodedTruth(sample, metric, void_label)
    else:
        truth = _PaintedTruth(sample, metric, void_label)
    predictions = sample['pred_masks']
    if len(predictions) != len(texts) or any(len(masks) != truth.num_frames for masks in predictions):
        raise UserError(
            f'{metric}: video {video}: expected masks for {len(texts)} sentences and {truth.num_frames} frames, found '
            f'{[len(masks) for masks in predictions]} frames for the sentences'
        )
    kept = range(1, truth.num_frames - 1) if skip_first_last else range(truth.num_frames)
    if not kept:
        raise UserError(f'{metric}: video {video} has {truth.num_frames} frames, and skip_first_last leaves none')

    region = np.empty((len(texts), len(kept)))
    contour = np.empty_like(region)
    for column, t in enumerate(kept):
        masks, void, name = truth.of_frame(t)
        for row, gt in enumerate(masks):
            pred = coco_mask.decode(predictions[row][t]).astype(bool)
            if pred.shape != gt.shape:
                raise UserError(
                    f'{metric}: video {video}, sentence {texts[row]!r}: the predicted mask is '
                    f'{pred.shape[1]}x{pred.shape[0]}, but {name} is {gt.shape[1]}x{gt.shape[0]}'
                )
            region[row, column] = region_similarity(gt, pred, void)
            contour[row, column] = boundary_f(gt, pred, void, bound_th)
    truth.check_objects()
    return region, contour


class _Truth(ABC):
    """The ground-truth masks of a video."""

    num_frames: int

    @abstractmethod
    def of_frame(self, t: int) -> tuple[Iterable[np.ndarray], np.ndarray | None, str]:
        """Per sentence a bool mask (H, W), the ignored pixels (bool (H, W)) or None, and a name for messages."""

    def check_objects(self) -> None:  # noqa: B027
        """Called after the last frame; rejects masks that lack an object."""


class _CodedTruth(_Truth):
    """``gt_rles``: per sentence and frame the run-length code of the sentence's objects."""

    def __init__(self, sample: dict, metric: str, void_label: int | None) -> None:
        codes, texts, where = sample['gt_rles'], sample['texts'], f'{metric}: video {sample["video_id"]}'
        if void_label is not None:
            raise UserError(
                f'{where}: run-length codes (gt_rles) mark no void; expected void_label=None, found {void_label}'
            )
        lengths = [len(of_sentence) for of_sentence in codes if isinstance(of_sentence, list)]
        if len(lengths) != len(texts) or len(set(lengths)) != 1:
            raise UserError(
                f'{where}: expected gt_rles to hold, for each of {len(texts)} sentences, a list with a run-length code of '
                f'each frame, found lists of {lengths}'
            )
        self.codes, self.num_frames = codes, lengths[0]

    def of_frame(self, t: int) -> tuple[Iterable[np.ndarray], np.ndarray | None, str]:
        masks = (coco_mask.decode(of_sentence[t]).astype(bool) for of_sentence in self.codes)
        return masks, None, f'the mask of frame {t}'


class _PaintedTruth(_Truth):
    """``mask_paths``: per frame a PNG of object ids; each sentence names one of them (``obj_ids``)."""

    def __init__(self, sample: dict, metric: str, void_label: int | None) -> None:
        self.video, self.where = sample['video_id'], f'{metric}: video {sample["video_id"]}'
        if sample['mask_paths'] is None:
            raise UserError(
                f"{self.where} has no masks to compare with; set data_prefix['mask'] of the data set to an existing folder "
                '(of MeViS: mask_file, and LoadMeViSMasks(evaluation=True) in its pipeline), or leave this evaluator out'
            )
        if sample['obj_ids'] is None:
            raise UserError(
                f"{metric}: the expressions of video {self.video} have no 'obj_id', so it is unknown which object of "
                'the masks they name; use an ann_file of the data set that has them'
            )
        self.paths, self.obj_ids, self.void_label = sample['mask_paths'], sample['obj_ids'], void_label
        self.num_frames = len(self.paths)
        self.seen: dict[int, set[int]] = {}
        """the ids in each frame read so far"""

    def of_frame(self, t: int) -> tuple[Iterable[np.ndarray], np.ndarray | None, str]:
        ids = self._ids(t)
        void = None if self.void_label is None else ids == self.void_label
        return (ids == int(obj_id) for obj_id in self.obj_ids), void, self.paths[t]

    def _ids(self, t: int) -> np.ndarray:
        ids = read_ids(self.paths[t], f'video {self.video}')
        self.seen[t] = set(np.flatnonzero(np.bincount(ids.ravel())).tolist())
        return ids

    def check_objects(self) -> None:
        wanted = set(map(int, self.obj_ids))
        for t in range(self.num_frames):
            if t not in self.seen and not wanted <= set().union(*self.seen.values()):
                self._ids(t)
        seen: set[int] = set().union(*self.seen.values())
        unknown = {obj_id for obj_id in self.obj_ids if int(obj_id) not in seen}
        if unknown:
            raise UserError(
                f'{self.where}: no mask shows the objects {sorted(unknown)}; the masks show {sorted(seen - {0})}'
            )


@METRICS.register_module()
class JFMetric(BackgroundMetric):
    """Mean J and F over frames for each sentence, then over sentences; J&F is the mean of both; all in 0..1.

    Reads from each sample ``pred_masks`` (per sentence and frame an RLE at the original size), ``pred_scores``, and
    from its metainfo ``texts``, ``exp_ids``, ``video_id``, the ground truth (``gt_rles``, per sentence and frame an
    RLE; else ``mask_paths``, a PNG of object ids per frame, and ``obj_ids``), and optionally ``families`` and
    ``held_out``: then there are also ``J&F_<family>``, ... and ``J&F_held_out``, ..., the means over the sentences of a
    family and over the held-out ones.

    A frame in which mask and prediction are both empty counts 1. This is the protocol of Ref-YouTube-VOS, and of MeViS's
    valid_u.

    Args:
        skip_first_last: leave out the first and last frame of each video, as the semi-supervised DAVIS protocol does.
        void_label: mask value of ignored pixels (255 in DAVIS 2017); None: there is none.
        bound_th: see `boundary_f`.
        out_file: JSON file for the means and for one row per sentence.
        max_table_videos: maximum number of videos in the printed table.

    Raises:
        ValueError: the data set has no masks or object ids, or masks and predictions do not match.
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

    def score_video(self, sample: dict) -> dict:
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
        """Returns, prints and writes J, F and J&F, overall and for each subset (`subsets`)."""
        if not results:
            raise UserError('JFMetric: there is nothing to evaluate; was the test loader empty?')
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
    """The rows of each family, in order of appearance, and the ``held_out`` rows; {} if there are neither.

    A row can belong to a family and be held out.
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
    return {'J&F': (j + f) / 2, 'J': j, 'F': f}  # `save_best='auto'` uses the first one
