"""Base of the data sets of videos with sentences: the file of expressions, training clips, test videos."""

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
    """Base of the data sets whose expressions file lists the frames and sentences of each video::

        {"videos": {<video>: {"frames": [<frame>, ...], "expressions": {<exp_id>: {"exp": <sentence>, ...}, ...}}, ...}}

    Training: an item is one expression and one clip of ``clip_sampler``, and with ``sentences_per_clip`` > 1 further
    expressions of the video. The text is lower-cased, with single spaces between words and none around them.

    Testing: an item is one video with all its sentences and all its frames. The text is unchanged, as for the published
    numbers.

    What the pipeline gets: ``video_id``, ``frames`` (names), ``frame_ids`` (their positions in the video),
    ``img_paths``, ``texts``, ``exp_ids``, ``families``, ``held_out`` and what a subclass adds: the objects of each
    sentence and the location of their masks; for training also ``labels`` and ``categories``. ``families`` and
    ``held_out`` hold the expressions' optional keys ``family`` (a name) and ``held_out`` (true or false), one entry per
    sentence, None if an expression lacks the key; if all lack it, the whole list is None.

    A subclass sets ``OBJECT_KEYS``, the keys of an expression that name its objects, and implements the abstract
    methods, which read them and locate their masks.

    Args:
        ann_file: the expressions. Their objects may be missing in a test split.
        data_prefix: folders; ``img`` holds ``<video>/<frame>.jpg``.
        clip_sampler: ``WindowClipSampler`` or ``SparseClipSampler``; for training only.
        sentences_per_clip: for training, the maximum number of sentences per clip: the item's, and others of its video,
            redrawn each time (numpy's global generator). The text-independent part runs once for all of them. Packing
            drops sentences whose object the clip does not show.
        require_masks: require masks and the sentences' objects of a test split, which evaluation needs.
        expected_videos: number of videos in a complete copy.

    Raises:
        FileNotFoundError: a file, a folder, or a frame listed by the expressions is missing.
        ValueError: a file's content is not as above, the name of a video or frame cannot be a file name, the number of
            videos is not ``expected_videos``, or nothing is left.
    """

    METAINFO: dict = dict(classes=('referred',))
    LAYOUT: str
    """the expected content of data_root, for messages"""
    OBJECT_KEYS: dict[str, str]
    """Keys of an expression that name its objects, mapped to keys of the items, which hold one entry per sentence, or
    None if the file lacks the key. The first key decides whether a sentence's masks are known."""

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

    # ---------------------------------------------------------------------------------- to be implemented by subclasses

    @abstractmethod
    def _read_objects(self, item: dict, where: str) -> dict:
        """The values of ``OBJECT_KEYS`` in an expression, checked; None where it has none."""

    @abstractmethod
    def _missing_masks(self) -> str | None:
        """The setting that explains why there are no masks; None if there are."""

    @abstractmethod
    def _load_objects(self, videos: dict[str, dict], has_masks: bool) -> Any:
        """The objects, checked against the expressions; passed to the methods below."""

    @abstractmethod
    def _present(self, video: str, record: dict, exp_id: str, objects: Any) -> list[bool]:
        """For each frame, whether it shows the sentence's objects."""

    @abstractmethod
    def _add_masks(self, info: dict, has_masks: bool) -> None:
        """Adds the location of the masks to an item."""

    # ------------------------------------------------------------------------------------------------ may be overridden

    def _leave_out(self, videos: dict[str, dict]) -> dict[str, dict]:
        """The videos without those that are not part of the split."""
        return videos

    def _label(self, video: str, item: dict, objects: Any) -> int:
        return 0

    def _categories(self, video: str, objects: Any) -> dict[str, str] | None:
        return None

    # ---------------------------------------------------------------------------------------------------------------

    def check(self) -> int:
        """Checks what can be checked in seconds: the files of videos and sentences, the frames, and whether there are masks.

        Returns:
            The number of videos.

        Raises:
            FileNotFoundError, UserError: as when the data set is loaded.
        """
        videos = self._check_videos()
        missing = self._missing_masks()
        if missing is not None and not self.test_mode:
            raise FileNotFoundError(missing)
        return len(videos)

    def why_not_scored(self) -> str | None:
        """Why a test split with ``require_masks`` cannot be scored; None if it can be, or its files are not there at all."""
        if not (self.test_mode and self.require_masks and os.path.isfile(self.ann_file)):
            return None
        try:
            error = self._masks_error(self._select_videos(self._load_videos()))
        except (FileNotFoundError, UserError):
            return None
        return None if error is None else str(error)

    def _check_videos(self) -> dict[str, dict]:
        check_root(self.data_root, self.LAYOUT)
        videos = self._select_videos(self._load_videos())
        for video, record in videos.items():
            check_files(self.data_prefix['img'], video, record['frames'], '.jpg', "data_prefix['img']")
        error = self._masks_error(videos)
        if error is not None:
            raise error
        return videos

    def load_data_list(self) -> list[dict]:
        videos = self._check_videos()
        missing = self._missing_masks()
        if self.test_mode and missing is not None and not self.require_masks:
            MMLogger.get_current_instance().info(f'{self.ann_file}: no masks ({missing}), good for predictions only')
        objects = self._load_objects(videos, missing is None)
        if self.test_mode:
            return self._test_items(videos, missing is None)
        return self._train_items(videos, objects)

    def get_data_info(self, idx: int) -> dict:
        """The idx-th item; for training, a random sampler redraws its frames at each call."""
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
        for video, record in load_videos(self.ann_file, 'ann_file').items():
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
        for name, kind in (('family', str), ('held_out', bool), ('event', str)):
            if item.get(name) is not None:
                get_field(item, name, kind, where)
        return dict(
            self._read_objects(item, where),
            exp=text if self.test_mode else clean_text(text, where),
            family=item.get('family'),
            held_out=item.get('held_out'),
            event=item.get('event'),
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

    def _masks_error(self, videos: dict) -> FileNotFoundError | UserError | None:
        """What is wrong if ``require_masks`` is not met."""
        if not (self.test_mode and self.require_masks):
            return None
        key, missing = next(iter(self.OBJECT_KEYS)), self._missing_masks()
        without_object = sum(item[key] is None for record in videos.values() for item in record['expressions'].values())
        if missing is None and not without_object:
            return None
        error: type[FileNotFoundError | UserError]
        if missing is None:
            error, reason = UserError, f'{without_object} expressions of {self.ann_file} have no {key!r}'
        else:
            error, reason = FileNotFoundError, missing
        return error(
            f'require_masks: {reason}, so this split cannot be evaluated here. Add them, evaluate on another split, '
            'train without validation (--cfg-options val_dataloader=None val_evaluator=None val_cfg=None), or set '
            'require_masks=False to make predictions only'
        )

    def _of_sentences(self, sentences: Sequence[dict]) -> dict[str, list | None]:
        """The pipeline's keys of some sentences (``_sentence``): lists with an entry per sentence.

        An optional key that no sentence has becomes None; so do the objects unless all sentences have them.
        """
        lists: dict[str, list | None] = {key: [sentence[key] for sentence in sentences] for key in sentences[0]}
        for key in ('families', 'held_out', 'events'):
            if all(value is None for value in lists[key] or ()):
                lists[key] = None
        for key in self.OBJECT_KEYS.values():
            if None in (lists[key] or ()):
                lists[key] = None
        return lists

    def _sentence(self, exp_id: str, item: dict) -> dict:
        objects = {name: item[key] for key, name in self.OBJECT_KEYS.items()}
        return dict(
            objects,
            texts=item['exp'],
            exp_ids=exp_id,
            families=item['family'],
            held_out=item['held_out'],
            events=item['event'],
        )

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
                    never_seen.append(place_of_expression(self.ann_file, video, exp_id, item))
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


def load_videos(path: str | None, key: str) -> dict[str, Any]:
    """The ``videos`` of a JSON file, which ``key`` of the config names."""
    assert path is not None
    content = load_json(path, key)
    videos = get_field(content, 'videos', dict, f'{key} {path}')
    if not videos:
        raise UserError(f"{key} {path}: 'videos' is empty")
    return videos


def check_files(root: str, video: str, frames: Sequence[str], suffix: str, key: str) -> None:
    """Raises FileNotFoundError if a folder lacks a frame of its video; ``key`` of the config names the root."""
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


def place_of_expression(ann_file: str, video: str, exp_id: str, item: dict) -> str:
    """The place and the text of an expression, for error messages."""
    return f'{ann_file}, video {video}, expression {exp_id} ({item["exp"]!r})'
