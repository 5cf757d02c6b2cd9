"""Archives of predictions for evaluation servers."""

import zipfile

import cv2
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path, check_file_name

from .background import BackgroundMetric

LAYOUTS = {'ref-youtube-vos': 'Annotations/', 'mevis': ''}
"""the folder at the top of the archive"""


@METRICS.register_module()
class SubmissionWriter(BackgroundMetric):
    """Writes predictions as a zip for an evaluation server; needs no masks.

    ``<video>/<exp_id>/<frame>.png`` for every sentence and every listed frame, 8-bit with one channel, 255 on the
    object and 0 elsewhere, at the size of the original frame; below ``Annotations/`` for Ref-YouTube-VOS, at the top
    for MeViS. ``tools/analysis_tools/validate_submission.py`` checks the archive.

    Reads from each sample ``pred_masks``, and from its metainfo ``video_id``, ``exp_ids`` and ``frames``. The results
    are the numbers of videos, sentences and masks. Each process encodes its own predictions, in a background thread, so
    that the first process only has to copy them: some 3 KB each, all of them in memory (Ref-YouTube-VOS: 0.1 GB; MeViS
    valid, with 80 frames per video: 0.7 GB).

    Args:
        zip_file: the archive. Not named ``out_file``, which ``tools/test.py --out FILE.json`` sets in every metric that
            has it.
        layout: ``'ref-youtube-vos'`` or ``'mevis'``.

    Raises:
        UserError: an unknown layout, a suffix other than .zip, frames and predictions that do not match, or a name of a
            video, sentence or frame that cannot be a file name (`check_file_name`).
    """

    default_prefix = 'submission'

    def __init__(
        self,
        *,
        zip_file: str,
        layout: str = 'ref-youtube-vos',
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if layout not in LAYOUTS:
            raise UserError(f'SubmissionWriter: layout must be one of {sorted(LAYOUTS)}, found {layout!r}')
        if not zip_file.endswith('.zip'):
            raise UserError(f'SubmissionWriter: zip_file must end in .zip, found {zip_file!r}')
        self.zip_file = zip_file
        self.layout = layout

    def score_video(self, sample: dict) -> dict:
        """The encoded images of a video."""
        video, exp_ids, frames, predictions = (sample[key] for key in ('video_id', 'exp_ids', 'frames', 'pred_masks'))
        if [len(masks) for masks in predictions] != [len(frames)] * len(exp_ids):
            raise UserError(
                f'SubmissionWriter: video {video}: expected masks for {len(exp_ids)} sentences and {len(frames)} frames, '
                f'found {[len(masks) for masks in predictions]} frames for the sentences'
            )
        check_file_name(video, 'SubmissionWriter: video_id')
        for key in ('exp_ids', 'frames'):
            for name in sample[key]:
                check_file_name(name, f'SubmissionWriter: {key} of video {video}')
        images = {
            f'{video}/{exp_id}/{frame}.png': _png(rle)
            for exp_id, masks in zip(exp_ids, predictions)
            for frame, rle in zip(frames, masks)
        }
        return dict(video=video, num_sentences=len(exp_ids), images=images)

    def compute_metrics(self, results: list[dict]) -> dict[str, int]:
        """Writes the archive; an old one stays until the new one is complete."""
        if not results:
            raise UserError('SubmissionWriter: there is nothing to write; was the test loader empty?')
        top = LAYOUTS[self.layout]
        with atomic_path(self.zip_file) as temporary, zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
            for result in results:
                for name, image in result['images'].items():
                    entry = zipfile.ZipInfo(top + name)  # has a fixed date: equal predictions give equal archives
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, image)
        counts = dict(
            num_videos=len(results),
            num_sentences=sum(result['num_sentences'] for result in results),
            num_masks=sum(len(result['images']) for result in results),
        )
        MMLogger.get_current_instance().info(
            f'SubmissionWriter: {counts["num_masks"]} masks of {counts["num_sentences"]} sentences and {counts["num_videos"]} '
            f'videos written to {self.zip_file} (layout {self.layout})'
        )
        return counts


def _png(rle: dict) -> bytes:
    ok, data = cv2.imencode('.png', coco_mask.decode(rle) * 255)
    assert ok
    return data.tobytes()
