"""Metrics of A2D-Sentences and JHMDB-Sentences: average precision, precision at K, and IoU of one frame per sample."""

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
# COCOeval's first six statistics: all instances, at two thresholds, and by area (-1 if there is none).
COCO_STATS = ('mAP', 'AP@0.5', 'AP@0.75', 'AP_small', 'AP_medium', 'AP_large')


@METRICS.register_module()
class A2DMetric(BaseMetric):
    """Mean average precision, overall and mean IoU, and precision at K; all in 0..1.

    - ``mAP``: COCO's, over the IoU thresholds .50:.05:.95, by pycocotools. Each sentence with its frame is a separate
      image with one instance; all N queries with their scores are detections of it.
    - For the others, the prediction is the query with the highest score. ``overall_IoU`` is the sum of all intersections over
      the sum of all unions, ``mean_IoU`` the mean over the sentences (1 where prediction and instance are both empty),
      and ``P@K`` the share of sentences whose IoU is strictly greater than K.

    This is the protocol of MTTR and SOC. (Their IoU adds 1e-6 to intersection and union in float32, which has no effect
    on areas of 32 pixels or more.)

    Reads from each sample ``pred_masks_all`` and ``pred_scores_all`` (``model.test_cfg`` with the selector `AllQueries` and the
    output `A2DMasks`), and from its metainfo ``gt_rles`` (a transform with the annotated frame's masks), ``texts``, ``exp_ids``
    (the image ids), ``video_id``.
    A sentence that a sampler repeats counts once.

    Args:
        out_file: JSON file for the scores and for one row per sentence.

    Raises:
        ValueError: a sample lacks predictions of all queries or ground-truth masks, or they do not match.
    """

    default_prefix = 'a2d'

    def __init__(
        self,
        *,
        out_file: str | None = None,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends exactly one object per sample: mmengine cuts the collected results to the number of samples."""
        for sample in data_samples:
            self.results.append([self._score(sample, index) for index in range(len(sample['texts']))])

    @staticmethod
    def _score(sample: dict, index: int) -> dict:
        where = f'A2DMetric: video {sample["video_id"]}, sentence {sample["texts"][index]!r}'
        if 'pred_masks_all' not in sample:
            raise UserError(
                f"{where}: there are no predictions of all queries; set model.test_cfg.selector=dict(type='AllQueries') and "
                "model.test_cfg.output=dict(type='A2DMasks')"
            )
        if sample.get('gt_rles') is None:
            raise UserError(
                f'{where}: there is no mask to compare with; the test pipeline needs LoadA2DMasks(evaluation=True) or '
                'LoadJHMDBMask'
            )
        gt, masks = sample['gt_rles'][index], sample['pred_masks_all'][index]
        scores = [float(score) for score in sample['pred_scores_all'][index]]
        if not masks or len(masks) != len(scores):
            raise UserError(f'{where}: expected a score for each of the masks, found {len(scores)} for {len(masks)}')
        sizes = {tuple(mask['size']) for mask in masks}
        if sizes != {tuple(gt['size'])}:
            raise UserError(
                f'{where}: expected masks of {tuple(gt["size"])} (height, width), as in the data set, found {sizes}'
            )
        best = int(np.argmax(scores))
        return dict(
            image_id=sample['exp_ids'][index],
            video=sample['video_id'],
            sentence=sample['texts'][index],
            **overlap(gt, masks[best]),
            gt=gt,
            masks=masks,
            scores=scores,
        )

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        """Returns, prints and writes mAP, overall and mean IoU and P@K."""
        rows = unique_rows((row for of_sample in results for row in of_sample), metric='A2DMetric')
        if not rows:
            raise UserError('A2DMetric: there is nothing to evaluate; was the test loader empty?')
        coco_stats = average_precision(rows)
        # `save_best='auto'` uses the first one; the authors keep the checkpoint with the best mAP.
        metrics = {'mAP': coco_stats['mAP'], **iou_measures(rows)}
        samples = (self.dataset_meta or {}).get('samples')
        log_table(metrics, f'{len(rows)} sentences', samples and f'samples: {samples}')
        if self.out_file is not None:
            report = [
                {key: row[key] for key in ('image_id', 'video', 'sentence', 'intersection', 'union')}
                | dict(IoU=iou(row), score=max(row['scores']))
                for row in rows
            ]
            dump_json(
                dict(metrics=metrics, coco=coco_stats, num_sentences=len(rows), samples=samples, rows=report),
                self.out_file,
                indent=1,
            )
            MMLogger.get_current_instance().info(f'A2DMetric: {len(rows)} rows written to {self.out_file}')
        return metrics


def overlap(gt: dict, pred: dict) -> dict[str, int]:
    """``intersection`` and ``union`` of two run-length codes of one size, in pixels."""
    truth, found = (coco_mask.decode(mask).astype(bool) for mask in (gt, pred))
    return dict(intersection=int(np.count_nonzero(truth & found)), union=int(np.count_nonzero(truth | found)))


def log_table(metrics: dict[str, float], title: str, caption: str | None = None) -> None:
    """Prints one row of numbers under their names."""
    table = Table(title=title, caption=caption)
    for name in metrics:
        table.add_column(name.replace('_', ' '), justify='right')
    table.add_row(*(f'{value:.4f}' for value in metrics.values()))
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    MMLogger.get_current_instance().info('\n' + text.getvalue().rstrip())


def unique_rows(rows: Iterable[dict], metric: str) -> list[dict]:
    """Drops rows that repeat an image id and a sentence, and logs their number in the metric's name."""
    kept: dict[tuple[str, str], dict] = {}
    total = 0
    for row in rows:
        kept.setdefault((row['image_id'], row['sentence']), row)
        total += 1
    if len(kept) < total:
        MMLogger.get_current_instance().info(
            f'{metric}: {total - len(kept)} of {total} sentences were repeated by the sampler'
        )
    return list(kept.values())


def iou(row: dict) -> float:
    """Intersection over union, 0..1; 1 if both masks are empty."""
    return row['intersection'] / row['union'] if row['union'] else 1.0


def iou_measures(rows: Sequence[dict]) -> dict[str, float]:
    """``overall_IoU``, ``mean_IoU`` and ``P@K``, 0..1, of rows with ``intersection`` and ``union`` (pixels)."""
    values = np.array([iou(row) for row in rows])
    union = sum(row['union'] for row in rows)
    measures = dict(
        overall_IoU=sum(row['intersection'] for row in rows) / union if union else 1.0, mean_IoU=float(values.mean())
    )
    return measures | {f'P@{threshold}': float((values > threshold).mean()) for threshold in THRESHOLDS}


def average_precision(rows: Sequence[dict]) -> dict[str, float]:
    """COCO's average precision of masks, without categories; keys as in ``COCO_STATS``.

    Args:
        rows: with ``gt`` (RLE), ``masks`` (RLEs of the N queries) and their ``scores``, 0..1; each row is one image.
    """
    truth = COCO()
    truth.dataset = dict(
        info={},
        categories=[dict(id=1, name='referred')],
        images=[dict(id=i, height=row['gt']['size'][0], width=row['gt']['size'][1]) for i, row in enumerate(rows)],
        annotations=[
            dict(
                id=i + 1,  # COCOeval takes 0 for "not matched"
                image_id=i,
                category_id=1,
                segmentation=row['gt'],
                area=float(coco_mask.area(row['gt'])),
                bbox=coco_mask.toBbox(row['gt']).tolist(),
                iscrowd=0,
            )
            for i, row in enumerate(rows)
        ],
    )
    detections = [
        dict(image_id=i, category_id=1, segmentation=mask, score=score)
        for i, row in enumerate(rows)
        for mask, score in zip(row['masks'], row['scores'], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), 'segm')
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_STATS, map(float, evaluation.stats[:6]), strict=True))
