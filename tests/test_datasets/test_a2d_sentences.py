import json
import logging
import shutil

import av
import h5py
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from mmsoc.datasets.a2d_sentences import read_sentences, read_videoset, window
from mmsoc.datasets.transforms import LoadA2DMasks
from mmsoc.datasets.transforms.video_loading import read_a2d_instances, read_a2d_masks, read_window, video_shape
from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.video import VideoReader
from tests.test_apis.tiny_videos import write_sound
from tests.test_datasets.tiny_a2d import SIZE, grey, mask_of, write_a2d, write_h5, write_mp4

PIPELINE = [
    dict(type='mmsoc.LoadVideoWindow'),
    dict(type='mmsoc.LoadA2DMasks'),
    dict(
        type='mmsoc.ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=1.0), dict(type='mmsoc.ShortSideResize', scale=(128, 96))],
    ),
    dict(type='mmsoc.SwapLeftRight'),
    dict(type='mmsoc.PackReferringInputs'),
]
TEST_PIPELINE = [PIPELINE[0], dict(type='mmsoc.LoadA2DMasks', evaluation=True), PIPELINE[4]]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_a2d(tmp_path_factory.mktemp('a2d'))


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the twin, to be damaged."""
    return shutil.copytree(written, tmp_path / 'a2d_sentences')


@pytest.fixture
def log():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def build(root, subset='train', **changes):
    config = dict(
        type='mmsoc.A2DSentencesDataset', data_root=str(root), subset=subset, num_frames=4, test_mode=subset == 'test'
    )
    return DATASETS.build(dict(config, **changes))


def test_training_items(written, log):
    dataset = build(written)
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    # Instance 1 is in frame 6 alone.
    assert [(item['exp_ids'], item['frames']) for item in items] == [
        (['v_-a_train_f_1_i_0'], ['00001', '00001', '00001', '00002']),
        (['v_-a_train_f_6_i_0'], ['00004', '00005', '00006', '00007']),
        (['v_-a_train_f_12_i_0'], ['00010', '00011', '00012', '00013']),
        (['v_-a_train_f_6_i_1'], ['00004', '00005', '00006', '00007']),
    ]
    assert items[0]['texts'] == ['the red bird'] and items[3]['obj_ids'] == ['1']
    assert items[0]['video_path'] == str(written / 'Release/clips320H/-a_train.mp4')
    assert all(item['key_frame_flags'] == [False, False, True, False] for item in items)
    (line,) = (line for line in log if 'samples; left out' in line)
    assert '2 sentences of 1 videos of the subset train, 4 samples' in line
    assert "1 rows whose instance is a copy [('b_test', '1 (copy)')]" in line and '1 rows of videos in' in line


def test_items_for_testing_hold_all_sentences_of_a_frame(written):
    dataset = build(written, 'test')
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(item['texts'], item['exp_ids']) for item in items] == [
        (['first', 'second one'], ['v_b_test_f_5_i_0', 'v_b_test_f_5_i_2']),
        (['second one'], ['v_b_test_f_9_i_2']),
        (['a dog'], ['v_c_test_f_2_i_0']),
    ]
    assert len(build(written, 'test', test_mode=False)) == 4


@pytest.mark.parametrize(
    ('center', 'num_frames', 'expected'),
    [(10, 8, list(range(6, 14))), (1, 8, [0, 0, 0, 0, 1, 2, 3, 4]), (3, 5, [1, 2, 3, 4, 5]), (0, 1, [0])],
)
def test_window(center, num_frames, expected):
    assert window(center, num_frames) == expected and expected[num_frames // 2] == center


def test_training_pipeline(written):
    dataset = build(written, pipeline=PIPELINE)
    packed = dataset[3]
    sample = packed['data_samples']
    assert packed['inputs'].shape == (4, 3, 96, 128) and sample.key_frames_inds == [2]
    assert sample.texts == ['on the right']  # flipped
    # The frames that were asked for: what is right of the instances is grey.
    assert [round(frame[0, 90, 2].item()) for frame in packed['inputs']] == pytest.approx(
        [grey(i) for i in (3, 4, 5, 6)], abs=4
    )
    of_frame = sample[2].gt_instances
    assert np.array_equal(of_frame.masks.masks[0], np.kron(mask_of(1), np.ones((2, 2)))[:, ::-1])
    assert of_frame.visible.tolist() == [True] and of_frame.labels.tolist() == [0]
    # 18..37 before, first and last column; mirrored within 64 columns and enlarged
    assert of_frame.bboxes.tolist() == [[2 * (64 - 37), 28, 2 * (64 - 18), 50]]
    assert not any(sample[i].gt_instances.visible.any() for i in (0, 1, 3))


def test_edges_of_the_video(written):
    dataset = build(written, pipeline=TEST_PIPELINE)
    last = dataset[2]
    assert last['data_samples'].frames == ['00010', '00011', '00012', '00012']
    assert [round(frame[0, -1, -1].item()) for frame in last['inputs']] == pytest.approx(
        [grey(i) for i in (9, 10, 11, 11)], abs=4
    )
    assert [frame.frame_id for frame in last['data_samples']] == [9, 10, 11, 11]


def test_masks_for_evaluation(written):
    dataset = build(written, 'test', pipeline=TEST_PIPELINE)
    sample = dataset[0]['data_samples']
    assert [
        np.array_equal(coco_mask.decode(rle), mask_of(i)) for rle, i in zip(sample.gt_rles, (0, 2), strict=True)
    ] == [True] * 2
    assert sample.exp_ids == ['v_b_test_f_5_i_0', 'v_b_test_f_5_i_2'] and 'masks' not in sample[2].gt_instances


@pytest.mark.parametrize('indices', [[0], [11], [3, 4, 5], [2, 2, 7, 8], list(range(12)), [10, 11, 12, 40]])
def test_frames_are_exact(written, indices):
    images, kept = read_window(str(written / 'Release/clips320H/-a_train.mp4'), indices, indices[0], 'test')
    assert kept == [min(i, 11) for i in indices]
    for image, index in zip(images, kept, strict=True):
        assert image.shape == (*SIZE, 3) and abs(int(image[-1, -1, 0]) - grey(index)) < 5


def test_real_video_frames_are_those_of_a_full_read(reference):
    path = reference / 'data/video_mp4/demo.mp4'
    with av.open(str(path)) as container:
        frames = {
            i: frame.to_ndarray(format='rgb24')
            for i, frame in enumerate(container.decode(video=0))
            if i in (0, 47, 48, 200)
        }
        length = container.streams.video[0].frames
    for index, frame in frames.items():
        (found,), _ = read_window(str(path), [index], index, 'test')
        assert np.array_equal(found, frame), index
    with pytest.raises(ValueError, match=f'has {length} frames, but its annotation is of frame {length + 1}'):
        read_window(str(path), [0], length, 'test')


def test_only_what_is_needed_is_decoded(written, monkeypatch):
    decoded, frames = [], VideoReader.frames

    def counted(video, **options):
        for frame in frames(video, **options):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(VideoReader, 'frames', counted)
    read_window(str(written / 'Release/clips320H/-a_train.mp4'), [9, 10], 9, 'test')
    assert 0 < len(decoded) <= 6  # of 12: from the key frame before, groups of 4


def test_a_seek_that_lands_too_late_is_made_up_for(written, monkeypatch):
    seek, times = VideoReader.seek, []

    def late(video, time):
        times.append(time)
        seek(video, 2 * time)

    monkeypatch.setattr(VideoReader, 'seek', late)
    path = str(written / 'Release/clips320H/-a_train.mp4')
    (image,), _ = read_window(path, [5], 5, 'test')
    assert len(times) == 1 and abs(int(image[-1, -1, 0]) - grey(5)) < 5
    monkeypatch.setattr(VideoReader, 'frames', lambda video: iter([]))
    with pytest.raises(ValueError, match=r'the frames \[6\] of 12, counted from 1, cannot be decoded'):
        read_window(path, [5], 5, 'test')


def test_a_file_without_video_is_named(tmp_path):
    path = str(write_sound(tmp_path / 'sound.mp4'))
    for read in (lambda: read_window(path, [0], 0, 'a test'), lambda: video_shape(path, 'a test')):
        with pytest.raises(ValueError, match=r'video .*sound\.mp4 cannot be read \(a test\): it has no video stream'):
            read()


def test_real_sentences(reference):
    sentences, copies = read_sentences(str(reference / 'data/a2d_sentences_text/a2d_annotation_with_short_query.txt'))
    assert len(sentences) == 6654 and copies == [('T6bNPuKV-wY', '1 (copy)')]
    assert len({video for video, _, _ in sentences}) == 3754 and sentences[0] == (
        '--h5fAKYurM',
        0,
        'the pigeon is limping',
    )
    assert all(text == text.lower() and '  ' not in text for _, _, text in sentences)


def test_two_loader_workers(written):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='mmsoc.A2DSentencesDataset',
                data_root=str(written),
                subset='train',
                num_frames=4,
                pipeline=PIPELINE,
            ),
        ),
        seed=0,
    )
    batches = list(loader)
    assert [len(batch['inputs']) for batch in batches] == [2, 2]
    assert torch.equal(batches[1]['inputs'][1], build(written, pipeline=PIPELINE)[3]['inputs'])


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('', 'data_root: there is no folder .*Release/videoset.csv'),
        ('Release/videoset.csv', 'videoset_file: there is no file'),
        ('Release/clips320H', r"data_prefix\['video'\]: there is no folder"),
        ('Release/clips320H/c_test.mp4', r"data_prefix\['video'\]: 1 of 2 videos are missing .*c_test.mp4"),
        ('text_annotations/a2d_annotation.txt', 'ann_file: there is no file'),
        ('text_annotations/a2d_missed_videos.txt', 'missed_file: there is no file'),
        ('text_annotations/a2d_annotation_with_instances', r"data_prefix\['mask'\]: there is no folder"),
        (
            'text_annotations/a2d_annotation_with_instances/b_test',
            r"data_prefix\['mask'\]: 1 of 2 videos are missing .*b_test",
        ),
    ],
)
def test_half_unpacked(copy, path, message):
    remove(copy / path)
    with pytest.raises(FileNotFoundError, match=message):
        build(copy, 'test')


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'message'),
    [
        (
            'text_annotations/a2d_annotation.txt',
            'b_test,2,',
            'b_test,0,',
            'line 7: video b_test and instance 0 are already in line 5',
        ),
        (
            'text_annotations/a2d_annotation.txt',
            'b_test,2,',
            'b_test,two,',
            "line 7: expected a number as instance_id, found 'two'",
        ),
        (
            'text_annotations/a2d_annotation.txt',
            'c_test,',
            '../c_test,',
            "a2d_annotation.txt, line 8: expected a name that can be a file or folder, found '../c_test'",
        ),
        ('text_annotations/a2d_annotation.txt', 'a dog', ' ', 'line 8: the sentence is empty'),
        ('text_annotations/a2d_annotation.txt', 'a dog', 'a dog, not a cat', 'line 8: expected 3 fields, found 4'),
        ('text_annotations/a2d_annotation.txt', 'query', 'text', r"expected the columns .*'query'\] in line 1, found"),
        ('text_annotations/a2d_annotation.txt', 'c_test,', 'd_test,', '1 videos are not in .*videoset.csv: d_test'),
        ('Release/videoset.csv', 'c_test,', 'b_test,', 'line 4: video b_test occurs twice'),
        (
            'Release/videoset.csv',
            '5,1,1',
            '5,1,2',
            r'line 4: expected 9 fields, the last one 0 \(train\) or 1 \(test\)',
        ),
        ('Release/videoset.csv', '90,3,0', '90,3,2', r'line 1: expected 9 fields, the last one 0 \(train\)'),
    ],
)
def test_wrong_tables(copy, file, old, new, message):
    edit(copy / file, old, new)
    with pytest.raises(ValueError, match=message):
        build(copy, 'test')


def test_videoset_with_a_header(copy):
    path = copy / 'Release/videoset.csv'
    expected = read_videoset(str(path))
    header = 'VID,Label,Start_time,End_time,Height,Width,Frames,Annotated_frames,Usage\n'
    path.write_text(header + path.read_text())
    assert read_videoset(str(path)) == expected and len(expected) == 4
    assert len(build(copy)) == 4
    path.write_text(path.read_text() + header)
    with pytest.raises(ValueError, match='line 6: expected 9 fields'):
        read_videoset(str(path))


def test_annotations_of_a2d_itself(copy):
    """They have no instances; what to download instead is in the message."""
    folder = copy / 'text_annotations/a2d_annotation_with_instances/c_test'
    way_out = 'download a2d_annotation_with_instances of A2D-Sentences, https://kgavrilyuk.github.io'
    with h5py.File(folder / '00002.h5', 'a') as file:
        del file['instance']
    with pytest.raises(
        UserError, match=rf"expected the fields \['instance'\], found \['reBBox', 'reMask'\].*{way_out}"
    ):
        build(copy, 'test')
    (folder / '00002.h5').rename(folder / '00002.mat')
    with pytest.raises(UserError, match=f'expected annotations 00001.h5 .* in {folder}, found no .h5 file.*{way_out}'):
        build(copy, 'test')


def test_instances_are_read_once(copy, log, monkeypatch, tmp_path):
    opened, h5_file = [], h5py.File

    def counted(path, *args):
        opened.append(path)
        return h5_file(path, *args)

    monkeypatch.setattr('mmsoc.datasets.transforms.video_loading.h5py.File', counted)
    kept = str(tmp_path / 'kept')
    first = build(copy, cache_dir=kept)
    assert len(opened) == 3 and any('reading the annotations of 1 of 1 videos' in line for line in log)
    again = build(copy, cache_dir=kept)
    assert len(opened) == 3
    assert [first.get_data_info(i) for i in range(4)] == [again.get_data_info(i) for i in range(4)]
    build(copy, 'test', cache_dir=kept)
    assert len(opened) == 3 + 3  # frames 5 and 9 of b_test, 2 of c_test
    # A video that changed is read again, and it alone.
    write_h5(copy / 'text_annotations/a2d_annotation_with_instances/c_test/00002.h5', [0, 1], [mask_of(0), mask_of(1)])
    opened.clear()
    assert len(build(copy, 'test', cache_dir=kept)) == 3 and len(opened) == 1
    (file,) = (tmp_path / 'kept').iterdir()
    assert json.loads(file.read_text())['videos']['c_test']['frames'] == {'00002': [0, 1]}
    build(copy)
    assert len(opened) == 1 + 3 and list((copy / 'text_annotations').glob('a2d_instances_*.json'))


def test_wrong_settings(written):
    with pytest.raises(ValueError, match='should give 737 videos of the subset test, found 2'):
        build(written, 'test', expected_videos=737)
    with pytest.raises(ValueError, match="subset: expected 'train' or 'test', found 'valid'"):
        build(written, 'valid')
    with pytest.raises(ValueError, match='num_frames must be at least 1, found 0'):
        build(written, num_frames=0)
    with pytest.raises(ValueError, match=r"data_prefix: expected the keys 'video' and 'mask', found \['img'\]"):
        build(written, data_prefix=dict(img='x'))


def test_an_instance_that_no_frame_shows_is_counted(copy, log):
    edit(copy / 'text_annotations/a2d_annotation.txt', '-a_train,1,', '-a_train,7,')
    assert len(build(copy)) == 3
    assert any(
        '1 sentences are left out, since no annotated frame shows' in line and 'instance 7' in line for line in log
    )


def test_broken_annotations(copy):
    path = copy / 'text_annotations/a2d_annotation_with_instances/c_test/00002.h5'
    results = dict(
        video_id='c_test',
        texts=['a dog'],
        obj_ids=['0'],
        mask_path=str(path),
        key_frame_flags=[True],
        img_path=['c_test.mp4'],
        img=[np.zeros((*SIZE, 3), np.uint8)],
    )
    load = LoadA2DMasks(evaluation=True)
    with pytest.raises(
        ValueError, match=r"00002.h5 \(video c_test, sentence 'a dog'\): expected the instances \[3\], found \[0\]"
    ):
        load.transform(dict(results, obj_ids=['3']))
    with pytest.raises(ValueError, match='expected masks of 60x48, as the frames of c_test.mp4 are, found 64x48'):
        load.transform(dict(results, img=[np.zeros((48, 60, 3), np.uint8)]))
    with h5py.File(path, 'a') as file:
        del file['reMask']
    with pytest.raises(
        ValueError, match=r"expected the fields \['instance', 'reMask'\], found \['instance', 'reBBox'\]"
    ):
        load.transform(results)
    with h5py.File(path, 'a') as file:
        file['reMask'] = np.zeros((2, *SIZE))
    with pytest.raises(ValueError, match=r'for the N = 1 ids in .instance., found \(2, 48, 64\)'):
        load.transform(results)
    with h5py.File(path, 'a') as file:
        del file['instance']
    with pytest.raises(ValueError, match='expected the fields'):
        build(copy, 'test')
    path.write_bytes(b'no HDF5')
    with pytest.raises(ValueError, match='00002.h5 cannot be read'):
        build(copy, 'test')
    path.rename(path.with_name('second.h5'))
    with pytest.raises(ValueError, match='expected annotations 00001.h5 and so on in .*c_test, found second.h5'):
        build(copy, 'test')


def test_videos_that_do_not_fit(copy):
    path = copy / 'Release/clips320H/b_test.mp4'
    write_mp4(path, 4)
    with pytest.raises(
        ValueError, match=r'b_test.mp4 has 4 frames, but its annotation is of frame 5.*video b_test, 2 sent'
    ):
        build(copy, 'test', pipeline=TEST_PIPELINE)[0]
    path.write_bytes(b'no video')
    with pytest.raises(ValueError, match='b_test.mp4 cannot be read'):
        build(copy, 'test', pipeline=TEST_PIPELINE)[0]
    dataset = build(copy, 'test', pipeline=TEST_PIPELINE)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='b_test.mp4 is missing'):
        dataset[0]


def test_axes_of_the_real_files(tmp_path):
    one, two = tmp_path / 'one.h5', tmp_path / 'two.h5'
    write_h5(one, [3], [mask_of(0)])
    write_h5(two, [3, 0], [mask_of(0), mask_of(1)])
    with h5py.File(one) as file:
        assert file['reMask'].shape == (64, 48)
    with h5py.File(two) as file:
        assert file['reMask'].shape == (2, 64, 48) and file['reBBox'].shape == (4, 2)
    assert np.array_equal(read_a2d_masks(str(one), [3], 'test'), [mask_of(0)])
    assert np.array_equal(read_a2d_masks(str(two), [0, 3], 'test'), [mask_of(1), mask_of(0)])
    assert read_a2d_instances(str(two), 'test') == [3, 0]


def test_config(root, written, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(written.parent))
    cfg = Config.fromfile(root / 'configs/_base_/datasets/a2d_sentences.py')
    with pytest.raises(ValueError, match='should give 3017 videos'):
        DATASETS.build(cfg.train_dataloader.dataset)
    training = DATASETS.build(dict(cfg.train_dataloader.dataset, expected_videos=None))
    assert training[0]['inputs'].shape == (8, 3, 320, 426) and training[0]['data_samples'].key_frames_inds == [4]
    testing = DATASETS.build(dict(cfg.test_dataloader.dataset, expected_videos=None))
    assert len(testing[0]['data_samples'].gt_rles) == 2
