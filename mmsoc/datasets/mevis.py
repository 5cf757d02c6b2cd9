"""MeViS (Ding et al., ICCV 2023): sentences about motion, each naming one or more objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import MMLogger

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import get_field, listed, load_json
from mmsoc.utils.masks import run_totals

from .referring_videos import ReferringVideoDataset, place_of_expression


@DATASETS.register_module()
class MeViSDataset(ReferringVideoDataset):
    """Videos with sentences, each sentence naming one object or several::

        data_root/
          train/meta_expressions.json             ann_file, with lists obj_id and anno_id per expression
          train/mask_dict.json                    mask_file: {anno_id: [COCO run-length code, or null, per frame]}
          train/JPEGImages/<video>/<frame>.jpg    data_prefix['img']

    and likewise ``valid_u``, for evaluation, and ``valid`` (without obj_id, anno_id and masks), which a server
    evaluates. A sentence's mask is the union of its annotations; null means that a frame does not show the annotation.
    In version 2 some sentences have no target: their ``anno_id`` is empty, and so is their mask in every frame.

    Training: an item is one expression and one clip of ``clip_sampler``, and with ``sentences_per_clip`` > 1 further
    expressions of the video. The text is lower-cased, with single spaces between words and none around them. The log
    counts what is left out: videos of fewer than two frames, as in LMPM; expressions without a target, since a training
    clip must show the object that its sentence names; expressions whose objects appear in no frame.

    Testing: an item is one video with all its sentences and all its frames; the text is unchanged. Nothing is left out.

    What the pipeline gets: ``video_id``, ``frames`` (names), ``frame_ids`` (their positions in the video),
    ``img_paths``, ``texts``, ``exp_ids``, ``obj_ids`` and ``anno_ids`` (a tuple of strings per sentence, empty without a
    target; None where the file has none), ``mask_rles`` for ``LoadMeViSMasks`` (per frame name and sentence, a list of
    the codes of those of its objects that the frame shows; None without masks), ``families``, ``held_out``; for
    training ``labels`` (zeros: "referred"). ``mask_paths`` and ``categories`` are None.

    mask_file is read once, when the data set is loaded. The codes of the annotations that sentences name stay encoded,
    in one array that loader workers and subsets share (`RunLengthCodes`).

    Args:
        ann_file: the expressions. ``obj_id`` and ``anno_id`` may be missing in a test split.
        mask_file: None: no masks; for predictions only.
        data_prefix: the folder ``img``.
        clip_sampler: ``WindowClipSampler`` or ``SparseClipSampler``; for training only.
        sentences_per_clip: for training, the maximum number of sentences per clip: the item's, and others of its video,
            redrawn each time (numpy's global generator).
        require_masks: require mask_file and ``anno_id`` of a test split, which evaluation needs.
        expected_videos: number of videos in a complete copy (train 1662, valid_u 50, valid 140).

    Raises:
        FileNotFoundError: a file, a folder, or a frame listed by the expressions is missing.
        ValueError: a file's content is not as above (an anno_id that is missing from mask_file, repeated in an
            expression or shared by two videos; codes that are broken, of different sizes, or not one per frame), the
            number of videos is not ``expected_videos``, or nothing is left.
    """

    LAYOUT = '{train,valid_u,valid}/JPEGImages and meta_expressions.json, {train,valid_u}/mask_dict.json'
    OBJECT_KEYS = dict(anno_id='anno_ids', obj_id='obj_ids')

    def __init__(
        self,
        *,
        ann_file: str,
        mask_file: str | None = None,
        data_root: str = '',
        data_prefix: dict | None = None,
        clip_sampler: dict | None = None,
        sentences_per_clip: int = 1,
        require_masks: bool = False,
        expected_videos: int | None = None,
        metainfo: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        data_prefix = dict(img='train/JPEGImages') if data_prefix is None else data_prefix
        if set(data_prefix) != {'img'}:
            raise UserError(f"data_prefix: expected the key 'img', found {list(data_prefix)}")
        if not test_mode and mask_file is None:
            raise UserError("mask_file: training needs the masks, e.g. mask_file='train/mask_dict.json'")
        self.mask_file = self._below_root(mask_file, data_root)
        self.codes: RunLengthCodes | None = None
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=data_prefix,
            clip_sampler=clip_sampler,
            sentences_per_clip=sentences_per_clip,
            require_masks=require_masks,
            expected_videos=expected_videos,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=pipeline,
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )

    def _read_frames(self, record: dict, where: str) -> list[str]:
        frames = super()._read_frames(record, where)
        if frames != record['frames']:
            raise UserError(
                f"{where}: expected 'frames' in ascending order, in which mask_dict.json has a mask for each, found "
                f'{listed(record["frames"])}'
            )
        return frames

    def _read_objects(self, item: dict, where: str) -> dict:
        if item.get('anno_id') is None:
            return dict(anno_id=None, obj_id=None)
        if item['anno_id'] == []:  # no target
            if item.get('obj_id'):
                raise UserError(
                    f"{where}: 'anno_id' is empty, so the expression has no target; expected an empty 'obj_id' as well, "
                    f'found {item["obj_id"]}'
                )
            return dict(anno_id=(), obj_id=())
        found = {}
        for key in self.OBJECT_KEYS:
            ids = get_field(item, key, list, where)
            if not ids or not all(type(i) is int for i in ids):
                raise UserError(f'{where}: {key!r} must be a list of at least one integer, found {ids}')
            found[key] = tuple(map(str, ids))
        if len(set(found['anno_id'])) < len(found['anno_id']):
            raise UserError(f"{where}: 'anno_id' has an annotation twice: {item['anno_id']}")
        return found

    def _select_videos(self, videos: dict[str, dict]) -> dict[str, dict]:
        videos = super()._select_videos(videos)
        short = [] if self.test_mode else [video for video, record in videos.items() if len(record['frames']) < 2]
        if short:
            MMLogger.get_current_instance().info(
                f'{self.ann_file}: {len(short)} of {len(videos)} videos are left out, since they have fewer than 2 '
                f'frames: {listed(short)}'
            )
        videos = {video: record for video, record in videos.items() if video not in short}
        return videos if self.test_mode else self._with_targets(videos)

    def _with_targets(self, videos: dict[str, dict]) -> dict[str, dict]:
        """The videos without expressions that have no target; videos without other expressions are dropped."""
        kept = {
            video: dict(record, expressions={i: item for i, item in record['expressions'].items() if item['anno_id']})
            for video, record in videos.items()
        }
        total, remaining = (sum(len(record['expressions']) for record in of.values()) for of in (videos, kept))
        if remaining < total:
            MMLogger.get_current_instance().info(
                f'{self.ann_file}: {total - remaining} of {total} expressions have no target and are left out, since a '
                'training clip must show what its sentence names'
            )
        return {video: record for video, record in kept.items() if record['expressions']}

    def _missing_masks(self) -> str | None:
        return 'mask_file is None' if self.mask_file is None else None

    def _load_objects(self, videos: dict[str, dict], has_masks: bool) -> 'RunLengthCodes | None':
        if not has_masks:
            return None
        wanted: dict[str, _Wanted] = {}
        for video, record in videos.items():
            for exp_id, item in record['expressions'].items():
                for anno_id in item['anno_id'] or ():
                    first = wanted.setdefault(anno_id, _Wanted(video, exp_id, len(record['frames'])))
                    if first.video != video:
                        raise UserError(
                            f'{place_of_expression(self.ann_file, video, exp_id, item)}: the anno_id {anno_id} is also in video '
                            f'{first.video}, expression {first.exp_id}'
                        )
        assert self.mask_file is not None
        self.codes = load_mask_dict(self.mask_file, wanted)
        if self.test_mode:
            self._count_never_seen(videos, self.codes)
        return self.codes

    def _count_never_seen(self, videos: dict[str, dict], codes: 'RunLengthCodes') -> None:
        logger = MMLogger.get_current_instance()
        expressions = [
            (place_of_expression(self.ann_file, video, exp_id, item), item['anno_id'])
            for video, record in videos.items()
            for exp_id, item in record['expressions'].items()
            if item['anno_id'] is not None
        ]
        without_target = [where for where, anno_ids in expressions if not anno_ids]
        never_seen = [
            where for where, anno_ids in expressions if anno_ids and not any(codes.shown(i).any() for i in anno_ids)
        ]
        if without_target:
            logger.info(
                f'{self.ann_file}: {len(without_target)} of {len(expressions)} expressions have no target: their mask is '
                'empty in every frame, and they are scored like the others'
            )
        if never_seen:
            logger.warning(
                f'{len(never_seen)} expressions name objects that no frame shows; the protocol scores them as well: '
                + '; '.join(never_seen)
            )

    def _present(self, video: str, record: dict, exp_id: str, objects: 'RunLengthCodes') -> list[bool]:
        of_objects = [objects.shown(anno_id) for anno_id in record['expressions'][exp_id]['anno_id']]
        return np.any(of_objects, axis=0).tolist()

    def _add_masks(self, info: dict, has_masks: bool) -> None:
        info['mask_paths'] = None  # there is no PNG per frame here
        codes, anno_ids = self.codes, info['anno_ids']
        if not has_masks or anno_ids is None:
            info['mask_rles'] = None
            return
        assert codes is not None
        info['mask_rles'] = {
            frame: [[code for i in ids if (code := codes.of_frame(i, index)) is not None] for ids in anno_ids]
            for frame, index in zip(info['frames'], info['frame_ids'], strict=True)
        }


class RunLengthCodes:
    """COCO run-length codes of many annotations, at most one per frame.

    All of them lie in one array, which forked processes such as loader workers share. Python objects would soon be
    copied, since every access writes to their reference counts.

    Args:
        first: of each annotation, the row of its first frame.
        sizes: of each annotation, the masks' height and width.
        text: uint8, the codes of all rows, one after the other.
        ends: int64, where the code of each row ends; an absent annotation has a code of length 0.
        shown: bool, for each row, whether its mask is non-empty.
        lengths: of each annotation, its number of frames.
    """

    def __init__(
        self,
        *,
        first: Mapping[str, int],
        lengths: Mapping[str, int],
        sizes: Mapping[str, Sequence[int]],
        text: np.ndarray,
        ends: np.ndarray,
        shown: np.ndarray,
    ) -> None:
        self._first, self._lengths, self._sizes = first, lengths, sizes
        self._text, self._ends, self._shown = text, ends, shown

    def __deepcopy__(self, memo: dict) -> 'RunLengthCodes':
        return self  # mmengine copies a data set to take a subset; this object is immutable

    def shown(self, anno_id: str) -> np.ndarray:
        """bool (T,): whether each frame shows the object."""
        first = self._first[anno_id]
        return self._shown[first : first + self._lengths[anno_id]]

    def of_frame(self, anno_id: str, frame: int) -> dict | None:
        """The run-length code ``dict(size=[height, width], counts=bytes)`` of a non-empty mask, else None."""
        assert 0 <= frame < self._lengths[anno_id], (anno_id, frame)
        row = self._first[anno_id] + frame
        if not self._shown[row]:
            return None
        start = self._ends[row - 1] if row else 0
        return dict(size=list(self._sizes[anno_id]), counts=self._text[start : self._ends[row]].tobytes())


class _Wanted(NamedTuple):
    video: str
    exp_id: str
    """the first expression that names the annotation"""
    num_frames: int


def load_mask_dict(path: str, wanted: Mapping[str, _Wanted]) -> RunLengthCodes:
    """Reads MeViS's ``mask_dict.json``, checks the wanted annotations and drops the others.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, lacks annotations, or they are not as described for `MeViSDataset`.
    """
    content = load_json(path, 'mask_file')
    if not isinstance(content, dict):
        raise UserError(f'mask_file {path}: expected an object {{anno_id: masks}}, found {type(content).__name__}')
    unknown = [f'{i} (video {of.video}, expression {of.exp_id})' for i, of in wanted.items() if i not in content]
    if unknown:
        raise UserError(
            f'mask_file {path}: {len(unknown)} unknown anno_id, of which there are no masks: {listed(unknown)}'
        )
    first: dict[str, int] = {}
    sizes: dict[str, list[int]] = {}
    text = bytearray()
    ends: list[int] = []
    shown = []
    for anno_id, of in wanted.items():
        where = f'mask_file {path}, anno_id {anno_id} (video {of.video}, expression {of.exp_id})'
        codes = content.pop(anno_id)  # frees its memory before the next one is copied
        if not isinstance(codes, list) or len(codes) != of.num_frames:
            found = f'{len(codes)} masks' if isinstance(codes, list) else type(codes).__name__
            raise UserError(f'{where}: expected a mask or null for each of {of.num_frames} frames, found {found}')
        first[anno_id] = len(ends)
        size, rles, areas = _check_codes(codes, where)
        sizes[anno_id] = size
        for code in rles:
            text += code
            ends.append(len(text))
        shown.append(areas > 0)
    return RunLengthCodes(
        first=first,
        lengths={anno_id: of.num_frames for anno_id, of in wanted.items()},
        sizes=sizes,
        text=np.frombuffer(text, np.uint8),
        ends=np.array(ends, np.int64),
        shown=np.concatenate(shown) if shown else np.zeros(0, bool),
    )


def _check_codes(codes: Sequence[Any], where: str) -> tuple[list[int], list[bytes], np.ndarray]:
    """
    Args:
        codes: per frame a run-length code or None.

    Returns:
        Height and width of all masks ([0, 0] if there is none), per frame the code's text (empty if None), and int64
        (T,), the area of each mask.
    """
    size: list[int] | None = None
    rles = []
    for t, code in enumerate(codes):
        if code is None:
            rles.append(b'')
            continue
        counts, of = (code.get('counts'), code.get('size')) if isinstance(code, dict) else (None, None)
        if not isinstance(counts, str) or not isinstance(of, list) or [type(side) for side in of] != [int, int]:
            raise UserError(
                f"{where}: expected null or a COCO run-length code, {{'size': [height, width], 'counts': string}}, in place "
                f'{t}, found {str(code)[:80]}'
            )
        size = size or of
        if of != size:
            raise UserError(
                f'{where}: expected masks of one size (height, width), found {size} and, in place {t}, {of}'
            )
        rles.append(counts.encode())
    areas: np.ndarray = np.zeros(len(codes), np.int64)
    places = [t for t, code in enumerate(codes) if code is not None]
    if size is None:
        return [0, 0], rles, areas
    totals, areas[places] = run_totals([rles[t] for t in places])
    for t, total in zip(places, totals.tolist()):
        if total != size[0] * size[1]:
            found = 'no such code' if total < 0 else f'{total}'
            raise UserError(
                f'{where}: the run-length code in place {t} is broken: expected runs of {size[0]} x {size[1]} pixels, found {found}'
            )
    return size, rles, areas
