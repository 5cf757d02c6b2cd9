"""Mask metrics of RefCOCO, RefCOCO+ and RefCOCOg: IoU of each sentence's object, and precision at K."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json

from .a2d_metric import iou, iou_measures, log_table, overlap, unique_rows


@METRICS.register_module()
class RefCOCOMetric(BaseMetric):
    """Overall and mean IoU, and precision at K, of one predicted mask per sentence; all in 0..1.

    ``overall_IoU`` is the sum of all intersections over the sum of all unions, ``mean_IoU`` the mean over the
    sentences, and ``P@K`` the share of sentences whose IoU is strictly greater than K, for K = .5, .6, .7, .8, .9: the
    same formulas as `A2DMetric`'s. (Other projects that report RefCOCO also count an IoU equal to K, and call the first
    oIoU or cIoU.)

    Reads from each sample ``pred_masks`` (per sentence a list of one RLE at the original size) and ``pred_scores``, and from
    its metainfo ``gt_rles`` (``LoadRefCOCOMasks(evaluation=True)``), ``texts``, ``exp_ids``, ``video_id`` (the image).
    A sentence that a sampler repeats counts once.

    Args:
        out_file: JSON file for the scores and for one row per sentence.

    Raises:
        ValueError: a sample has no ground-truth masks, or predictions do not match them.
    """

    default_prefix = 'refcoco'

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
            self.results.append(self._rows(sample))

    @staticmethod
    def _rows(sample: dict) -> list[dict]:
        image, texts, predictions = sample['video_id'], sample['texts'], sample['pred_masks']
        if sample.get('gt_rles') is None:
            raise UserError(
                f'RefCOCOMetric: image {image}: there is no mask to compare with; the test pipeline needs '
                'LoadRefCOCOMasks(evaluation=True)'
            )
        if len(predictions) != len(texts) or any(len(masks) != 1 for masks in predictions):
            raise UserError(
                f'RefCOCOMetric: image {image}: expected one mask for each of the {len(texts)} sentences, found '
                f'{[len(masks) for masks in predictions]}'
            )
        rows = []
        for text, exp_id, gt, (mask,), score in zip(
            texts, sample['exp_ids'], sample['gt_rles'], predictions, sample['pred_scores'], strict=True
        ):
            if tuple(mask['size']) != tuple(gt['size']):
                raise UserError(
                    f'RefCOCOMetric: image {image}, sentence {text!r}: expected a mask of {tuple(gt["size"])} (height, width), '
                    f'as in the data set, found {tuple(mask["size"])}'
                )
            # Sentences of one object can be equal; the id distinguishes them.
            rows.append(
                dict(image_id=f'{image}/{exp_id}', picture=image, exp_id=exp_id, sentence=text)
                | dict(overlap(gt, mask), score=float(score))
            )
        return rows

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        """Returns, prints and writes overall and mean IoU and P@K."""
        rows = unique_rows((row for of_sample in results for row in of_sample), metric='RefCOCOMetric')
        if not rows:
            raise UserError('RefCOCOMetric: there is nothing to evaluate; was the test loader empty?')
        metrics = iou_measures(rows)
        log_table(metrics, f'{len(rows)} sentences')
        if self.out_file is not None:
            report = [
                {key: row[key] for key in ('picture', 'exp_id', 'sentence', 'intersection', 'union')}
                | dict(IoU=iou(row), score=row['score'])
                for row in rows
            ]
            dump_json(dict(metrics=metrics, num_sentences=len(rows), rows=report), self.out_file, indent=1)
            MMLogger.get_current_instance().info(f'RefCOCOMetric: {len(rows)} rows written to {self.out_file}')
        return metrics
