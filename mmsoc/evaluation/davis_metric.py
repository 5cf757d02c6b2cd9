"""Ref-DAVIS17: the four annotators' id maps, each scored by the "unsupervised" protocol of DAVIS 2017."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path, check_file_name, dump_json, read_ids

from .background import BackgroundMetric
from .jf_metric import boundary_f, mean_jf, region_similarity

VOID = 255
"""value of ignored pixels in the masks of DAVIS 2017"""
MAX_PROPOSALS = 20


def merge_objects(probabilities: np.ndarray, background: float = 0.1) -> np.ndarray:
    """Merges the masks of several objects to one id map: each pixel goes to the most probable object.

    As for the published results of ReferFormer and SOC, a probability below 0.5 counts as 0, and the background has the
    same probability everywhere. Of equally probable objects the first one wins (the published argmax leaves ties
    undefined).

    Args:
        probabilities: float (N, H, W), in 0..1.

    Returns:
        uint8 (H, W): 0 is background, k + 1 is object k.
    """
    planes = np.full((len(probabilities) + 1, *probabilities.shape[1:]), background, probabilities.dtype)
    planes[1:] = np.where(probabilities >= 0.5, probabilities, 0)
    return planes.argmax(0).astype(np.uint8)


def merge_by_score(masks: np.ndarray, scores: Sequence[float]) -> np.ndarray:
    """Merges the masks of several objects to one id map: where masks overlap, the object with the highest score wins.

    Not the published protocol, which compares probabilities per pixel (`merge_objects`); for predictions without
    probabilities.

    Args:
        masks: bool (N, H, W).
        scores: N; ties go to the first.

    Returns:
        uint8 (H, W): 0 is background, k + 1 is object k.
    """
    ids = np.zeros(masks.shape[1:], np.uint8)
    for k in sorted(range(len(masks)), key=lambda k: (scores[k], -k)):  # the best one is drawn last
        ids[masks[k]] = k + 1
    return ids


def evaluate_sequence(
    gt: Sequence[np.ndarray],
    pred: Sequence[np.ndarray],
    *,
    where: str,
    skip_first_last: bool = False,
    bound_th: float = 0.008,
) -> dict:
    """Scores the id maps of one video by the "unsupervised" protocol of DAVIS 2017 (davis2017-evaluation).

    The predicted ids need not be those of the objects: J and F are computed for every pair of a predicted and a true object
    in every frame, and the pairing with the highest sum of mean (J + F) / 2 is used. The true objects are 1 to the
    highest id in the FIRST mask; the proposals are 1 to the highest id in any predicted frame, padded with empty ones
    if there are fewer. Pixels of value 255 in ``gt`` are ignored.

    Args:
        gt: uint8 (H, W) for each frame.
        pred: the same for the prediction.
        where: what the maps belong to, for error messages.
        skip_first_last: leave out the first and the last frame, as the "semi-supervised" protocol does.
        bound_th: see `boundary_f`.

    Returns:
        ``rows``, for each true object ``object``, ``matched`` (the predicted id; 0: an added empty one), ``J`` and
        ``F``, means over the frames; ``num_proposals``; ``num_frames``; and ``late_ids``, the ids in later masks above
        all ids of the first, which the protocol treats as background.

    Raises:
        ValueError: frames or sizes do not match, the first mask is empty, or there are more than 20 proposals.
    """
    if len(gt) != len(pred):
        raise UserError(f'{where}: expected predictions of {len(gt)} frames, found {len(pred)}')
    for t, (truth, ids) in enumerate(zip(gt, pred)):
        if truth.shape != ids.shape:
            raise UserError(
                f'{where}: the prediction of frame {t} is {ids.shape[1]}x{ids.shape[0]}, but its mask is '
                f'{truth.shape[1]}x{truth.shape[0]}'
            )
    kept = range(1, len(gt) - 1) if skip_first_last else range(len(gt))
    if not kept:
        raise UserError(f'{where}: {len(gt)} frames, of which none is to be scored')
    num_objects = _highest_id(gt[0])
    num_proposals = max(_highest_id(ids, void=False) for ids in pred)
    if num_objects == 0:
        raise UserError(f'{where}: the first mask shows no object, and the protocol scores those that it shows')
    if num_proposals > MAX_PROPOSALS:
        raise UserError(
            f'{where}: the protocol allows {MAX_PROPOSALS} predicted objects, found ids up to {num_proposals}'
        )

    region = np.empty((max(num_proposals, num_objects), num_objects, len(kept)))
    contour = np.empty_like(region)
    for column, t in enumerate(kept):
        void = gt[t] == VOID
        for i in range(num_objects):
            truth = gt[t] == i + 1
            for k in range(len(region)):
                proposal = pred[t] == k + 1
                region[k, i, column] = region_similarity(truth, proposal, void)
                contour[k, i, column] = boundary_f(truth, proposal, void, bound_th)
    proposals, objects = linear_sum_assignment(-(region.mean(2) + contour.mean(2)) / 2)
    rows = [
        dict(
            object=int(i) + 1,
            matched=int(k) + 1 if k < num_proposals else 0,
            J=float(region[k, i].mean()),
            F=float(contour[k, i].mean()),
        )
        for k, i in sorted(zip(proposals, objects), key=lambda pair: pair[1])
    ]
    late = {int(i) for ids in gt for i in np.unique(ids) if num_objects < i < VOID}
    return dict(rows=rows, num_proposals=num_proposals, num_frames=len(kept), late_ids=sorted(late))


def _highest_id(ids: np.ndarray, void: bool = True) -> int:
    return int(ids[ids != VOID].max(initial=0) if void else ids.max(initial=0))


def evaluate_folders(
    gt_dir: str | Path,
    pred_dir: str | Path,
    *,
    sequences: Sequence[str] | None = None,
    skip_first_last: bool = False,
    bound_th: float = 0.008,
) -> dict:
    """Scores a folder of results, ``pred_dir/<sequence>/<frame>.png``, by `evaluate_sequence`.

    Args:
        gt_dir: ``Annotations_unsupervised/480p`` of DAVIS 2017, or ``valid/Annotations`` of the converted data set.
        pred_dir: id maps of the same names; one of the folders ``anno_0`` to ``anno_3`` of Ref-DAVIS17.
        sequences: names of the videos; None: all of ``gt_dir``.

    Returns:
        ``J&F``, ``J`` and ``F``, means over objects, in 0..1, and ``rows``: per object the row of `evaluate_sequence`,
        and ``video``.

    Raises:
        FileNotFoundError: a folder or a frame is missing.
        ValueError: a frame has no mask, or `evaluate_sequence` raises it.
    """
    gt_dir, pred_dir = Path(gt_dir), Path(pred_dir)
    if sequences is None:
        if not gt_dir.is_dir():
            raise FileNotFoundError(f'there is no folder {gt_dir}, which should hold the masks')
        sequences = sorted(path.name for path in gt_dir.iterdir() if path.is_dir())
    if not sequences:
        raise FileNotFoundError(f'{gt_dir} holds no folder of masks')
    rows = []
    for name in sequences:
        frames = _frames(gt_dir / name)
        found = _frames(pred_dir / name)
        missing, extra = sorted(set(frames) - set(found)), sorted(set(found) - set(frames))
        if missing:
            raise FileNotFoundError(
                f'{pred_dir / name}: {len(missing)} of {len(frames)} frames are missing: {missing[:5]}'
            )
        if extra:
            raise UserError(f'{pred_dir / name}: {len(extra)} frames have no mask in {gt_dir / name}: {extra[:5]}')
        result = evaluate_sequence(
            [read_ids(gt_dir / name / frame, name) for frame in frames],
            [read_ids(pred_dir / name / frame, name) for frame in frames],
            where=f'{pred_dir / name}',
            skip_first_last=skip_first_last,
            bound_th=bound_th,
        )
        rows += [dict(video=name, **row) for row in result['rows']]
    return dict(mean_jf(rows), rows=rows)


def _frames(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder}')
    frames = sorted(path.name for path in folder.glob('*.png'))
    if not frames:
        raise FileNotFoundError(f'{folder} holds no png')
    return frames


@METRICS.register_module()
class RefDAVIS17Metric(BackgroundMetric):
    """J, F and J&F of Ref-DAVIS17, as the published numbers are computed; all in 0..1.

    Each object has four sentences: the first-frame and the full-video description of two annotators, with the ids 4k to
    4k + 3. For each of the four, the predictions of its sentences are merged to one id map per frame, which is scored by the
    "unsupervised" protocol of DAVIS 2017 (`evaluate_sequence`): the mean over all objects of all videos. The result is
    the mean of the four (ReferFormer issue 30, SAMWISE issue 13); ``J&F_annotator0``, ... are its parts.

    The masks are those of ``Annotations_unsupervised`` (tools/dataset_converters/ref_davis17.py), which can show more
    objects than the sentences describe; these are scored against an empty prediction, and their number is logged.

    Reads from each sample ``pred_masks``, ``pred_scores``, ``pred_logits`` (``model.test_cfg.return_logits=True``) and from
    its metainfo ``exp_ids``, ``obj_ids``, ``video_id``, ``frames`` and ``mask_paths``. The published protocol predicts
    clips of 36 frames: ``model.test_cfg.frames_per_clip=36``.

    Args:
        overlap: which object gets a pixel that several masks of an annotator cover. ``'probability'``: the most
            probable object, as published (`merge_objects`); needs ``pred_logits``. ``'score'``: the object whose
            sentence has the highest score (`merge_by_score`), which is NOT the published protocol.
        num_annotators: sentences per object.
        bound_th: see `boundary_f`.
        out_file: JSON file for the means and for one row per annotator and object.
        masks_dir: folder for the id maps, ``anno_<a>/<video>/<frame>.png`` with the palette of the masks, which the official
            evaluation reads.

    Raises:
        UserError: the sentences are numbered differently, masks and predictions do not match, or ``masks_dir`` is given
            and the name of a video or frame cannot be a file name (`check_file_name`).
    """

    default_prefix = 'davis17'

    def __init__(
        self,
        *,
        overlap: str = 'probability',
        num_annotators: int = 4,
        bound_th: float = 0.008,
        out_file: str | None = None,
        masks_dir: str | None = None,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if overlap not in ('probability', 'score'):
            raise UserError(f"RefDAVIS17Metric: overlap must be 'probability' or 'score', found {overlap!r}")
        if num_annotators < 1:
            raise UserError(f'RefDAVIS17Metric: num_annotators must be at least 1, found {num_annotators}')
        self.overlap = overlap
        self.num_annotators = num_annotators
        self.bound_th = bound_th
        self.out_file = out_file
        self.masks_dir = masks_dir

    def score_video(self, sample: dict) -> dict:
        video, paths = sample['video_id'], sample['mask_paths']
        if paths is None:
            raise UserError(
                f"RefDAVIS17Metric: video {video} has no masks to compare with; set data_prefix['mask'] of the data set "
                'to an existing folder'
            )
        sentences = self._sentences(sample)
        if self.masks_dir is not None:
            check_file_name(video, 'RefDAVIS17Metric: video_id')
            for frame in sample['frames']:
                check_file_name(frame, f'RefDAVIS17Metric: frames of video {video}')
        gt = [read_ids(path, f'video {video}') for path in paths]
        self._check_predictions(sample, gt)
        rows, late = [], []
        for annotator in range(self.num_annotators):
            merged = [self._merge(sample, sentences[annotator], t, gt[t].shape) for t in range(len(gt))]
            if self.masks_dir is not None:
                self._write_masks(
                    Path(self.masks_dir) / f'anno_{annotator}' / video, sample['frames'], merged, paths[0]
                )
            result = evaluate_sequence(
                gt, merged, where=f'video {video}, annotator {annotator}', bound_th=self.bound_th
            )
            rows += [dict(video=video, annotator=annotator, **row) for row in result['rows']]
            late = result['late_ids']
        return dict(video=video, rows=rows, num_frames=len(gt), num_described=len(sentences[0]), late_ids=late)

    def _sentences(self, sample: dict) -> list[list[int]]:
        """Per annotator the positions of its sentences, by object."""
        where = f'RefDAVIS17Metric: video {sample["video_id"]}'
        exp_ids, obj_ids, step = sample['exp_ids'], sample['obj_ids'], self.num_annotators
        if obj_ids is None:
            raise UserError(f"{where}: its expressions have no 'obj_id'; use an ann_file that has them")
        position = {exp_id: i for i, exp_id in enumerate(exp_ids)}
        expected = [str(i) for i in range(len(exp_ids))]
        if set(position) != set(expected) or len(exp_ids) % step:
            raise UserError(
                f'{where}: expected expressions 0, 1, ..., {step} for each object (num_annotators={step}), found {list(exp_ids)}'
            )
        for exp_id in expected:
            obj_id = obj_ids[position[exp_id]]
            if int(obj_id) != int(exp_id) // step + 1:
                raise UserError(
                    f'{where}: expression {exp_id} should describe object {int(exp_id) // step + 1} '
                    f'(num_annotators={step} consecutive ones for each object), found obj_id {obj_id!r}'
                )
        return [[position[exp_id] for exp_id in expected[annotator::step]] for annotator in range(step)]

    def _check_predictions(self, sample: dict, gt: list[np.ndarray]) -> None:
        where = f'RefDAVIS17Metric: video {sample["video_id"]}'
        wanted = [('pred_masks', [len(masks) for masks in sample['pred_masks']])]
        if self.overlap == 'probability':
            if sample.get('pred_logits') is None:
                raise UserError(
                    f"{where}: the prediction has no 'pred_logits', by which overlaps are resolved: set "
                    "model.test_cfg.output=dict(type='MasksAndLogits') (or overlap='score', which is not the published "
                    'protocol)'
                )
            wanted.append(('pred_logits', [len(logits) for logits in sample['pred_logits']]))
        for key, found in wanted:
            if found != [len(gt)] * len(sample['exp_ids']):
                raise UserError(
                    f'{where}: expected {key} of {len(sample["exp_ids"])} sentences and {len(gt)} frames, found {found} frames'
                )
        for masks in sample['pred_masks']:
            for rle, ids in zip(masks, gt):
                if tuple(rle['size']) != ids.shape:
                    raise UserError(
                        f'{where}: a predicted mask is {rle["size"][1]}x{rle["size"][0]}, but the mask of the data set is '
                        f'{ids.shape[1]}x{ids.shape[0]}'
                    )

    def _merge(self, sample: dict, sentences: list[int], t: int, size: tuple[int, ...]) -> np.ndarray:
        """The id map of frame t, uint8 of ``size``."""
        if self.overlap == 'score':
            masks = np.stack([coco_mask.decode(sample['pred_masks'][i][t]).astype(bool) for i in sentences])
            return merge_by_score(masks, [float(sample['pred_scores'][i]) for i in sentences])
        logits = torch.stack([torch.as_tensor(sample['pred_logits'][i][t]) for i in sentences]).float().cpu()
        full = F.interpolate(logits[None], size=size, mode='bilinear', align_corners=False)[0]
        return merge_objects(full.sigmoid().numpy())

    @staticmethod
    def _write_masks(folder: Path, frames: Sequence[str], merged: list[np.ndarray], palette_of: str) -> None:
        with Image.open(palette_of) as image:
            palette = image.getpalette() if image.mode == 'P' else None
        for frame, ids in zip(frames, merged, strict=True):
            id_map = Image.fromarray(ids)
            if palette is not None:
                id_map.putpalette(palette)
            with atomic_path(folder / f'{frame}.png') as temporary:
                id_map.save(temporary)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Returns, prints and writes J&F, J and F, averaged over annotators and for each annotator."""
        if not results:
            raise UserError('RefDAVIS17Metric: there is nothing to evaluate; was the test loader empty?')
        rows = [row for result in results for row in result['rows']]
        of_annotators = [mean_jf([row for row in rows if row['annotator'] == a]) for a in range(self.num_annotators)]
        means = mean_jf(of_annotators)
        for annotator, values in enumerate(of_annotators):
            means |= {f'{key}_annotator{annotator}': value for key, value in values.items()}
        self._print(results, means)
        if self.out_file is not None:
            dump_json(
                dict(metrics=means, overlap=self.overlap, num_videos=len(results), rows=rows), self.out_file, indent=1
            )
            MMLogger.get_current_instance().info(f'RefDAVIS17Metric: {len(rows)} rows written to {self.out_file}')
        return means

    def _print(self, results: list[dict], means: dict[str, float]) -> None:
        logger = MMLogger.get_current_instance()
        table = Table(title='mean over annotators')
        table.add_column('video', overflow='fold')
        for name in ('objects', 'frames', 'J&F', 'J', 'F'):
            table.add_column(name, justify='right')
        for result in results:
            values = mean_jf(result['rows'])
            count = len(result['rows']) // self.num_annotators
            table.add_row(
                result['video'],
                str(count),
                str(result['num_frames']),
                *(f'{values[key]:.4f}' for key in ('J&F', 'J', 'F')),
            )
        table.add_section()
        num_objects = sum(len(result['rows']) for result in results) // self.num_annotators
        table.add_row(
            'all',
            str(num_objects),
            str(sum(result['num_frames'] for result in results)),
            *(f'{means[key]:.4f}' for key in ('J&F', 'J', 'F')),
        )
        text = io.StringIO()
        Console(file=text, width=100).print(table)
        logger.info('\n' + text.getvalue().rstrip())
        undescribed = {
            result['video']: count - result['num_described']
            for result in results
            if (count := len(result['rows']) // self.num_annotators) > result['num_described']
        }
        if undescribed:
            logger.info(
                f'RefDAVIS17Metric: {sum(undescribed.values())} of {num_objects} objects have no sentence and are scored '
                f'as the protocol prescribes: {undescribed}'
            )
        late = {result['video']: result['late_ids'] for result in results if result['late_ids']}
        if late:
            logger.info(
                'RefDAVIS17Metric: ids that are higher than all of the first mask count as background, as the protocol has '
                f'it: {late}'
            )
        if self.overlap == 'score':
            logger.warning("RefDAVIS17Metric: overlap='score' is not the published protocol")
