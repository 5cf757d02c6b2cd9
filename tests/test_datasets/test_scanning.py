"""Files that one process of a distributed run reads for all."""

import json
import threading
import time
from datetime import timedelta

import h5py
import pytest
import torch.distributed as dist

from mmsoc.datasets import scanning
from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import read_ids
from tests.ranks import assert_ended_well, run_on_ranks
from tests.test_datasets.tiny_a2d import write_a2d
from tests.test_datasets.tiny_ref_youtube_vos import VIDEOS, dataset_config, write_split

TIMEOUT = 4
"""of the process group, in seconds"""


def _process(rank, work, folder):
    dist.init_process_group('gloo', timeout=timedelta(seconds=TIMEOUT))
    try:
        found = work(rank)
    except Exception as error:
        found = [type(error).__name__, str(error)]
    (folder / f'rank{rank}.json').write_text(json.dumps(found))
    dist.destroy_process_group()


def on_two_processes(work, folder):
    """What ``work`` returns in each of two processes: its value, or the class of an error and its text."""
    assert_ended_well(run_on_ranks(_process, work, folder, folder=folder, fork=True))
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(2)]


def test_one_process_works_for_both(tmp_path):
    def work(rank):
        return scanning.on_main_process(lambda: [rank, dist.get_rank()])

    assert on_two_processes(work, tmp_path) == [[0, 0], [0, 0]]
    assert scanning.on_main_process(lambda: threading.current_thread() is threading.main_thread())


def test_a_scan_may_take_longer_than_the_timeout_of_a_collective(tmp_path, monkeypatch):
    """The ten masks of video a take 6 s in all, and the group's timeout is 4."""

    def slowly(path, where):
        time.sleep(0.6)
        return read_ids(path, where)

    monkeypatch.setattr('mmsoc.datasets.object_frames.read_ids', slowly)
    monkeypatch.setattr(scanning, '_BEAT', 0.5)
    root = write_split(tmp_path / 'data', 'train', VIDEOS)
    began = time.monotonic()
    found = on_two_processes(
        lambda rank: len(DATASETS.build(dict(dataset_config(root), type='mmsoc.RefYouTubeVOSDataset'))), tmp_path
    )
    assert found == [5, 5] and time.monotonic() - began > TIMEOUT


class TwoArguments(Exception):
    """Pickle cannot make it again."""

    def __init__(self, one, two):
        super().__init__(f'{one} and {two}')


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (UserError('mask a.png cannot be read'), [['UserError', 'mask a.png cannot be read']] * 2),
        (FileNotFoundError('no file'), [['FileNotFoundError', 'no file']] * 2),
        (TwoArguments(1, 2), [['TwoArguments', '1 and 2'], ['RuntimeError', 'TwoArguments: 1 and 2']]),
    ],
)
def test_a_failure_reaches_both(tmp_path, error, expected):
    def work(rank):
        def fail():
            raise error

        return scanning.on_main_process(fail)

    assert on_two_processes(work, tmp_path) == expected


def build_a2d(root):
    return DATASETS.build(dict(type='mmsoc.A2DSentencesDataset', data_root=str(root), subset='train', num_frames=4))


def test_one_process_opens_the_annotations_of_a2d(tmp_path, monkeypatch):
    root = write_a2d(tmp_path)
    opened, h5_file = [], h5py.File

    def counted(path, *args):
        opened.append(path)
        return h5_file(path, *args)

    monkeypatch.setattr('mmsoc.datasets.transforms.video_loading.h5py.File', counted)

    def work(rank):
        dataset = build_a2d(root)
        return [len(opened), [dataset.get_data_info(i)['exp_ids'] for i in range(len(dataset))]]

    first, second = on_two_processes(work, tmp_path)
    assert (first[0], second[0]) == (3, 0)
    assert first[1] == second[1] and len(first[1]) == 4


def test_a_broken_annotation_of_a2d_stops_both(tmp_path):
    root = write_a2d(tmp_path)
    path = root / 'text_annotations/a2d_annotation_with_instances/-a_train/00006.h5'
    path.write_bytes(b'no HDF5')
    first, second = on_two_processes(lambda rank: len(build_a2d(root)), tmp_path)
    assert (
        first == second and first[0] == 'UserError' and f'annotation {path} cannot be read (video -a_train)' in first[1]
    )
