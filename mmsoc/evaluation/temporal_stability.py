"""Variation of prediction quality over the frames of a video (SOC, Fig. 4)."""

import numpy as np
from mmengine.logging import MMLogger

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import dump_json

from .background import BackgroundMetric
from .jf_metric import frame_scores


@METRICS.register_module()
class TemporalStabilityMetric(BackgroundMetric):
    """Variance over frames of J and of J&F, for each sentence, then the mean over sentences; lower is better.

    The paper (section 4, Fig. 4) describes it only in words: the variance of IoU, and of J&F, over the frames of a
    video, averaged over videos. It does not specify the estimator, the unit, or whether a video counts once or once per
    sentence; here it is the population variance (ddof = 0) of J_t and of (J_t + F_t) / 2 over all frames t, once per
    (video, sentence), with J and F in 0..1. A frame in which the object is absent counts: J = F = 1 if nothing is
    predicted, else 0. This is not the "temporal stability" T of DAVIS 2016.

    The results are ``var_J`` and ``var_J&F``, and 100 times these, ``var_J_x100`` and ``var_J&F_x100``.

    Reads from each sample ``pred_masks`` (per sentence and frame an RLE at the original size), and from its metainfo
    ``texts``, ``exp_ids``, ``video_id``, ``obj_ids`` and ``mask_paths``.

    Args:
        void_label: mask value of ignored pixels (255 in DAVIS 2017); None: there is none.
        bound_th: see `boundary_f`.
        out_file: JSON file for the means and for one row per sentence, with its J and F of each frame.

    Raises:
        ValueError: the data set has no masks or object ids, or masks and predictions do not match.
    """

    default_prefix = 'stability'

    def __init__(
        self,
        *,
        void_label: int | None = None,
        bound_th: float = 0.008,
        out_file: str | None = None,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.void_label = void_label
        self.bound_th = bound_th
        self.out_file = out_file

    def score_video(self, sample: dict) -> dict:
        video = sample['video_id']
        region, contour = frame_scores(
            sample, metric='TemporalStabilityMetric', void_label=self.void_label, bound_th=self.bound_th
        )
        rows = [
            dict(video=video, exp_id=exp_id, sentence=text, J_t=j.tolist(), F_t=f.tolist(), var_J=float(j.var()))
            | {'var_J&F': float(((j + f) / 2).var())}
            for exp_id, text, j, f in zip(sample['exp_ids'], sample['texts'], region, contour, strict=True)
        ]
        return dict(video=video, rows=rows)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Returns, logs and writes the mean variances."""
        if not results:
            raise UserError('TemporalStabilityMetric: there is nothing to evaluate; was the test loader empty?')
        rows = [row for result in results for row in result['rows']]
        means = {key: float(np.mean([row[key] for row in rows])) for key in ('var_J', 'var_J&F')}
        means |= {f'{key}_x100': 100 * value for key, value in means.items()}
        logger = MMLogger.get_current_instance()
        logger.info(
            f'TemporalStabilityMetric: variance over frames, mean over {len(rows)} sentences of {len(results)} videos, x 100: '
            f'J {means["var_J_x100"]:.3f}, J&F {means["var_J&F_x100"]:.3f}'
        )
        single = sorted({row['video'] for row in rows if len(row['J_t']) == 1})
        if single:
            logger.warning(
                f'TemporalStabilityMetric: {len(single)} videos have one frame, so no variance: {single[:5]}'
            )
        if self.out_file is not None:
            dump_json(dict(metrics=means, num_videos=len(results), num_sentences=len(rows), rows=rows), self.out_file)
            logger.info(f'TemporalStabilityMetric: {len(rows)} rows written to {self.out_file}')
        return means
