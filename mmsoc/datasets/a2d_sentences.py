"""A2D-Sentences (Gavrilyuk et al., CVPR 2018)."""

import csv
import os
from collections.abc import Callable, Sequence

from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name, clean_text, listed

from .data_root import check_root
from .scanning import ScannedFiles, scan_ids
from .transforms.video_loading import A2D_INSTANCES_HINT, frame_name, read_a2d_instances

SUBSETS = {'0': 'train', '1': 'test'}
_ANNOTATIONS = ScannedFiles(
    name='a2d_instances', what='annotations', shown='instances', suffix='.h5', read=read_a2d_instances
)


@DATASETS.register_module()
class A2DSentencesDataset(BaseDataset):
    """Videos with 3 to 5 annotated frames, and sentences that each name one actor::

        data_root/
          Release/videoset.csv                                   videoset_file, last column: 0 train, 1 test
          Release/clips320H/<video>.mp4                          data_prefix['video']
          text_annotations/a2d_annotation.txt                    ann_file: video_id,instance_id,query
          text_annotations/a2d_missed_videos.txt                 missed_file, the videos without sentences
          text_annotations/a2d_annotation_with_instances/<video>/<frame>.h5   data_prefix['mask'], frame counted from 1

    The protocol is that of MTTR and SOC: a sample is a sentence and an annotated frame that shows its instance; other
    frames are no samples, neither in training nor in testing. The clip is ``num_frames`` frames c - w // 2 to c + (w +
    1) // 2 - 1 around the annotated one, clamped to the video, so that the annotated frame is at index w // 2
    (``key_frame_flags``; packing makes ``key_frames_inds`` of it). In both subsets the text is lower-cased and has
    single spaces. The row whose instance is '1 (copy)' is left out; the log counts all that is left out.

    Training: an item is one sample. Testing: an item is one annotated frame with all its sentences, so that the
    text-independent part runs once for all of them; the scores are the same.

    What the pipeline gets: ``video_id``, ``video_path``, ``mask_path`` (the h5 file), ``frame_ids`` (0-based, not yet
    clamped to the video's end: ``LoadVideoWindow`` does that), ``frames`` (their names), ``key_frame_flags``,
    ``texts``, ``exp_ids`` (the image ids of the published COCO file, ``v_<video>_f_<frame>_i_<instance>``),
    ``obj_ids``.

    The first time the data set is loaded, all its h5 files (some 10,000) are opened to find the instances they contain,
    which takes seconds to minutes. The result is cached (`scan_ids`).

    Args:
        subset: 'train' or 'test'.
        num_frames: w, the length of a clip.
        cache_dir: folder for the cached instances of the h5 files; None: beside data_prefix['mask'], or in the user's
            cache folder.
        expected_videos: number of videos with sentences in a complete copy (train 3017, test 737).

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file's content is not as above, the number of videos is not ``expected_videos``, or nothing is left.
    """

    METAINFO: dict = dict(classes=('referred',))

    def __init__(
        self,
        *,
        subset: str,
        ann_file: str = 'text_annotations/a2d_annotation.txt',
        videoset_file: str = 'Release/videoset.csv',
        missed_file: str = 'text_annotations/a2d_missed_videos.txt',
        data_root: str = '',
        data_prefix: dict | None = None,
        num_frames: int = 8,
        cache_dir: str | None = None,
        expected_videos: int | None = None,
        metainfo: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        if data_prefix is None:
            data_prefix = dict(video='Release/clips320H', mask='text_annotations/a2d_annotation_with_instances')
        if set(data_prefix) != {'video', 'mask'}:
            raise UserError(f"data_prefix: expected the keys 'video' and 'mask', found {list(data_prefix)}")
        if subset not in SUBSETS.values():
            raise UserError(f"subset: expected 'train' or 'test', found {subset!r}")
        if num_frames < 1:
            raise UserError(f'num_frames must be at least 1, found {num_frames}')
        self.subset = subset
        self.videoset_file = os.path.join(data_root, videoset_file)
        self.missed_file = os.path.join(data_root, missed_file)
        self.num_frames = num_frames
        self.cache_dir = cache_dir
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

    def load_data_list(self) -> list[dict]:
        check_root(self.data_root, 'Release/videoset.csv, Release/clips320H and text_annotations')
        samples = self._samples()
        grouped: dict[tuple[str, int], list[dict]] = {}
        for number, sample in enumerate(samples):
            # Training samples are not grouped.
            key = (sample['video_id'], sample['key_frame']) if self.test_mode else ('', number)
            grouped.setdefault(key, []).append(sample)
        return [
            dict(
                video_id=group[0]['video_id'],
                key_frame=group[0]['key_frame'],
                mask_path=group[0]['mask_path'],
                texts=[sample['text'] for sample in group],
                exp_ids=[sample['image_id'] for sample in group],
                obj_ids=[str(sample['instance']) for sample in group],
            )
            for group in grouped.values()
        ]

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        key_frame = info.pop('key_frame')
        info['frame_ids'] = window(key_frame, self.num_frames)
        info['frames'] = [frame_name(index) for index in info['frame_ids']]
        info['key_frame_flags'] = key_frame_flags(self.num_frames)
        info['video_path'] = os.path.join(self.data_prefix['video'], f'{info["video_id"]}.mp4')
        info['mask_paths'] = None  # there is no PNG per frame here
        return info

    def _samples(self) -> list[dict]:
        """One per sentence and annotated frame that shows its instance: ``video_id``, ``key_frame`` (0-based), ``mask_path``,
        ``text``, ``image_id``, ``instance``.
        """
        logger = MMLogger.get_current_instance()
        subset_of = read_videoset(self.videoset_file)
        missed = set(read_lines(self.missed_file, 'missed_file'))
        sentences, copies = read_sentences(self.ann_file)
        unknown = sorted({video for video, _, _ in sentences} - set(subset_of))
        if unknown:
            raise UserError(
                f'ann_file {self.ann_file}: {len(unknown)} videos are not in {self.videoset_file}: {listed(unknown)}'
            )
        used = [row for row in sentences if row[0] not in missed and subset_of[row[0]] == self.subset]
        left_out = [row for row in sentences if row[0] in missed]
        videos = sorted({video for video, _, _ in used})
        if self.expected_videos is not None and len(videos) != self.expected_videos:
            raise UserError(
                f'expected_videos: {self.ann_file} should give {self.expected_videos} videos of the subset {self.subset}, found '
                f'{len(videos)}; is the copy complete? None switches this check off'
            )
        instances = self._instances(videos)
        samples, never_seen = [], []
        for video, instance, text in used:
            seen = [number for number, ids in instances[video].items() if instance in ids]
            if not seen:
                never_seen.append(f'video {video}, instance {instance} ({text!r})')
            for number in seen:
                samples.append(
                    dict(
                        video_id=video,
                        key_frame=number - 1,
                        mask_path=self._mask_path(video, number),
                        text=text,
                        image_id=f'v_{video}_f_{number}_i_{instance}',
                        instance=instance,
                    )
                )
        if not samples:
            raise UserError(f'ann_file: {self.ann_file} gives no sample of the subset {self.subset}')
        logger.info(
            f'{self.ann_file}: {len(used)} sentences of {len(videos)} videos of the subset {self.subset}, {len(samples)} samples; '
            f'left out of the whole file: {len(copies)} rows whose instance is a copy {copies}, {len(left_out)} rows of videos '
            f'in {self.missed_file}'
        )
        if never_seen:
            logger.warning(
                f'{len(never_seen)} sentences are left out, since no annotated frame shows their instance: {listed(never_seen)}'
            )
        return samples

    def _mask_path(self, video: str, number: int) -> str:
        return os.path.join(self.data_prefix['mask'], video, f'{frame_name(number - 1)}.h5')

    def _instances(self, videos: Sequence[str]) -> dict[str, dict[int, list[int]]]:
        """``{video: {frame, counted from 1: ids of its instances}}``; checks that all files are there."""
        for key in ('video', 'mask'):
            if not os.path.isdir(self.data_prefix[key]):
                raise FileNotFoundError(f"data_prefix['{key}']: there is no folder {self.data_prefix[key]}")
        clips, folders = (set(os.listdir(self.data_prefix[key])) for key in ('video', 'mask'))
        for key, present, suffix in (('video', clips, '.mp4'), ('mask', folders, '')):
            missing = [video + suffix for video in videos if video + suffix not in present]
            if missing:
                raise FileNotFoundError(
                    f"data_prefix['{key}']: {len(missing)} of {len(videos)} videos are missing in {self.data_prefix[key]}: "
                    f'{listed(missing)}'
                )
        frames = {video: self._annotated_frames(video) for video in videos}
        found = scan_ids(_ANNOTATIONS, self.data_prefix['mask'], frames, self.cache_dir)
        return {video: {int(frame): ids for frame, ids in of_video.items()} for video, of_video in found.items()}

    def _annotated_frames(self, video: str) -> list[str]:
        folder = os.path.join(self.data_prefix['mask'], video)
        names = sorted(name for name in os.listdir(folder) if name.endswith('.h5'))
        frames = [name[:-3] for name in names if len(name) == 8 and name[:-3].isdecimal() and int(name[:-3])]
        if not names or len(frames) < len(names):
            raise UserError(
                f"data_prefix['mask']: expected annotations 00001.h5 and so on in {folder}, found "
                f'{listed(names) or "no .h5 file"}. {A2D_INSTANCES_HINT}'
            )
        return frames


def window(center: int, num_frames: int) -> list[int]:
    """The w = ``num_frames`` frame indices from center - w // 2 on, at least 0: the first frame repeats."""
    start = center - num_frames // 2
    return [max(index, 0) for index in range(start, start + num_frames)]


def key_frame_flags(num_frames: int) -> list[bool]:
    """Which frame of `window` is the annotated one."""
    return [index == num_frames // 2 for index in range(num_frames)]


def read_sentences(path: str) -> tuple[list[tuple[str, int, str]], list[tuple[str, str]]]:
    """Reads a2d_annotation.txt.

    Additional columns are allowed. Instances are numbered from 0.

    Returns:
        The sentences as (video, instance, text in lower case with single spaces), in file order, and the (video,
        instance) of the rows left out, whose instance is a copy ('1 (copy)').

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: wrong columns, a video whose name cannot be a file name, an instance that is not a number, an empty
            sentence, or a duplicate pair.
    """
    rows = read_csv(path, 'ann_file')
    columns = ['video_id', 'instance_id', 'query']
    if not rows or rows[0][1][:3] != columns:
        raise UserError(
            f'ann_file {path}: expected the columns {columns} in line 1, found {rows[0][1] if rows else "no line"}'
        )
    sentences, copies = [], []
    seen: dict[tuple[str, int], int] = {}
    for line, row in rows[1:]:
        where = f'ann_file {path}, line {line}'
        if len(row) != len(rows[0][1]):
            raise UserError(f'{where}: expected {len(rows[0][1])} fields, found {len(row)}: {row}')
        video, instance, text = row[:3]
        if instance.endswith(' (copy)'):
            copies.append((video, instance))
            continue
        if not instance.isdecimal():
            raise UserError(f'{where}: expected a number as instance_id, found {instance!r}')
        earlier = seen.setdefault((video, int(instance)), line)
        if earlier != line:
            raise UserError(f'{where}: video {video} and instance {instance} are already in line {earlier}')
        sentences.append((check_file_name(video, where), int(instance), clean_text(text, where)))
    return sentences, copies


def read_videoset(path: str) -> dict[str, str]:
    """Reads videoset.csv, 9 columns, with or without a header.

    Returns:
        ``{video: 'train' or 'test'}``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row does not have 9 columns, its last one is neither 0 nor 1, or a video occurs twice.
    """
    result: dict[str, str] = {}
    for line, row in without_videoset_header(read_csv(path, 'videoset_file')):
        if len(row) != 9 or row[-1].strip() not in SUBSETS:
            raise UserError(
                f'videoset_file {path}, line {line}: expected 9 fields, the last one 0 (train) or 1 (test), found {row}'
            )
        if row[0] in result:
            raise UserError(f'videoset_file {path}, line {line}: video {row[0]} occurs twice')
        result[row[0]] = SUBSETS[row[-1].strip()]
    return result


def without_videoset_header(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The rows of videoset.csv (`read_csv`) without the header, which only some copies have.

    A header is a first line of 9 fields, none of which from the second on contains a digit; those of a video are
    numbers and times.
    """
    if rows and len(rows[0][1]) == 9 and not any(character.isdigit() for character in ''.join(rows[0][1][1:])):
        return rows[1:]
    return rows


def read_csv(path: str, key: str) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file with their line numbers; all fields stay text, including ids such as '007' or 'nan'.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not CSV or not UTF-8.
    """
    lines = read_lines(path, key)
    try:
        reader = csv.reader(lines, strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f'{key}: {path}, line {reader.line_num} is not CSV: {error}') from None


def read_lines(path: str, key: str) -> list[str]:
    """The lines of a text file, stripped of surrounding whitespace.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            return [line.strip() for line in file]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f'{key}: there is no file {path}') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{key}: {path} is not UTF-8 text: {error}') from None
