"""JHMDB-Sentences (Gavrilyuk et al., CVPR 2018), on which models of A2D-Sentences are evaluated."""

import os
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name, clean_text, listed, load_json

from .a2d_sentences import key_frame_flags, read_csv, window
from .data_root import check_root
from .referring_videos import check_files
from .transforms.video_loading import frame_name, puppet_mask_length


@DATASETS.register_module()
class JHMDBSentencesDataset(BaseDataset):
    """928 videos, each with one sentence and the mask of one person; for evaluation only::

        data_root/
          Rename_Images/<action>/<video>/<frame>.png          data_prefix['img'], counted from 1
          puppet_mask/<action>/<video>/puppet_mask.mat        data_prefix['mask'], field part_mask (H, W, T)
          jhmdb_annotation.txt                                ann_file: video_id, query

    Three randomly drawn frames of each video are evaluated, and the published lists differ: scores are comparable only
    for the same ``samples_file``. That of MTTR has 2,784 rows ``[video,
    ./jhmdb_sentences/Rename_Images/<action>/<video>/<frame>.png, ./jhmdb_sentences/puppet_mask/<action>/<video>/
    puppet_mask.mat, number of frames, sentence]`` (its repository, datasets/jhmdb_sentences). Without it the frames are
    drawn here. The log and the metric's report name the source (``metainfo['samples']``).

    An item is a sample: a clip of ``num_frames`` around the evaluated frame, as `A2DSentencesDataset` makes it. What the
    pipeline gets: ``video_id``, ``img_paths``, ``mask_path`` (the mat file), ``frame_ids`` (0-based), ``frames`` (their
    names), ``key_frame_flags``, ``texts`` (one, lower case), ``exp_ids`` (``v_<video>_f_<frame>``).

    Args:
        samples_file: the list of samples; None: ``frames_per_video`` frames of each video are drawn with ``seed``. With
            a list, ann_file is not read.
        num_frames: w, the length of a clip.
        expected_samples: number of samples of a complete copy (2784).

    Raises:
        FileNotFoundError: a file, folder or frame is missing.
        ValueError: a file's content is not as above, or the number of samples is not ``expected_samples``.
    """

    METAINFO: dict = dict(classes=('referred',))

    def __init__(
        self,
        *,
        samples_file: str | None = None,
        frames_per_video: int = 3,
        seed: int = 0,
        ann_file: str = 'jhmdb_annotation.txt',
        data_root: str = '',
        data_prefix: dict | None = None,
        num_frames: int = 8,
        expected_samples: int | None = None,
        metainfo: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = True,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        data_prefix = dict(img='Rename_Images', mask='puppet_mask') if data_prefix is None else data_prefix
        if set(data_prefix) != {'img', 'mask'}:
            raise UserError(f"data_prefix: expected the keys 'img' and 'mask', found {list(data_prefix)}")
        if not test_mode:
            raise UserError('JHMDB-Sentences is for evaluation only: test_mode must be True')
        if num_frames < 1 or frames_per_video < 1:
            raise UserError(
                f'num_frames and frames_per_video must be at least 1, found {num_frames} and {frames_per_video}'
            )
        self.samples_file = None if samples_file is None else os.path.join(data_root, samples_file)
        self.frames_per_video = frames_per_video
        self.seed = seed
        self.num_frames = num_frames
        self.expected_samples = expected_samples
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
        # Not passed as the argument: MMEngine would look for a file of this name.
        self._metainfo['samples'] = self._which_samples()

    def _which_samples(self) -> str:
        if self.samples_file is not None:
            return f'the list {self.samples_file}'
        return f'{self.frames_per_video} frames per video, drawn with seed {self.seed} (no published list: set samples_file)'

    def load_data_list(self) -> list[dict]:
        check_root(self.data_root, 'Rename_Images, puppet_mask and jhmdb_annotation.txt')
        for key in ('img', 'mask'):
            if not os.path.isdir(self.data_prefix[key]):
                raise FileNotFoundError(f"data_prefix['{key}']: there is no folder {self.data_prefix[key]}")
        samples = self._draw() if self.samples_file is None else read_samples(self.samples_file)
        if self.expected_samples is not None and len(samples) != self.expected_samples:
            raise UserError(
                f'expected_samples: expected {self.expected_samples} samples, found {len(samples)} ({self._which_samples()}); '
                'None switches this check off'
            )
        if not samples:
            raise UserError(f'no samples ({self._which_samples()})')
        needed: dict[tuple[str, str], set[int]] = {}
        for sample in samples:
            needed.setdefault((sample['action'], sample['video_id']), set()).update(_clip(sample, self.num_frames))
        for (action, video), indices in needed.items():
            frames = [frame_name(index) for index in sorted(indices)]
            check_files(os.path.join(self.data_prefix['img'], action), video, frames, '.png', "data_prefix['img']")
        missing = [
            f'{action}/{video}' for action, video in needed if not os.path.isfile(self._mask_path(action, video))
        ]
        if missing:
            raise FileNotFoundError(
                f"data_prefix['mask']: {len(missing)} of {len(needed)} videos have no puppet_mask.mat in "
                f'{self.data_prefix["mask"]}: {listed(missing)}'
            )
        MMLogger.get_current_instance().info(
            f'{self.data_root}: {len(samples)} samples of {len(needed)} videos: {self._which_samples()}'
        )
        return samples

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        clip = _clip(info, self.num_frames)
        action, text, video, number = info.pop('action'), info.pop('text'), info['video_id'], info.pop('key_frame') + 1
        del info['length']
        folder = os.path.join(self.data_prefix['img'], action, video)
        info.update(
            frame_ids=clip,
            frames=[frame_name(index) for index in clip],
            key_frame_flags=key_frame_flags(self.num_frames),
            img_paths=[os.path.join(folder, f'{frame_name(index)}.png') for index in clip],
            mask_path=self._mask_path(action, video),
            mask_paths=None,  # there is no PNG per frame here
            texts=[text],
            exp_ids=[f'v_{video}_f_{number}'],
            obj_ids=None,
        )
        return info

    def _mask_path(self, action: str, video: str) -> str:
        return os.path.join(self.data_prefix['mask'], action, video, 'puppet_mask.mat')

    def _draw(self) -> list[dict]:
        """``frames_per_video`` frames of each video of ann_file; a video's numbers do not depend on the other videos."""
        root = self.data_prefix['img']
        action_of = {
            video: action
            for action in sorted(os.listdir(root))
            if os.path.isdir(os.path.join(root, action))
            for video in os.listdir(os.path.join(root, action))
        }
        samples = []
        for video, text in read_jhmdb_sentences(self.ann_file).items():
            where = f'ann_file {self.ann_file}, video {video}'
            if video not in action_of:
                raise FileNotFoundError(f"data_prefix['img']: there is no folder {root}/<action>/{video} ({where})")
            action = action_of[video]
            frames = [name for name in os.listdir(os.path.join(root, action, video)) if name.endswith('.png')]
            # The masks may end before the frames.
            length = min(len(frames), puppet_mask_length(self._mask_path(action, video), where))
            if length < self.frames_per_video:
                raise UserError(f'{where}: frames_per_video={self.frames_per_video}, found {length} frames with masks')
            generator = np.random.default_rng([self.seed, *video.encode()])
            for index in sorted(generator.choice(length, self.frames_per_video, replace=False).tolist()):
                samples.append(dict(video_id=video, action=action, key_frame=index, length=length, text=text))
        return samples


def _clip(sample: dict, num_frames: int) -> list[int]:
    return [min(index, sample['length'] - 1) for index in window(sample['key_frame'], num_frames)]


def read_samples(path: str) -> list[dict]:
    """Reads a list of samples (see `JHMDBSentencesDataset`); only action, video and frame are taken from the paths.

    Returns:
        Per sample ``video_id``, ``action``, ``key_frame`` (0-based), ``length`` (frames with masks) and ``text`` (lower case).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is malformed or occurs twice.
    """
    rows = load_json(path, 'samples_file')
    if not isinstance(rows, list):
        raise UserError(f'samples_file {path}: expected a list of rows, found {type(rows).__name__}')
    samples = []
    seen: dict[tuple[str, int], int] = {}
    for number, row in enumerate(rows):
        sample = parse_sample(row, f'samples_file {path}, row {number}')
        earlier = seen.setdefault((sample['video_id'], sample['key_frame']), number)
        if earlier != number:
            raise UserError(
                f'samples_file {path}, row {number}: video {sample["video_id"]}, frame {sample["key_frame"] + 1} is already in '
                f'row {earlier}'
            )
        samples.append(sample)
    return samples


def parse_sample(row: Any, where: str) -> dict:
    """Parses and checks a row of the samples file.

    Raises:
        UserError: it is not of the expected form.
    """
    if not isinstance(row, list) or [type(value) for value in row] != [str, str, str, int, str]:
        raise UserError(
            f'{where}: expected [video, path of the frame, path of the mat, number of frames, sentence], found {row}'
        )
    video, frame, mat, length, text = row
    frame_parts, mat_parts = PurePosixPath(frame).parts, PurePosixPath(mat).parts
    name = PurePosixPath(frame).stem
    fits = len(frame_parts) >= 3 and frame_parts[-2:] == (video, f'{name}.png')
    if not (fits and len(name) == 5 and name.isdecimal()):
        raise UserError(
            f"{where}: expected the frame's path to end in <action>/{video}/<5 digits>.png, found {frame!r}"
        )
    action = frame_parts[-3]
    if mat_parts[-3:] != (action, video, 'puppet_mask.mat'):
        raise UserError(f"{where}: expected the mat's path to end in {action}/{video}/puppet_mask.mat, found {mat!r}")
    if not 1 <= int(name) <= length:
        raise UserError(f'{where}: expected a frame from 1 to {length}, found {name}')
    for component in (video, action):
        check_file_name(component, where)
    return dict(video_id=video, action=action, key_frame=int(name) - 1, length=length, text=clean_text(text, where))


def read_jhmdb_sentences(path: str) -> dict[str, str]:
    """Reads jhmdb_annotation.txt: video_id and query, with or without a header line.

    Returns:
        ``{video: sentence in lower case}``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row does not have two fields, a name cannot be a file name, a sentence is empty, or a video occurs
            twice.
    """
    rows = read_csv(path, 'ann_file')
    if rows and rows[0][1][0] == 'video_id':
        rows = rows[1:]
    sentences: dict[str, str] = {}
    for line, row in rows:
        where = f'ann_file {path}, line {line}'
        if len(row) != 2:
            raise UserError(f'{where}: expected video_id and query, found {row}')
        if row[0] in sentences:
            raise UserError(f'{where}: video {row[0]} occurs twice')
        sentences[check_file_name(row[0], where)] = clean_text(row[1], where)
    return sentences
