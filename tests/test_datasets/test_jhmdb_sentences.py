import json
import shutil

import numpy as np
import pytest
import scipy.io
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.datasets.jhmdb_sentences import read_jhmdb_sentences, read_samples
from mmsoc.registry import DATASETS
from tests.test_datasets.tiny_a2d import mask_of, write_jhmdb

SAMPLES = [('first_video', 1), ('first_video', 5), ('second_video', 3)]
PIPELINE = [
    dict(type='mmsoc.LoadVideoFrames'),
    dict(type='mmsoc.LoadJHMDBMask'),
    dict(type='mmsoc.PackReferringInputs'),
]


@pytest.fixture
def data(tmp_path):
    return write_jhmdb(tmp_path, samples=SAMPLES)


def build(data, **changes):
    return DATASETS.build(dict(dict(type='mmsoc.JHMDBSentencesDataset', data_root=str(data), num_frames=4), **changes))


def test_items_of_a_list(data):
    dataset = build(data, samples_file='samples.json')
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    # The masks of the first video end after frame 5, one before its frames.
    assert [(item['exp_ids'], item['frames']) for item in items] == [
        (['v_first_video_f_1'], ['00001', '00001', '00001', '00002']),
        (['v_first_video_f_5'], ['00003', '00004', '00005', '00005']),
        (['v_second_video_f_3'], ['00001', '00002', '00003', '00004']),
    ]
    assert items[0]['texts'] == ['man in black'] and items[2]['texts'] == ['a runner']
    assert items[2]['img_paths'][0] == str(data / 'Rename_Images/run/second_video/00001.png')
    assert dataset.metainfo['samples'] == f'the list {data}/samples.json'


def test_masks(data):
    sample = build(data, samples_file='samples.json', pipeline=PIPELINE)[1]['data_samples']
    (rle,) = sample.gt_rles
    assert np.array_equal(coco_mask.decode(rle), np.roll(mask_of(0), 4, axis=1))  # index 4: frame 5
    assert sample.key_frames_inds == [2] and sample.video_id == 'first_video'


def test_frames_are_drawn_without_a_list(data, tmp_path):
    def drawn(data, **changes):
        dataset = build(data, **changes)
        return [dataset.get_data_info(i)['exp_ids'][0] for i in range(len(dataset))]

    found = drawn(data, expected_samples=6)
    assert found == drawn(data) and sorted(found) == found and len(set(found)) == 6
    of_seeds = [drawn(data, seed=seed) for seed in range(20)]
    assert 'v_first_video_f_6' not in sum(of_seeds, [])  # no mask
    assert len(set(map(tuple, of_seeds))) > 3
    assert 'drawn with seed 0 (no published list' in build(data).metainfo['samples']
    # A video's frames do not depend on the others.
    lines = (data / 'jhmdb_annotation.txt').read_text().splitlines()
    (data / 'jhmdb_annotation.txt').write_text('\n'.join(lines[2:]))
    assert drawn(data) == found[3:]


def test_real_list(reference):
    samples = read_samples(str(reference / 'data/jhmdb_sentences_meta/jhmdb_sentences_samples_metadata.json'))
    assert len(samples) == 2784 and len({sample['video_id'] for sample in samples}) == 928
    assert len({sample['action'] for sample in samples}) == 21
    assert samples[0] == dict(
        video_id='100_pullups_pullup_f_nm_np1_fr_med_1',
        action='pullup',
        key_frame=1,
        length=40,
        text='man in black pulling up',
    )


def test_sentences_with_and_without_header(tmp_path):
    for name, lines in (('with', 'video_id,query\nv,A man\n'), ('without', 'v,A man\n')):
        (tmp_path / name).write_text(lines)
        assert read_jhmdb_sentences(str(tmp_path / name)) == {'v': 'a man'}


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('', 'data_root: there is no folder .*puppet_mask'),
        ('Rename_Images', r"data_prefix\['img'\]: there is no folder"),
        ('Rename_Images/run/second_video', r"data_prefix\['img'\]: there is no folder .*run/second_video"),
        ('Rename_Images/run/second_video/00004.png', '1 of 4 listed frames are missing .*00004.png'),
        ('puppet_mask', r"data_prefix\['mask'\]: there is no folder"),
        (
            'puppet_mask/run/second_video/puppet_mask.mat',
            r'1 of 2 videos have no puppet_mask.mat in .*: run/second_video',
        ),
        ('samples.json', 'samples_file: there is no file'),
    ],
)
def test_half_unpacked(data, path, message):
    shutil.rmtree(data / path) if (data / path).is_dir() else (data / path).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        build(data, samples_file='samples.json')


