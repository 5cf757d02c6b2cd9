"""Ref-YouTube-VOS, and every data set in its layout (Ref-DAVIS17 after the usual conversion)."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from mmsoc.registry import DATASETS, TASK_UTILS

from .io import check_root, load_json
from .object_frames import object_frames

# The categories of meta.json in alphabetical order: the order gives the label.
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


@DATASETS.register_module()
class RefYouTubeVOSDataset(BaseDataset):
    """Videos with sentences, each sentence naming one object::

        data_root/
          meta_expressions/train/meta_expressions.json   ann_file
          train/JPEGImages/<video>/<frame>.jpg           data_prefix['img']
          train/Annotations/<video>/<frame>.png          data_prefix['mask'], pixel value = object id
          train/meta.json                                meta_file

    Training: an item is one expression and one clip of ``clip_sampler``, and with ``sentences_per_clip`` further
    expressions of the video beside it. The text is in lower case, with single spaces between the words and none around
    them.

    Testing: an item is one video with all its sentences and all its frames. The text stays as it is in the file, since
    that is what the published numbers were made with (in the public files 4 of 2,340 sentences would change, all by a
    space).

    What the pipeline gets: ``video_id``, ``frames`` (names), ``frame_ids`` (their positions in the video),
    ``img_paths``, ``mask_paths`` (None where a test split has no folder of masks), ``texts``, ``exp_ids``, ``obj_ids``
    (None where the file has none), ``families``; for training ``labels`` and ``categories``, for testing ``held_out``.
    ``families`` and ``held_out`` are what the expressions' optional keys ``family`` (a name) and ``held_out`` (true or
    false) say, one per sentence, else None. ``categories`` is ``{obj_id: category}`` of all objects of the video that
    have one in meta_file; None without meta_file.

    Frames, masks and expressions are checked against the disk when the data set is loaded.

    Args:
        ann_file: the expressions. ``obj_id`` may be missing in a test split.
        data_prefix: folders ``img`` and, optional for testing, ``mask``.
        meta_file: objects per video, with ``category`` (needed for ``use_category``) and possibly ``frames`` in which
            the object is seen. Where these are not listed, all masks of the video are read once and the result is kept
            (:func:`object_frames`).
        exclude_ann_file: expressions of videos to leave out. The valid file of Ref-YouTube-VOS holds valid + test, and
            the valid split is what is not in the test file. That file is no longer distributed: where it is absent,
            the videos that have a folder of frames are used, and the log says so.
        clip_sampler: ``WindowClipSampler`` or ``SparseClipSampler``; for training only.
        sentences_per_clip: for training, at most so many sentences speak of a clip: that of the item, and others of its
            video that are drawn anew each time (numpy's global generator). What does not see the text runs once for all
            of them. Where the clip does not show an object, packing drops the sentence.
        use_category: label = position of the object's category in ``metainfo['classes']`` (default: the 65 of
            YouTube-VOS). False: the only class is "referred", label 0.
        require_masks: a test split must have masks and ``obj_id``, since it is to be evaluated.
        expected_videos: number of videos that a complete copy has (Ref-YouTube-VOS: train 3471, valid 202).
        cache_dir: folder for what was found in the masks; see :func:`object_frames`.

    Raises:
        FileNotFoundError: a file, a folder, or a frame that the expressions list is missing.
        ValueError: a file's content is not as above, the number of videos is not ``expected_videos``, or nothing is
            left.
    """

    METAINFO: dict = dict(classes=('referred',))

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
            raise ValueError(
                f"data_prefix: expected the keys 'img' and 'mask' (optional for testing), found {list(data_prefix)}"
            )
        if not test_mode and 'mask' not in data_prefix:
            raise ValueError("data_prefix: training needs the folder of masks under the key 'mask'")
        if not test_mode and clip_sampler is None:
            raise ValueError("clip_sampler: training needs one, e.g. dict(type='WindowClipSampler', num_frames=8)")
        if sentences_per_clip < 1:
            raise ValueError(f'sentences_per_clip must be at least 1, found {sentences_per_clip}')
        if use_category and meta_file is None:
            raise ValueError('use_category=True needs meta_file (train/meta.json), which holds the categories')
        if use_category and 'classes' not in (metainfo or {}):
            metainfo = dict(metainfo or {}, classes=YOUTUBE_VOS_CATEGORIES)
        self.meta_file = self._below_root(meta_file, data_root)
        self.exclude_ann_file = self._below_root(exclude_ann_file, data_root)
        self.clip_sampler = None if test_mode else TASK_UTILS.build(clip_sampler)
        self.sentences_per_clip = sentences_per_clip
        self.use_category = use_category
        self.require_masks = require_masks
        self.expected_videos = expected_videos
        self.cache_dir = cache_dir
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=data_prefix,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )

    @staticmethod
    def _below_root(path: str | None, data_root: str) -> str | None:
        return path if path is None else os.path.join(data_root, path)

    def load_data_list(self) -> list[dict]:
        check_root(self.data_root, '{train,valid}/JPEGImages, train/Annotations and meta_expressions')
        videos = self._select_videos(self._load_videos())
        for video, record in videos.items():
            _check_files(self.data_prefix['img'], video, record['frames'], '.jpg', "data_prefix['img']")
        meta = None if self.meta_file is None else self._load_meta()
        if self.test_mode:
            return self._test_items(videos, meta)
        return self._train_items(videos, meta)

    def get_data_info(self, idx: int) -> dict:
        """The idx-th item; for training its frames are drawn anew at each call (where the sampler is random)."""
        info = super().get_data_info(idx)
        if self.clip_sampler is not None:
            info['frame_ids'] = self.clip_sampler.draw(info.pop('clip'), len(info['frames']))
            info['frames'] = [info['frames'][i] for i in info['frame_ids']]
            others = info.pop('others')
            for i in np.random.permutation(len(others))[:self.sentences_per_clip - 1]:
                for key, value in others[i].items():
                    info[key] = info[key] and [*info[key], *value]
        info['img_paths'] = self._paths('img', info, '.jpg')
        info['mask_paths'] = self._paths('mask', info, '.png') if info.pop('has_masks') else None
        return info

    def _paths(self, prefix: str, info: dict, suffix: str) -> list[str]:
        return [os.path.join(self.data_prefix[prefix], info['video_id'], frame + suffix) for frame in info['frames']]

    def _load_videos(self) -> dict[str, dict]:
        """Returns ``{video: dict(frames=sorted names, expressions={exp_id: dict(exp, obj_id or None)})}``, checked."""
        videos = {}
        for video, record in _videos_of(self.ann_file, 'ann_file').items():
            where = f'ann_file {self.ann_file}, video {video}'
            frames = _get(record, 'frames', list, where)
            expressions = _get(record, 'expressions', dict, where)
            if not frames or not all(isinstance(frame, str) for frame in frames) or len(set(frames)) < len(frames):
                raise ValueError(
                    f"{where}: 'frames' must be a list of at least one frame name, each a string and none twice, "
                    f'found {frames}'
                )
            if not expressions:
                raise ValueError(f"{where}: 'expressions' is empty")
            checked = {i: self._check_expression(item, f'{where}, expression {i}') for i, item in expressions.items()}
            with_object = [item['obj_id'] is not None for item in checked.values()]
            if any(with_object) != all(with_object):
                raise ValueError(f"{where}: some expressions have an 'obj_id' and some have none")
            videos[video] = dict(frames=sorted(frames), expressions=checked)
        return videos

    def _check_expression(self, item: Any, where: str) -> dict:
        text = _get(item, 'exp', str, where)
        if not text.strip():
            raise ValueError(f"{where}: the sentence 'exp' is empty")
        obj_id = item.get('obj_id')
        if obj_id is None and not self.test_mode:
            raise ValueError(f"{where}: there is no 'obj_id', which training needs")
        if obj_id is not None and not (str(obj_id).isdecimal() and 1 <= int(obj_id) <= 255):
            raise ValueError(f"{where}: 'obj_id' must be a palette index 1..255, found {obj_id!r}")
        for name, kind in (('family', str), ('held_out', bool)):
            if item.get(name) is not None:
                _get(item, name, kind, where)
        return dict(
            exp=text if self.test_mode else ' '.join(text.lower().split()),
            obj_id=obj_id and str(int(obj_id)),
            family=item.get('family'),
            held_out=item.get('held_out'),
        )

    def _select_videos(self, videos: dict[str, dict]) -> dict[str, dict]:
        logger = MMLogger.get_current_instance()
        folder = self.data_prefix['img']
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"data_prefix['img']: there is no folder {folder}")
        listed = len(videos)
        if self.exclude_ann_file is not None and os.path.isfile(self.exclude_ann_file):
            excluded = _videos_of(self.exclude_ann_file, 'exclude_ann_file')
            videos = {video: record for video, record in videos.items() if video not in excluded}
            logger.info(
                f'{self.ann_file}: {len(videos)} of {listed} videos are not in {self.exclude_ann_file} and are used'
            )
        elif self.exclude_ann_file is not None:
            on_disk = set(os.listdir(folder))
            videos = {video: record for video, record in videos.items() if video in on_disk}
            logger.warning(
                f'exclude_ann_file: there is no file {self.exclude_ann_file}; of the {listed} videos in '
                f'{self.ann_file}, the {len(videos)} that have a folder in {folder} are used'
            )
        if self.expected_videos is not None and len(videos) != self.expected_videos:
            raise ValueError(
                f'expected_videos: {self.ann_file} should give {self.expected_videos} videos, found {len(videos)} '
                f'(of {listed} in the file); is the copy complete? None switches this check off'
            )
        if not videos:
            raise ValueError(f'ann_file: no video is left of the {listed} in {self.ann_file}')
        return videos

    def _load_meta(self) -> dict[str, dict]:
        """Returns ``{video: {obj_id: dict(category=..., frames=...)}}``."""
        videos = _videos_of(self.meta_file, 'meta_file')
        return {
            video: {
                str(i): item
                for i, item in _get(record, 'objects', dict, f'meta_file {self.meta_file}, video {video}').items()
            }
            for video, record in videos.items()
        }

    def _check_object(self, video: str, exp_id: str, item: dict, meta: dict | None) -> None:
        if meta is None or item['obj_id'] is None:
            return
        if video not in meta:
            raise ValueError(f'meta_file {self.meta_file}: there is no video {video}, which {self.ann_file} has')
        if item['obj_id'] not in meta[video]:
            raise ValueError(
                f'{_expression(self.ann_file, video, exp_id, item)}: the unknown obj_id {item["obj_id"]!r}; '
                f'{self.meta_file} has {sorted(meta[video], key=int)} for this video'
            )

    def _test_items(self, videos: dict, meta: dict | None) -> list[dict]:
        has_masks = 'mask' in self.data_prefix and os.path.isdir(self.data_prefix['mask'])
        if self.require_masks:
            self._check_masks_given(videos, has_masks)
        elif not has_masks:
            MMLogger.get_current_instance().info(
                f"{self.ann_file}: no masks (data_prefix['mask'] is {self.data_prefix.get('mask')}), "
                'good for predictions only'
            )
        items = []
        for video, record in videos.items():
            expressions = record['expressions']
            for exp_id, item in expressions.items():
                self._check_object(video, exp_id, item, meta)
            if has_masks:
                _check_files(self.data_prefix['mask'], video, record['frames'], '.png', "data_prefix['mask']")
            obj_ids = [item['obj_id'] for item in expressions.values()]
            items.append(
                dict(
                    video_id=video,
                    frames=record['frames'],
                    frame_ids=list(range(len(record['frames']))),
                    texts=[item['exp'] for item in expressions.values()],
                    exp_ids=list(expressions),
                    obj_ids=None if None in obj_ids else obj_ids,
                    families=_listed(expressions, 'family'),
                    held_out=_listed(expressions, 'held_out'),
                    has_masks=has_masks,
                )
            )
        return items

    def _check_masks_given(self, videos: dict, has_masks: bool) -> None:
        without_object = sum(
            item['obj_id'] is None for record in videos.values() for item in record['expressions'].values()
        )
        if has_masks and not without_object:
            return
        error: type[Exception]
        if has_masks:
            error, reason = ValueError, f"{without_object} expressions of {self.ann_file} have no 'obj_id'"
        else:
            error = FileNotFoundError
            reason = f"data_prefix['mask']: there is no folder {self.data_prefix.get('mask')}"
        raise error(
            f'require_masks: {reason}, so this split cannot be evaluated here. Add them, evaluate on another split, '
            'train without validation (--cfg-options val_dataloader=None val_evaluator=None val_cfg=None), or set '
            'require_masks=False to make predictions only'
        )

    def _train_items(self, videos: dict, meta: dict | None) -> list[dict]:
        assert self.clip_sampler is not None
        for video, record in videos.items():
            _check_files(self.data_prefix['mask'], video, record['frames'], '.png', "data_prefix['mask']")
            for exp_id, item in record['expressions'].items():
                self._check_object(video, exp_id, item, meta)
        seen_in = self._frames_of_objects(videos, meta)
        items = []
        never_seen = []
        for video, record in videos.items():
            sentences = {
                exp_id: dict(
                    texts=[item['exp']],
                    exp_ids=[exp_id],
                    obj_ids=[item['obj_id']],
                    families=_listed({exp_id: item}, 'family'),
                    labels=[self._label(video, item['obj_id'], meta) if self.use_category else 0],
                )
                for exp_id, item in record['expressions'].items()
            }
            categories = meta and {i: item['category'] for i, item in meta[video].items() if 'category' in item}
            for exp_id, item in record['expressions'].items():
                present = [frame in seen_in[video].get(item['obj_id'], ()) for frame in record['frames']]
                if not any(present):
                    where = _expression(self.ann_file, video, exp_id, item)
                    if meta is None:
                        raise ValueError(
                            f'{where}: the unknown obj_id {item["obj_id"]!r}; the masks show '
                            f'{sorted(seen_in[video], key=int)}'
                        )
                    never_seen.append(where)
                    continue
                others = [sentence for i, sentence in sentences.items() if i != exp_id]
                common = dict(
                    sentences[exp_id],
                    video_id=video,
                    frames=record['frames'],
                    categories=categories,
                    others=others if self.sentences_per_clip > 1 else [],
                    has_masks=True,
                )
                items += [dict(common, clip=clip) for clip in self.clip_sampler.split(present)]
        logger = MMLogger.get_current_instance()
        if never_seen:
            logger.warning(
                f'{len(never_seen)} expressions are left out, since no frame shows their object: '
                + '; '.join(never_seen)
            )
        if not items:
            raise ValueError(f'ann_file: {self.ann_file} gives no training sample')
        num_expressions = sum(len(record['expressions']) for record in videos.values())
        logger.info(
            f'{self.ann_file}: {len(videos)} videos, {num_expressions} expressions, {len(items)} training samples'
        )
        return items

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

    def _label(self, video: str, obj_id: str, meta: dict | None) -> int:
        assert meta is not None
        where = f'meta_file {self.meta_file}, video {video}, object {obj_id}'
        category = _get(meta[video][obj_id], 'category', str, where)
        classes = list(self._metainfo['classes'])
        if category not in classes:
            raise ValueError(f"{where}: the category {category!r} is none of the {len(classes)} in metainfo['classes']")
        return classes.index(category)


def _videos_of(path: str | None, key: str) -> dict[str, Any]:
    assert path is not None
    content = load_json(path, key)
    videos = _get(content, 'videos', dict, f'{key} {path}')
    if not videos:
        raise ValueError(f"{key} {path}: 'videos' is empty")
    return videos


def _get(record: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f'{where}: expected an object with the key {name!r}, found {type(record).__name__}')
    if name not in record:
        raise ValueError(f'{where}: the key {name!r} is missing; there are {sorted(record)}')
    if not isinstance(record[name], kind):
        raise ValueError(f'{where}: {name!r} must be a {kind.__name__}, found {record[name]!r}')
    return record[name]


def _listed(expressions: dict[str, dict], name: str) -> list | None:
    """What each expression says under an optional key; None if none says anything."""
    values = [item[name] for item in expressions.values()]
    return None if all(value is None for value in values) else values


def _check_files(root: str, video: str, frames: Sequence[str], suffix: str, key: str) -> None:
    folder = os.path.join(root, video)
    try:
        present = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f'{key}: there is no folder {folder} (video {video})') from None
    missing = [frame + suffix for frame in frames if frame + suffix not in present]
    if missing:
        raise FileNotFoundError(
            f'{key}: {len(missing)} of {len(frames)} listed frames are missing in {folder} (video {video}): '
            + ', '.join(missing[:5])
            + (', ...' if len(missing) > 5 else '')
        )


def _expression(ann_file: str, video: str, exp_id: str, item: dict) -> str:
    return f'{ann_file}, video {video}, expression {exp_id} ({item["exp"]!r})'
