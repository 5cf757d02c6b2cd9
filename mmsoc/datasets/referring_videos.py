"""What data sets share whose videos have sentences: the file of expressions, clips for training, videos for testing."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name, clean_text, get_field, load_json

from .data_root import check_root


class ReferringVideoDataset(BaseDataset):
    """Base of the data sets whose file of expressions lists the frames and the sentences of each video::

        {"videos": {<video>: {"frames": [<frame>, ...], "expressions": {<exp_id>: {"exp": <sentence>, ...}, ...}}, ...}}

    Training: an item is one expression and one clip of ``clip_sampler``, and with ``sentences_per_clip`` further
    expressions of the video beside it. The text is in lower case, with single spaces between the words and none around
    them.

    Testing: an item is one video with all its sentences and all its frames. The text stays as it is in the file, since
    that is what the published numbers were made with.

    What the pipeline gets: ``video_id``, ``frames`` (names), ``frame_ids`` (their positions in the video),
    ``img_paths``, ``texts``, ``exp_ids``, ``families``, ``held_out`` and what a subclass adds: the objects of each
    sentence and where their masks are; for training also ``labels`` and ``categories``. ``families`` and ``held_out``
    hold the expressions' optional keys ``family`` (a name) and ``held_out`` (true or false), one entry per sentence, None
    where an expression has no such key; where none has one, the whole list is None.

    A subclass says with ``OBJECT_KEYS`` which keys of an expression name its objects, and with the methods that have no
    body how they are read, and where their masks are.

    Args:
        ann_file: the expressions. What they name may be missing in a test split.
        data_prefix: folders; ``img`` holds ``<video>/<frame>.jpg``.
        clip_sampler: ``WindowClipSampler`` or ``SparseClipSampler``; for training only.
        sentences_per_clip: for training, at most so many sentences speak of a clip: that of the item, and others of its
            video that are drawn again each time (numpy's global generator). What does not see the text runs once for all
            of them. Where the clip does not show an object, packing drops the sentence.
        require_masks: a test split must have masks and say what the sentences name, since it is to be evaluated.
        expected_videos: number of videos that a complete copy has.

    Raises:
        FileNotFoundError: a file, a folder, or a frame that the expressions list is missing.
        ValueError: a file's content is not as above, a video or frame has a name that cannot be that of a file, the number
            of videos is not ``expected_videos``, or nothing is left.
    """

    METAINFO: dict = dict(classes=('referred',))
    LAYOUT: str
    """what should lie below data_root, for a message"""
    OBJECT_KEYS: dict[str, str]
    """Keys of an expression that say what it names, and the keys of the items, one entry per sentence, that they become;
    None there where the file has none. The first one tells whether the sentence's masks can be known."""

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str,
        data_prefix: dict,
        clip_sampler: dict | None,
        sentences_per_clip: int,
        require_masks: bool,
        expected_videos: int | None,
        metainfo: dict | None,
        indices: int | Sequence[int] | None,
        serialize_data: bool,
        pipeline: Sequence[dict | Callable],
        test_mode: bool,
        lazy_init: bool,
        max_refetch: int,
    ) -> None:
        if not test_mode and clip_sampler is None:
            raise UserError("clip_sampler: training needs one, e.g. dict(type='WindowClipSampler', num_frames=8)")
        if sentences_per_clip < 1:
            raise UserError(f'sentences_per_clip must be at least 1, found {sentences_per_clip}')
        self.clip_sampler = None if test_mode else TASK_UTILS.build(clip_sampler)
        self.sentences_per_clip = sentences_per_clip
        self.require_masks = require_masks
        self.expected_videos = expected_videos
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

    # ------------------------------------------------------------------------------------- what a subclass must say

    @abstractmethod
    def _read_objects(self, item: dict, where: str) -> dict:
        """The values of ``OBJECT_KEYS`` in an expression, checked; None where it has none."""

    @abstractmethod
    def _missing_masks(self) -> str | None:
        """The setting because of which there are no masks; None if there are."""

    @abstractmethod
    def _load_objects(self, videos: dict[str, dict], has_masks: bool) -> Any:
        """What is known of the objects, checked against the expressions; handed to the methods below."""

    @abstractmethod
    def _present(self, video: str, record: dict, exp_id: str, objects: Any) -> list[bool]:
        """For each frame, whether it shows what the sentence names."""

    @abstractmethod
    def _add_masks(self, info: dict, has_masks: bool) -> None:
        """Adds to an item where its masks are."""

    # ----------------------------------------------------------------------------------------------- what it may say

    def _leave_out(self, videos: dict[str, dict]) -> dict[str, dict]:
        """The videos without those that are not part of the split."""
        return videos

    def _label(self, video: str, item: dict, objects: Any) -> int:
        return 0

    def _categories(self, video: str, objects: Any) -> dict[str, str] | None:
        return None

    # ---------------------------------------------------------------------------------------------------------------

    def load_data_list(self) -> list[dict]:
        check_root(self.data_root, self.LAYOUT)
        videos = self._select_videos(self._load_videos())
        for video, record in videos.items():
            _check_files(self.data_prefix['img'], video, record['frames'], '.jpg', "data_prefix['img']")
        missing = self._missing_masks()
        if self.test_mode and self.require_masks:
            self._check_masks_given(videos, missing)
        elif self.test_mode and missing is not None:
            MMLogger.get_current_instance().info(f'{self.ann_file}: no masks ({missing}), good for predictions only')
        objects = self._load_objects(videos, missing is None)
        if self.test_mode:
            return self._test_items(videos, missing is None)
        return self._train_items(videos, objects)

    def get_data_info(self, idx: int) -> dict:
        """The idx-th item; for training its frames are drawn again at each call (where the sampler is random)."""
        info = super().get_data_info(idx)
        if self.clip_sampler is not None:
            info['frame_ids'] = self.clip_sampler.draw(info.pop('clip'), len(info['frames']))
            info['frames'] = [info['frames'][i] for i in info['frame_ids']]
            others = info.pop('others')
            drawn = np.random.permutation(len(others))[: self.sentences_per_clip - 1]
            info.update(self._of_sentences([info.pop('sentence'), *(others[i] for i in drawn)]))
        info['img_paths'] = self._paths('img', info, '.jpg')
        self._add_masks(info, info.pop('has_masks'))
        return info

    def _paths(self, prefix: str, info: dict, suffix: str) -> list[str]:
        return [os.path.join(self.data_prefix[prefix], info['video_id'], frame + suffix) for frame in info['frames']]

    def _load_videos(self) -> dict[str, dict]:
        """Returns ``{video: dict(frames=sorted names, expressions={exp_id: dict(exp, ...)})}``, checked."""
        videos = {}
        key = next(iter(self.OBJECT_KEYS))
        for video, record in _videos_of(self.ann_file, 'ann_file').items():
            where = f'ann_file {self.ann_file}, video {video!r}'
            check_file_name(video, where)
            where = f'ann_file {self.ann_file}, video {video}'
            expressions = get_field(record, 'expressions', dict, where)
            frames = self._read_frames(record, where)
            if not expressions:
                raise UserError(f"{where}: 'expressions' is empty")
            checked = {i: self._check_expression(item, f'{where}, expression {i}') for i, item in expressions.items()}
            with_object = [item[key] is not None for item in checked.values()]
            if any(with_object) != all(with_object):
                raise UserError(f'{where}: some expressions have an {key!r} and some have none')
            videos[video] = dict(frames=frames, expressions=checked)
        return videos

    def _read_frames(self, record: dict, where: str) -> list[str]:
        frames = get_field(record, 'frames', list, where)
        if not frames or not all(isinstance(frame, str) for frame in frames) or len(set(frames)) < len(frames):
            raise UserError(
                f"{where}: 'frames' must be a list of at least one frame name, each a string and none twice, found {frames}"
            )
        for frame in frames:
            check_file_name(frame, f"{where}, 'frames'")
        return sorted(frames)

    def _check_expression(self, item: Any, where: str) -> dict:
        text = get_field(item, 'exp', str, where)
        if not text.strip():
            raise UserError(f"{where}: the sentence 'exp' is empty")
        key = next(iter(self.OBJECT_KEYS))
        if item.get(key) is None and not self.test_mode:
            raise UserError(f'{where}: there is no {key!r}, which training needs')
        for name, kind in (('family', str), ('held_out', bool)):
            if item.get(name) is not None:
                get_field(item, name, kind, where)
        return dict(
            self._read_objects(item, where),
            exp=text if self.test_mode else clean_text(text, where),
            family=item.get('family'),
            held_out=item.get('held_out'),
        )

    def _select_videos(self, videos: dict[str, dict]) -> dict[str, dict]:
        folder = self.data_prefix['img']
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"data_prefix['img']: there is no folder {folder}")
        listed = len(videos)
        videos = self._leave_out(videos)
        if self.expected_videos is not None and len(videos) != self.expected_videos:
            raise UserError(
                f'expected_videos: {self.ann_file} should give {self.expected_videos} videos, found {len(videos)} '
                f'(of {listed} in the file); is the copy complete? None switches this check off'
            )
        if not videos:
            raise UserError(f'ann_file: no video is left of the {listed} in {self.ann_file}')
        return videos

    def _check_masks_given(self, videos: dict, missing: str | None) -> None:
        key = next(iter(self.OBJECT_KEYS))
        without_object = sum(item[key] is None for record in videos.values() for item in record['expressions'].values())
        if missing is None and not without_object:
            return
        error: type[Exception]
        if missing is None:
            error, reason = UserError, f'{without_object} expressions of {self.ann_file} have no {key!r}'
        else:
            error, reason = FileNotFoundError, missing
        raise error(
            f'require_masks: {reason}, so this split cannot be evaluated here. Add them, evaluate on another split, '
            'train without validation (--cfg-options val_dataloader=None val_evaluator=None val_cfg=None), or set '
            'require_masks=False to make predictions only'
        )

    def _of_sentences(self, sentences: Sequence[dict]) -> dict[str, list | None]:
        """What the pipeline gets of some sentences (``_sentence``): lists with an entry for each.

        An optional key that no sentence has becomes None; so do the objects unless all sentences have them.
        """
        lists: dict[str, list | None] = {key: [sentence[key] for sentence in sentences] for key in sentences[0]}
        for key in ('families', 'held_out'):
            if all(value is None for value in lists[key] or ()):
                lists[key] = None
        for key in self.OBJECT_KEYS.values():
            if None in (lists[key] or ()):
                lists[key] = None
        return lists

    def _sentence(self, exp_id: str, item: dict) -> dict:
        objects = {name: item[key] for key, name in self.OBJECT_KEYS.items()}
        return dict(objects, texts=item['exp'], exp_ids=exp_id, families=item['family'], held_out=item['held_out'])

    def _test_items(self, videos: dict, has_masks: bool) -> list[dict]:
        return [
            dict(
                self._of_sentences([self._sentence(exp_id, item) for exp_id, item in record['expressions'].items()]),
                video_id=video,
                frames=record['frames'],
                frame_ids=list(range(len(record['frames']))),
                has_masks=has_masks,
            )
            for video, record in videos.items()
        ]

    def _train_items(self, videos: dict, objects: Any) -> list[dict]:
        assert self.clip_sampler is not None
        items = []
        never_seen = []
        for video, record in videos.items():
            sentences = {
                exp_id: dict(self._sentence(exp_id, item), labels=self._label(video, item, objects))
                for exp_id, item in record['expressions'].items()
            }
            categories = self._categories(video, objects)
            for exp_id, item in record['expressions'].items():
                present = self._present(video, record, exp_id, objects)
                if not any(present):
                    never_seen.append(_expression(self.ann_file, video, exp_id, item))
                    continue
                others = [sentence for i, sentence in sentences.items() if i != exp_id]
                common = dict(
                    sentence=sentences[exp_id],
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
            raise UserError(f'ann_file: {self.ann_file} gives no training sample')
        num_expressions = sum(len(record['expressions']) for record in videos.values())
        logger.info(
            f'{self.ann_file}: {len(videos)} videos, {num_expressions} expressions, {len(items)} training samples'
        )
        return items


def _videos_of(path: str | None, key: str) -> dict[str, Any]:
    assert path is not None
    content = load_json(path, key)
    videos = get_field(content, 'videos', dict, f'{key} {path}')
    if not videos:
        raise UserError(f"{key} {path}: 'videos' is empty")
    return videos


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