@pytest.mark.parametrize('path', ['Rename_Images/run', 'puppet_mask/run', 'jhmdb_annotation.txt'])
def test_half_unpacked_without_a_list(data, path):
    shutil.rmtree(data / path) if (data / path).is_dir() else (data / path).unlink()
    with pytest.raises(FileNotFoundError, match='second_video|there is no file .*jhmdb_annotation.txt'):
        build(data)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda rows: rows.append(rows[0]), 'row 3: video first_video, frame 1 is already in row 0'),
        (lambda rows: rows[0].pop(), r'row 0: expected \[video, path of the frame'),
        (lambda rows: rows[1].__setitem__(3, 4), 'row 1: expected a frame from 1 to 4, found 00005'),
        (lambda rows: rows[1].__setitem__(4, ' '), 'row 1: the sentence is empty'),
        (
            lambda rows: rows[1].__setitem__(1, '00005.png'),
            "row 1: expected the frame's path to end in <action>/first_video/",
        ),
        (
            lambda rows: rows[1].__setitem__(2, rows[2][2]),
            "row 1: expected the mat's path to end in pullup/first_video/",
        ),
        (lambda rows: rows.clear(), 'no samples'),
        (
            lambda rows: rows.append(['..', 'x/run/../00001.png', 'x/run/../puppet_mask.mat', 5, 'up']),
            r"row 3: expected a name that can be a file or folder, found '\.\.'",
        ),
        (
            lambda rows: rows.append(['v', 'x/../v/00001.png', 'x/../v/puppet_mask.mat', 5, 'up']),
            r"row 3: expected a name that can be a file or folder, found '\.\.'",
        ),
    ],
)
def test_wrong_lists(data, change, message):
    rows = json.loads((data / 'samples.json').read_text())
    change(rows)
    (data / 'samples.json').write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        build(data, samples_file='samples.json')


def test_wrong_settings(data):
    with pytest.raises(ValueError, match='expected 2784 samples, found 3 .the list'):
        build(data, samples_file='samples.json', expected_samples=2784)
    with pytest.raises(ValueError, match='evaluation only'):
        build(data, test_mode=False)
    with pytest.raises(ValueError, match='frames_per_video=5, found 4 frames with masks'):
        build(data, frames_per_video=5)
    (data / 'jhmdb_annotation.txt').write_text('v,a\nv,b\n')
    with pytest.raises(ValueError, match='line 2: video v occurs twice'):
        build(data)
    (data / 'jhmdb_annotation.txt').write_text('v,a,b\n')
    with pytest.raises(ValueError, match='line 1: expected video_id and query, found'):
        build(data)
    (data / 'jhmdb_annotation.txt').write_text('../v,a\n')
    with pytest.raises(ValueError, match="jhmdb_annotation.txt, line 1: expected a name .* found '../v'"):
        build(data)
    with pytest.raises(ValueError, match=r"expected the keys 'img' and 'mask', found \['img'\]"):
        build(data, data_prefix=dict(img='x'))


def test_wrong_masks(data):
    path = data / 'puppet_mask/pullup/first_video/puppet_mask.mat'
    dataset = build(data, samples_file='samples.json', pipeline=PIPELINE)
    masks = scipy.io.loadmat(path)['part_mask']
    for content, message in (
        (dict(mask=masks), r"expected the field 'part_mask' of shape \(H, W, T\), found {'mask': \(48, 64, 5\)}"),
        (dict(part_mask=masks[..., :3]), "expected a 'part_mask' of frame 5, counted from 1, found 3 frames"),
        (dict(part_mask=masks[:, :40]), 'expected masks of 64x48, as the frames of .*00003.png are, found 40x48'),
    ):
        scipy.io.savemat(path, content)
        with pytest.raises(ValueError, match=message):
            dataset[1]
    path.write_bytes(b'MATLAB it is not')
    with pytest.raises(ValueError, match='puppet_mask.mat cannot be read'):
        dataset[1]
    with pytest.raises(ValueError, match='puppet_mask.mat cannot be read'):
        build(data)
    Image.new('RGB', (60, 48)).save(data / 'Rename_Images/pullup/first_video/00003.png')
    with pytest.raises(ValueError, match='of the same clip is 60x48'):
        dataset[1]


def test_config(root, data, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(data.parent))
    cfg = Config.fromfile(root / 'configs/_base_/datasets/jhmdb_sentences.py').jhmdb_dataloader.dataset
    with pytest.raises(ValueError, match='expected 2784 samples, found 6'):
        DATASETS.build(cfg)
    dataset = DATASETS.build(dict(cfg, samples_file='samples.json', expected_samples=3))
    sample = dataset[0]
    assert sample['inputs'].shape == (8, 3, 320, 426) and sample['data_samples'].key_frames_inds == [4]
