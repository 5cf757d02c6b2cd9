"""Ref-YouTube-VOS, and every data set in its layout (Ref-DAVIS17 after the usual conversion)."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmengine.logging import MMLogger

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import get_field

from .object_frames import object_frames
from .referring_videos import ReferringVideoDataset, check_files, load_videos, place_of_expression

# The categories of meta.json in alphabetical order, which defines the labels.
# fmt: off
YOUTUBE_VOS_CATEGORIES = (
    'airplane', 'ape', 'bear', 'bike', 'bird', 'boat', 'bucket', 'bus', 'camel', 'cat', 'cow', 'crocodile', 'deer',
    'dog', 'dolphin', 'duck', 'eagle', 'earless_seal', 'elephant', 'fish', 'fox', 'frisbee', 'frog', 'giant_panda',
    'giraffe', 'hand', 'hat', 'hedgehog', 'horse', 'knife', 'leopard', 'lion', 'lizard', 'monkey', 'motorbike', 'mouse',
    'others', 'owl', 'paddle', 'parachute', 'parrot', 'penguin', 'person', 'plant', 'rabbit', 'raccoon', 'sedan',
    'shark', 'sheep', 'sign', 'skateboard', 'snail', 'snake', 'snowboard', 'squirrel', 'surfboard', 'tennis_racket',
    'tiger', 'toilet', 'train', 'truck', 'turtle', 'umbrella', 'whale', 'zebra',
)
# fmt: on


class _Objects(NamedTuple):
    meta: dict[str, dict] | None
    """``{video: {obj_id: dict(category=..., frames=...)}}`` of meta_file"""
    seen_in: dict[str, dict[str, set[str]]]
    """``{video: {obj_id: frames that show it}}``, for training only"""


@DATASETS.register_module()
class RefYouTubeVOSDataset(ReferringVideoDataset):
    """Videos with sentences, each sentence naming one object::

        data_root/
          meta_expressions/train/meta_expressions.json   ann_file
          train/JPEGImages/<video>/<frame>.jpg           data_prefix['img']
          train/Annotations/<video>/<frame>.png          data_prefix['mask'], pixel value = object id
          train/meta.json                                meta_file

    Training: an item is one expression and one clip of ``clip_sampler``, and with ``sentences_per_clip`` > 1 further
    expressions of the video. The text is lower-cased, with single spaces between words and none around them.

    Testing: an item is one video with all its sentences and all its frames. The text is unchanged, as for the published
    numbers (in the public files normalization would change 4 of 2,340 sentences, all by a space).

    What the pipeline gets: ``video_id``, ``frames`` (names), ``frame_ids`` (their positions in the video),
    ``img_paths``, ``mask_paths`` (None where a test split has no folder of masks), ``texts``, ``exp_ids``, ``obj_ids``
    (None where the file has none), ``families``; for training ``labels`` and ``categories``, for testing ``held_out``.
    ``families`` and ``held_out`` are the values of the expressions' optional keys ``family`` (a name) and ``held_out``
    (true or false), one per sentence, else None. ``categories`` is ``{obj_id: category}`` of all objects of the video
    that have one in meta_file; None without meta_file.

    The files of frames and masks are checked when the data set is loaded.

    Args:
        ann_file: the expressions. ``obj_id`` may be missing in a test split.
        data_prefix: folders ``img`` and, optional for testing, ``mask``.
        meta_file: objects per video, with ``category`` (needed for ``use_category``) and optionally ``frames`` that
            show the object. If these are missing, all masks of the video are read once and the result is cached
            (`object_frames`).
        exclude_ann_file: expressions of videos to leave out. The valid file of Ref-YouTube-VOS contains valid + test,
            and the valid split is those that the test file lacks. The test file is no longer distributed: without it,
            the videos that have a folder of frames are used, which is logged.
        clip_sampler: ``WindowClipSampler`` or ``SparseClipSampler``; for training only.
        sentences_per_clip: for training, the maximum number of sentences per clip: the item's, and others of its video,
            redrawn each time (numpy's global generator). The text-independent part runs once for all of them. Packing
            drops sentences whose object the clip does not show.
        use_category: label = position of the object's category in ``metainfo['classes']`` (default: the 65 of
            YouTube-VOS). False: the only class is "referred", label 0.
        require_masks: require masks and ``obj_id`` of a test split, which evaluation needs.
        expected_videos: number of videos in a complete copy (Ref-YouTube-VOS: train 3471, valid 202).
        cache_dir: folder for the cache of `object_frames`.

    Raises:
        FileNotFoundError: a file, a folder, or a frame listed by the expressions is missing.
        ValueError: a file's content is not as above, the number of videos is not ``expected_videos``, or nothing is
            left.
    """

    LAYOUT = '{train,valid}/JPEGImages, train/Annotations and meta_expressions'
    OBJECT_KEYS = dict(obj_id='obj_ids')

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str = '',
        data_prefix: dict | None = None,
        meta_file: str | None = None,
        exclude_ann_file: str | None = None,
        clip_sampler: dict | None = None,
        sentences_per_clip: int = 1,
        use_category: bool = False,
        require_masks: bool = False,
        expected_videos: int | None = None,
        cache_dir: str | None = None,
        metainfo: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        data_prefix = dict(img='train/JPEGImages', mask='train/Annotations') if data_prefix is None else data_prefix
        if 'img' not in data_prefix or not set(data_prefix) <= {'img', 'mask'}:
            raise UserError(
                f"data_prefix: expected the keys 'img' and 'mask' (optional for testing), found {list(data_prefix)}"
            )
        if not test_mode and 'mask' not in data_prefix:
            raise UserError("data_prefix: training needs the folder of masks under the key 'mask'")
        if use_category and meta_file is None:
            raise UserError('use_category=True needs meta_file (train/meta.json), which holds the categories')
        if use_category and 'classes' not in (metainfo or {}):
            metainfo = dict(metainfo or {}, classes=YOUTUBE_VOS_CATEGORIES)
        self.meta_file = self._below_root(meta_file, data_root)
        self.exclude_ann_file = self._below_root(exclude_ann_file, data_root)
        self.use_category = use_category
        self.cache_dir = cache_dir
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

    def _read_objects(self, item: dict, where: str) -> dict:
        obj_id = item.get('obj_id')
        if obj_id is not None and not (str(obj_id).isdecimal() and 1 <= int(obj_id) <= 255):
            raise UserError(f"{where}: 'obj_id' must be a palette index 1..255, found {obj_id!r}")
        return dict(obj_id=obj_id and str(int(obj_id)))

    def _leave_out(self, videos: dict[str, dict]) -> dict[str, dict]:
        if self.exclude_ann_file is None:
            return videos
        logger = MMLogger.get_current_instance()
        listed = len(videos)
        if os.path.isfile(self.exclude_ann_file):
            excluded = load_videos(self.exclude_ann_file, 'exclude_ann_file')
            videos = {video: record for video, record in videos.items() if video not in excluded}
            logger.info(
                f'{self.ann_file}: {len(videos)} of {listed} videos are not in {self.exclude_ann_file} and are used'
            )
        else:
            folder = self.data_prefix['img']
            on_disk = set(os.listdir(folder))
            videos = {video: record for video, record in videos.items() if video in on_disk}
            logger.warning(
                f'exclude_ann_file: there is no file {self.exclude_ann_file}; of the {listed} videos in '
                f'{self.ann_file}, the {len(videos)} that have a folder in {folder} are used'
            )
        return videos

    def _missing_masks(self) -> str | None:
        folder = self.data_prefix.get('mask')
        if folder is not None and os.path.isdir(folder):
            return None
        return f"data_prefix['mask']: there is no folder {folder}"

    def _load_objects(self, videos: dict[str, dict], has_masks: bool) -> _Objects:
        meta = None if self.meta_file is None else self._load_meta()
        for video, record in videos.items():
            # In training a missing folder of masks is an error as well.
            if has_masks or not self.test_mode:
                check_files(self.data_prefix['mask'], video, record['frames'], '.png', "data_prefix['mask']")
            for exp_id, item in record['expressions'].items():
                self._check_object(video, exp_id, item, meta)
        return _Objects(meta, {} if self.test_mode else self._frames_of_objects(videos, meta))

    def _load_meta(self) -> dict[str, dict]:
        """Returns ``{video: {obj_id: dict(category=..., frames=...)}}``."""
        videos = load_videos(self.meta_file, 'meta_file')
        return {
            video: {
                str(i): item
                for i, item in get_field(record, 'objects', dict, f'meta_file {self.meta_file}, video {video}').items()
            }
            for video, record in videos.items()
        }

    def _check_object(self, video: str, exp_id: str, item: dict, meta: dict | None) -> None:
        if meta is None or item['obj_id'] is None:
            return
        if video not in meta:
            raise UserError(f'meta_file {self.meta_file}: there is no video {video}, which {self.ann_file} has')
        if item['obj_id'] not in meta[video]:
            raise UserError(
                f'{place_of_expression(self.ann_file, video, exp_id, item)}: the unknown obj_id {item["obj_id"]!r}; '
                f'{self.meta_file} has {sorted(meta[video], key=int)} for this video'
            )

    def _present(self, video: str, record: dict, exp_id: str, objects: _Objects) -> list[bool]:
        item = record['expressions'][exp_id]
        shown_in = objects.seen_in[video].get(item['obj_id'], set())
        present = [frame in shown_in for frame in record['frames']]
        if objects.meta is None and not any(present):
            raise UserError(
                f'{place_of_expression(self.ann_file, video, exp_id, item)}: the unknown obj_id {item["obj_id"]!r}; the masks '
                f'show {sorted(objects.seen_in[video], key=int)}'
            )
        return present

    def _categories(self, video: str, objects: _Objects) -> dict[str, str] | None:
        if objects.meta is None:
            return None
        return {i: item['category'] for i, item in objects.meta[video].items() if 'category' in item}

    def _label(self, video: str, item: dict, objects: _Objects) -> int:
        if not self.use_category:
            return 0
        assert objects.meta is not None
        where = f'meta_file {self.meta_file}, video {video}, object {item["obj_id"]}'
        category = get_field(objects.meta[video][item['obj_id']], 'category', str, where)
        classes = list(self._metainfo['classes'])
        if category not in classes:
            raise UserError(f"{where}: the category {category!r} is none of the {len(classes)} in metainfo['classes']")
        return classes.index(category)

    def _add_masks(self, info: dict, has_masks: bool) -> None:
        info['mask_paths'] = self._paths('mask', info, '.png') if has_masks else None

    def _frames_of_objects(self, videos: dict, meta: dict | None) -> dict[str, dict[str, set[str]]]:
        """Returns ``{video: {obj_id: frames that show it}}``, from meta_file if it lists them, else from the masks."""
        result: dict[str, dict[str, set[str]]] = {}
        to_scan = {}
        for video, record in videos.items():
            needed = {item['obj_id'] for item in record['expressions'].values()}
            if meta is not None and all('frames' in meta[video][i] for i in needed):
                result[video] = {i: set(meta[video][i]['frames']) for i in needed}
            else:
                to_scan[video] = record['frames']
        if to_scan:
            for video, found in object_frames(self.data_prefix['mask'], to_scan, self.cache_dir).items():
                seen: dict[str, set[str]] = {}
                for frame, ids in found.items():
                    for i in ids:
                        seen.setdefault(str(i), set()).add(frame)
                result[video] = seen
        return result
