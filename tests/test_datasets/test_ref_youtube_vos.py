import json
import logging
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from PIL import Image

from mmsoc.datasets import RefYouTubeVOSDataset
from mmsoc.datasets.ref_youtube_vos import YOUTUBE_VOS_CATEGORIES
from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from tests.ranks import assert_ended_well, run_on_ranks
from tests.test_datasets.tiny_ref_youtube_vos import (
    VIDEOS,
    dataset_config,
    write_frame,
    write_json,
    write_mask,
    write_split,
)

PIPELINE = [
    dict(type='mmsoc.LoadVideoFrames'),
    dict(type='mmsoc.LoadReferredMasks'),
    dict(
        type='mmsoc.ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=0.5), dict(type='mmsoc.ShortSideResize', scale=(80, 48))],
    ),
    dict(type='mmsoc.SwapLeftRight'),
    dict(type='mmsoc.PackReferringInputs'),
]
TEST_PIPELINE = [PIPELINE[0], dict(type='mmsoc.ForEachFrame', transforms=[PIPELINE[2]['transforms'][1]]), PIPELINE[4]]


@pytest.fixture
def root(tmp_path):
    return write_split(tmp_path, 'train', VIDEOS)


@pytest.fixture
def log():
    """Messages of mmengine's logger."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def build(root, **changes):
    return DATASETS.build(dict(dataset_config(root, **changes), type='mmsoc.RefYouTubeVOSDataset'))


def test_training_items(root):
    dataset = build(root)
    # object 1 of video a: windows 0-3, 4-7, 6-9; object 2 is only in frames 8 and 9: window 6-9; video b: 0 1 2 2
    items = [dataset.get_data_info(i) for i in range(len(dataset))]
    found = [(item['video_id'], item['exp_ids'][0], item['obj_ids'][0], item['frame_ids']) for item in items]
    assert found == [
        ('a', '0', '1', [0, 1, 2, 3]),
        ('a', '0', '1', [4, 5, 6, 7]),
        ('a', '0', '1', [6, 7, 8, 9]),
        ('a', '1', '2', [6, 7, 8, 9]),
        ('b', '0', '1', [0, 1, 2, 2]),
    ]
    assert items[0]['texts'] == ['the bright left box']
    assert items[1]['frames'] == ['00020', '00025', '00030', '00035']
    assert items[1]['img_paths'][0] == str(root / 'train/JPEGImages/a/00020.jpg')
    assert items[1]['mask_paths'][-1] == str(root / 'train/Annotations/a/00035.png')
    assert items[0]['labels'] == [0] and dataset.metainfo['classes'] == ('referred',)


def test_base_dataset_behaviour(root):
    assert len(build(root, indices=2)) == 2
    assert build(root, indices=[4, 0]).get_data_info(0)['video_id'] == 'b'
    lazy = build(root, lazy_init=True)
    assert not lazy._fully_initialized
    lazy.full_init()
    assert len(lazy) == 5
    plain, packed = build(root, serialize_data=False), build(root, serialize_data=True)
    assert [plain.get_data_info(i) for i in range(5)] == [packed.get_data_info(i) for i in range(5)]
    assert len(packed.get_subset(3)) == 3
    assert packed.get_data_info(-1)['sample_idx'] == 4


def test_frames_are_sorted(root):
    edit_json(root, lambda videos: videos['b']['frames'].reverse())
    assert build(root).get_data_info(4)['frames'] == ['00000', '00005', '00010', '00010']


def test_training_pipeline(root):
    sample = build(root, pipeline=PIPELINE)[4]
    assert sample['inputs'].shape == (4, 3, 48, 80) and sample['inputs'].dtype == torch.uint8
    clip = sample['data_samples']
    assert [frame.gt_instances.visible.item() for frame in clip] == [True, False, True, True]
    # frame 0: x = 2..7, y = 3..6 of 40x24, scaled by 2 -> x 4..14, y 6..12; flipped: 80 - 14 .. 80 - 4
    flipped = clip[0].flip
    assert clip[0].gt_instances.bboxes.tolist() == [[66, 6, 76, 12] if flipped else [4, 6, 14, 12]]
    assert clip.texts == ['a small thing on the left' if flipped else 'a small thing on the right']
    assert clip[0].gt_instances.masks.masks.sum() == 6 * 4 * 4
    assert clip[1].gt_instances.bboxes.tolist() == [[0] * 4]


def test_batch_of_two(root):
    dataset = build(root, pipeline=PIPELINE)
    batch = pseudo_collate([dataset[0], dataset[3]])
    assert [x.shape for x in batch['inputs']] == [(4, 3, 48, 80)] * 2
    assert [x.texts[0] for x in batch['data_samples']][1] == 'second one'


def test_loader_with_workers_augments_each_epoch_differently(root):
    pytest.importorskip('mmsoc.engine.seeding')
    from mmengine.runner import Runner

    loader = Runner.build_dataloader(
        dict(
            batch_size=1,
            num_workers=2,
            persistent_workers=False,
            worker_init_fn=dict(type='mmsoc.seed_worker'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(dataset_config(root, pipeline=PIPELINE), type='mmsoc.RefYouTubeVOSDataset'),
        ),
        seed=0,
    )
    torch.manual_seed(0)

    def epoch():
        return [batch['data_samples'][0][0].flip for batch in loader]

    epochs = [epoch() for _ in range(4)]  # 5 samples each: 20 fair coins, alike in all epochs with chance 2 ** -15
    assert len(set(map(tuple, epochs))) > 1
    torch.manual_seed(0)
    assert [epoch() for _ in range(4)] == epochs  # and a second run repeats the first


def test_epoch_differs_without_workers(root):
    dataset = build(root, pipeline=PIPELINE)
    np.random.seed(0)
    epochs = [tuple(dataset[i]['data_samples'][0].flip for i in range(5)) for _ in range(4)]
    assert len(set(epochs)) > 1


def test_sparse_sampler_redraws_clips_without_the_object(root):
    dataset = build(root, pipeline=PIPELINE, clip_sampler=dict(type='SparseClipSampler', num_frames=3))
    # anchors 0 3 6 9 for both sentences of a, 0 for b
    assert len(dataset) == 9
    np.random.seed(0)
    # item 4 is object 2 (frames 8, 9 only) at anchor 0: never in reach of 3 frames, so other items are drawn
    for _ in range(10):
        clip = dataset[4]['data_samples']
        assert any(frame.gt_instances.visible.item() for frame in clip)
        assert (clip.exp_ids, clip.video_id) != (['1'], 'a') or clip.frames[-1] >= '00040'
    item = dataset.get_data_info(7)  # anchor 9 of 10 frames
    assert len(item['frames']) == 3 and 9 in item['frame_ids']


def test_category_labels(root):
    assert len(YOUTUBE_VOS_CATEGORIES) == 65 and list(YOUTUBE_VOS_CATEGORIES) == sorted(YOUTUBE_VOS_CATEGORIES)
    assert [YOUTUBE_VOS_CATEGORIES.index(name) for name in ('airplane', 'others', 'person', 'zebra')] == [0, 36, 42, 64]
    dataset = build(root, meta_file='train/meta.json', use_category=True, pipeline=PIPELINE)
    assert [dataset.get_data_info(i)['labels'] for i in range(5)] == [[64], [64], [64], [0], [64]]
    assert dataset[0]['data_samples'][0].gt_instances.labels.tolist() == [64]
    assert dataset.metainfo['classes'] == YOUTUBE_VOS_CATEGORIES
    with pytest.raises(ValueError, match='needs meta_file'):
        build(root, use_category=True)
    write_json(root / 'train/meta.json', json.loads((root / 'train/meta.json').read_text().replace('zebra', 'zebu')))
    with pytest.raises(ValueError, match=r"meta.json, video a, object 1: the category 'zebu' is none of the 65"):
        build(root, meta_file='train/meta.json', use_category=True)


def test_several_sentences_of_a_clip(root):
    """Each item brings the video's other sentences along, as far as the clip shows what they name."""
    dataset = build(root, pipeline=PIPELINE, sentences_per_clip=3)
    single = build(root, pipeline=PIPELINE)
    assert len(dataset) == len(single) == 5
    assert dataset.get_data_info(0)['obj_ids'] == ['1', '2'] and single.get_data_info(0)['obj_ids'] == ['1']
    # item 0 is object 1 in frames 0-3, where object 2 is not; items 2 and 3 are frames 6-9, where both are
    assert [dataset[i]['data_samples'].exp_ids for i in (0, 2, 3, 4)] == [['0'], ['0', '1'], ['1', '0'], ['0']]
    clip = dataset[3]['data_samples']
    assert clip.texts[0] == 'second one' and clip.obj_ids == ['2', '1']
    objects = clip[-1].gt_instances
    assert len(objects) == 2 and objects.visible.tolist() == [True, True] and objects.labels.tolist() == [0, 0]
    assert [frame.gt_instances.visible.tolist() for frame in clip] == [
        [False, True],
        [False, True],
        [True, True],
        [True, True],
    ]
    for which, twin in enumerate((single[3], single[2])):
        mask = twin['data_samples'][-1].gt_instances.masks.masks[0]
        if twin['data_samples'][0].flip != clip[0].flip:
            mask = mask[:, ::-1]
        assert np.array_equal(objects.masks.masks[which], mask)
    with pytest.raises(ValueError, match='sentences_per_clip must be at least 1, found 0'):
        build(root, sentences_per_clip=0)


def test_each_sentence_keeps_its_own_family(root):
    """Of the two sentences of video a only the second one has a family, and only the first one says ``held_out``."""

    def name(videos):
        expression(videos, '1')['family'] = 'colour'
        expression(videos, '0')['held_out'] = True

    edit_json(root, name)
    together = build(root, pipeline=PIPELINE, sentences_per_clip=2)
    infos = [together.get_data_info(i) for i in (2, 3)]
    assert [info['exp_ids'] for info in infos] == [['0', '1'], ['1', '0']]
    assert [info['families'] for info in infos] == [[None, 'colour'], ['colour', None]]
    assert [info['held_out'] for info in infos] == [[True, None], [None, True]]
    assert [together[i]['data_samples'].families for i in (2, 3)] == [[None, 'colour'], ['colour', None]]
    alone = build(root)
    assert [alone.get_data_info(i)['families'] for i in (2, 3, 4)] == [None, ['colour'], None]
    testing = build(root, clip_sampler=None, test_mode=True)
    assert [testing.get_data_info(i)['families'] for i in (0, 1)] == [[None, 'colour'], None]


def test_which_sentences_come_along_is_drawn(tmp_path):
    three = dict(objects={'1': [True]}, sentences=[('one', '1'), ('two', '1'), ('three', '1')])
    dataset = build(write_split(tmp_path, 'train', {'v': three}), sentences_per_clip=2)
    np.random.seed(0)
    drawn = [tuple(dataset.get_data_info(0)['texts']) for _ in range(20)]
    assert set(drawn) == {('one', 'two'), ('one', 'three')}


def test_category_maps(root):
    classes = ['airplane', 'zebra']
    pipeline = [*PIPELINE[:2], dict(type='mmsoc.LoadCategoryMaps', classes=classes), *PIPELINE[2:]]
    dataset = build(root, meta_file='train/meta.json', pipeline=pipeline)
    clip = dataset[2]['data_samples']  # frames 6-9 of a: the zebra is object 1, the airplane object 2
    maps = [frame.gt_sem_seg.sem_seg for frame in clip]
    assert all(one.dtype == torch.uint8 and one.shape == (1, 48, 80) for one in maps)
    assert [sorted(one.unique().tolist()) for one in maps] == [[0, 2], [0, 2], [0, 1, 2], [0, 1, 2]]
    # flipped and resized with the masks
    assert np.array_equal(maps[0][0].numpy() == 2, clip[0].gt_instances.masks.masks[0])
    with pytest.raises(ValueError, match=r"category of object 2 is 'airplane' \(video a, .*none of the 1 in `classes`"):
        build(root, meta_file='train/meta.json', pipeline=[*PIPELINE[:2], dict(pipeline[2], classes=['zebra'])])[2]
    with pytest.raises(ValueError, match='needs meta_file'):
        build(root, pipeline=pipeline)[2]
    meta = json.loads((root / 'train/meta.json').read_text())
    del meta['videos']['a']['objects']['2']['category']
    write_json(root / 'train/meta.json', meta)
    with pytest.raises(ValueError, match=r'does not say what the objects \[2\] in .*a/000\d+.png are'):
        build(root, meta_file='train/meta.json', pipeline=pipeline)[2]


def test_event_maps(root):
    """Of the objects that the sample's sentences name; the others' are unknown."""

    def name(videos):
        for video in videos.values():
            for item in video['expressions'].values():
                item['event'] = 'moves' if item['obj_id'] == '1' else 'sings'

    edit_json(root, name)
    load = dict(type='mmsoc.LoadCategoryMaps', classes=['airplane', 'zebra'], events=['grows', 'moves'])
    dataset = build(root, meta_file='train/meta.json', pipeline=[*PIPELINE[:2], load, *PIPELINE[2:]])
    seen = {}
    for index in range(len(dataset)):
        clip = dataset[index]['data_samples']
        if clip.video_id != 'a':
            continue
        category, event = torch.stack([frame.gt_sem_seg.sem_seg for frame in clip]).unbind(1)
        assert category.shape == event.shape == (len(clip), 48, 80) and event.dtype == torch.uint8
        assert (event[category == 0] == 0).all()
        (obj_id,) = clip.obj_ids
        values = [event[category == value].unique().tolist() for value in (2, 1)]  # zebra, object 1; airplane, object 2
        seen.setdefault(obj_id, []).append(values)
    assert seen['1'] and all(values[0] == [2] and values[1] in ([], [255]) for values in seen['1'])
    assert all(values[0] in ([], [255]) and values[1] in ([], [255]) for values in seen.get('2', []))
    with pytest.raises(UserError, match='at most 254 events fit into a map, found 300'):
        build(root, meta_file='train/meta.json', pipeline=[dict(load, events=['x'] * 300)])


def test_mask_values_are_palette_ids_and_need_no_background(tmp_path):
    write_split(tmp_path, 'train', {'v': dict(objects={'3': [True]}, sentences=[('x', '3')])})
    folder = tmp_path / 'train/Annotations/v'
    ids = np.full((24, 40), 3)  # no pixel is background
    ids[:, 20:] = 7
    write_mask(folder / '00000.png', ids)
    sample = build(
        tmp_path, clip_sampler=dict(type='WindowClipSampler', num_frames=1), pipeline=[*PIPELINE[:2], PIPELINE[4]]
    )[0]
    assert np.array_equal(sample['data_samples'][0].gt_instances.masks.masks[0], (ids == 3))


# --- which frames show an object


def cache_file(folder):
    return next(folder.glob('object_frames_*.json'))


def test_object_frames_are_kept_and_renewed(root, log):
    build(root)
    kept = cache_file(root / 'train')
    assert json.loads(kept.read_text())['videos']['a']['frames']['00040'] == [1, 2]
    assert not [path for path in kept.parent.iterdir() if path.name.startswith('.')]  # no temporary file is left
    log.clear()
    build(root)
    assert not any('reading the masks' in line for line in log)
    # object 2 shows up in frame 0 as well: only video a is read again, and it has one window more
    ids = np.zeros((24, 40))
    ids[0, :2] = 2
    ids[5, 5] = 1
    write_mask(root / 'train/Annotations/a/00000.png', ids)
    assert len(build(root)) == 6
    assert any('reading the masks of 1 of 2 videos' in line for line in log)


def test_object_frames_survive_a_broken_cache(root, log):
    build(root)
    kept = cache_file(root / 'train')
    kept.write_text('{"format": 1, "vid')
    assert len(build(root)) == 5
    assert any('is not used' in line and 'line 1' in line for line in log)
    json.loads(kept.read_text())


def test_object_frames_elsewhere(root, tmp_path_factory):
    place = tmp_path_factory.mktemp('cache') / 'new'
    build(root, cache_dir=str(place))
    assert cache_file(place) and not list((root / 'train').glob('object_frames*'))


def test_object_frames_beside_data_that_cannot_be_written(root, tmp_path, monkeypatch, log):
    from mmsoc.datasets import scanning as module

    write = module.dump_json

    def refuse(content, path):
        if path.parent == root / 'train':
            raise PermissionError(13, 'Permission denied')
        write(content, path)

    monkeypatch.setattr(module, 'dump_json', refuse)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    assert len(build(root)) == 5
    assert cache_file(tmp_path / 'home/mmsoc')
    assert any('cannot be written' in line for line in log)
    log.clear()
    build(root)
    assert not any('reading the masks' in line for line in log)


def test_meta_frame_lists_make_the_scan_unnecessary(tmp_path, log):
    root = write_split(tmp_path, 'train', VIDEOS, meta_frames=True)
    assert len(build(root, meta_file='train/meta.json')) == 5
    assert not any('reading the masks' in line for line in log)


class BuildsInWorker(torch.utils.data.Dataset):
    def __init__(self, root):
        self.root = root

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return len(build(self.root))


def _load_on_two(rank, root):
    import torch.distributed as dist

    dist.init_process_group('gloo')
    try:
        dataset = build(root)
        # a loader's worker that loads the data set must not wait for the other process
        worker = torch.utils.data.DataLoader(BuildsInWorker(root), num_workers=1)
        result = [len(dataset), next(iter(worker)).item() if rank == 0 else None]
    except (FileNotFoundError, ValueError) as error:
        result = str(error)
    (root / f'rank{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


@pytest.mark.parametrize('damaged', [False, True])
def test_two_processes(root, tmp_path, damaged):
    if damaged:
        truncate(root / 'train/Annotations/b/00005.png')
    assert_ended_well(run_on_ranks(_load_on_two, root, folder=tmp_path, fork=True))
    results = [json.loads((root / f'rank{rank}.json').read_text()) for rank in range(2)]
    if damaged:  # both stop, with the same message
        assert results[0] == results[1] and '00005.png cannot be read (video b)' in results[0]
    else:
        assert results == [[5, 5], [5, None]]


# --- test splits


def test_test_items(tmp_path):
    root = write_split(tmp_path, 'valid', VIDEOS)
    dataset = build(
        root,
        ann_file='meta_expressions/valid/meta_expressions.json',
        clip_sampler=None,
        test_mode=True,
        data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
        pipeline=TEST_PIPELINE,
    )
    assert len(dataset) == 2
    sample = dataset[0]
    assert sample['inputs'].shape == (10, 3, 48, 80)
    clip = sample['data_samples']
    assert clip.texts == [' The  Bright left\tBox ', 'second one']  # as in the file
    assert clip.exp_ids == ['0', '1'] and clip.obj_ids == ['1', '2'] and clip.video_id == 'a'
    assert clip.mask_paths[1] == str(root / 'valid/Annotations/a/00005.png')
    assert len(clip[0].gt_instances) == 0
    assert clip[9].ori_shape == (24, 40) and clip[9].img_shape == (48, 80) and clip[9].frame_id == 9


TEST_SPLIT = dict(
    ann_file='meta_expressions/valid/meta_expressions.json',
    clip_sampler=None,
    test_mode=True,
    data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
)


def test_test_split_without_masks_and_objects(tmp_path, log):
    root = write_split(tmp_path, 'valid', VIDEOS, with_objects=False, masks=False, meta=False)
    clip = build(root, **TEST_SPLIT, pipeline=TEST_PIPELINE)[1]['data_samples']
    assert clip.mask_paths is None and clip.obj_ids is None
    assert any('no masks' in line for line in log)
    with pytest.raises(FileNotFoundError, match=r'require_masks: .*there is no folder .*valid/Annotations'):
        build(root, **TEST_SPLIT, require_masks=True)


def test_require_masks_needs_object_ids(tmp_path):
    root = write_split(tmp_path, 'valid', VIDEOS, with_objects=False)
    with pytest.raises(ValueError, match="require_masks: 3 expressions of .* have no 'obj_id'"):
        build(root, **TEST_SPLIT, require_masks=True)


def test_exclude_ann_file(tmp_path, log):
    root = write_split(tmp_path, 'valid', VIDEOS, with_objects=False, masks=False)
    exclude = 'meta_expressions/test/meta_expressions.json'
    write_json(root / exclude, dict(videos=dict(a=dict(expressions={}, frames=[]), other={})))
    dataset = build(root, **TEST_SPLIT, exclude_ann_file=exclude, expected_videos=1)
    assert [dataset.get_data_info(i)['video_id'] for i in range(len(dataset))] == ['b']
    assert any('1 of 2 videos are not in' in line for line in log)
    # without the test file: the folders on disk decide
    (root / exclude).unlink()
    shutil.rmtree(root / 'valid/JPEGImages/b')
    dataset = build(root, **TEST_SPLIT, exclude_ann_file=exclude)
    assert [dataset.get_data_info(i)['video_id'] for i in range(len(dataset))] == ['a']
    assert any('exclude_ann_file: there is no file' in line and 'the 1 that have a folder' in line for line in log)
    with pytest.raises(FileNotFoundError, match=r'no folder .*JPEGImages/b \(video b\)'):
        build(root, **TEST_SPLIT)
    shutil.rmtree(root / 'valid/JPEGImages/a')
    with pytest.raises(ValueError, match='no video is left of the 2'):
        build(root, **TEST_SPLIT, exclude_ann_file=exclude)


def test_real_valid_split(tmp_path, reference, log):
    """202 videos, 834 expressions, 5,486 frames, whether or not the test file is there."""
    source = reference / 'data/ref_youtube_vos_json'
    videos = json.loads((source / 'meta_expressions_valid.json').read_text())['videos']
    valid = (source / 'valid_202_video_ids.txt').read_text().split()
    for video in valid:
        folder = tmp_path / 'valid/JPEGImages' / video
        folder.mkdir(parents=True)
        for frame in videos[video]['frames']:
            (folder / f'{frame}.jpg').touch()
    changes = dict(TEST_SPLIT, ann_file=str(source / 'meta_expressions_valid.json'), expected_videos=202)
    for exclude in (str(source / 'meta_expressions_test_derived.json'), 'no/such/file.json'):
        dataset = build(tmp_path, **changes, exclude_ann_file=exclude)
        items = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert len(items) == 202 and sorted(item['video_id'] for item in items) == sorted(valid)
        assert sum(len(item['texts']) for item in items) == 834
        assert sum(len(item['frames']) for item in items) == 5486
    with pytest.raises(FileNotFoundError, match='no folder'):
        build(tmp_path, **dict(changes, expected_videos=None))


def test_ref_davis17_mini(tmp_path, reference):
    root = reference / 'data/ref-davis17-mini'
    common = dict(
        ann_file='meta_expressions/valid/meta_expressions.json',
        meta_file='valid/meta.json',
        expected_videos=2,
        data_prefix=dict(img='valid/JPEGImages', mask='valid/Annotations'),
    )
    dataset = build(
        root,
        **common,
        cache_dir=str(tmp_path),
        pipeline=PIPELINE,
        clip_sampler=dict(type='WindowClipSampler', num_frames=8),
    )
    # car-shadow 40 frames -> 5 windows, drift-straight 50 -> 7; four sentences each
    assert len(dataset) == 4 * (5 + 7)
    clip = dataset[0]
    assert clip['inputs'].shape == (8, 3, 45, 80)  # 854x480 into 80x48: round(80 * 480 / 854) = 45
    assert all(frame.gt_instances.visible.item() for frame in clip['data_samples'])
    test = build(root, **common, clip_sampler=None, test_mode=True, require_masks=True, pipeline=TEST_PIPELINE)
    assert [len(test.get_data_info(i)['frames']) for i in range(2)] == [40, 50]
    assert test[1]['data_samples'].texts[2] == 'a red car'


# --- bad input: each error names the file, the video and (where it matters) the sentence


def edit_json(root, change):
    path = root / 'meta_expressions/train/meta_expressions.json'
    content = json.loads(path.read_text())
    change(content['videos'])
    path.write_text(json.dumps(content))


def expression(videos, key='0'):
    return videos['a']['expressions'][key]


@pytest.mark.parametrize(
    'change, error, message',
    [
        (lambda v: v['a'].pop('frames'), ValueError, r"meta_expressions.json, video a: the key 'frames' is missing"),
        (lambda v: v['a'].pop('expressions'), ValueError, r"video a: the key 'expressions' is missing"),
        (lambda v: v['a'].update(frames=[]), ValueError, r"video a: 'frames' must be a list of at least one"),
        (lambda v: v['a'].update(frames=[5]), ValueError, r"video a: 'frames' must be a list .* found \[5\]"),
        (lambda v: v['a'].update(expressions={}), ValueError, r"video a: 'expressions' is empty"),
        (lambda v: v['a'].update(expressions=[]), ValueError, r"video a: 'expressions' must be a dict"),
        (lambda v: expression(v).pop('exp'), ValueError, r"video a, expression 0: the key 'exp' is missing"),
        (lambda v: expression(v).update(exp='  '), ValueError, r"video a, expression 0: the sentence 'exp' is empty"),
        (lambda v: expression(v).update(exp=7), ValueError, r"video a, expression 0: 'exp' must be a str, found 7"),
        (lambda v: expression(v).pop('obj_id'), ValueError, r"video a, expression 0: there is no 'obj_id'"),
        (
            lambda v: expression(v).update(obj_id='0'),
            ValueError,
            r"expression 0: 'obj_id' must be a palette index 1..255, found '0'",
        ),
        (
            lambda v: expression(v, '1').update(obj_id='5'),
            ValueError,
            r"video a, expression 1 \('second one'\): the unknown obj_id '5'; the masks show \['1', '2'\]",
        ),
        (
            lambda v: v['a']['frames'].append('00999'),
            FileNotFoundError,
            r"data_prefix\['img'\]: 1 of 11 listed frames are missing in .*JPEGImages/a \(video a\): 00999.jpg",
        ),
        (lambda v: v.clear(), ValueError, r"ann_file .*: 'videos' is empty"),
        (
            lambda v: v.update({'../a': v.pop('a')}),
            UserError,
            r"meta_expressions.json, video '../a': expected a name that can",
        ),
        (
            lambda v: v.update({'/a': v.pop('a')}),
            UserError,
            r"meta_expressions.json, video '/a': expected a name that can",
        ),
        (
            lambda v: v.update({'..': v.pop('a')}),
            UserError,
            r"meta_expressions.json, video '..': expected a name that can",
        ),
        (lambda v: v.update({'a\\b': v.pop('a')}), UserError, 'expected a name .* it holds a path separator'),
        (lambda v: v.update({'a\0': v.pop('a')}), UserError, 'expected a name .* it holds a control character'),
        (
            lambda v: v['a'].update(frames=['00000', '../b/00005']),
            UserError,
            r"video a, 'frames': expected a name that can be a file or folder, found '../b/00005'",
        ),
        (lambda v: v.update(c=v['b']), FileNotFoundError, r'there is no folder .*JPEGImages/c \(video c\)'),
    ],
)
def test_bad_expressions(root, change, error, message):
    edit_json(root, change)
    with pytest.raises(error, match=message):
        build(root)


def test_unknown_object_by_meta(root):
    edit_json(root, lambda videos: expression(videos).update(obj_id='4'))
    with pytest.raises(ValueError, match=r"expression 0 \(.*\): the unknown obj_id '4'; .*meta.json has \['1', '2'\]"):
        build(root, meta_file='train/meta.json')


def test_object_that_no_frame_shows_is_left_out_with_a_warning(tmp_path, log):
    videos = {'v': dict(objects={'1': [True], '2': [False]}, sentences=[('seen', '1'), ('never seen', '2')])}
    root = write_split(tmp_path, 'train', videos)
    assert len(build(root, meta_file='train/meta.json')) == 1
    assert any('no frame shows their object' in line and "'never seen'" in line for line in log)


def test_malformed_json(root):
    path = root / 'meta_expressions/train/meta_expressions.json'
    path.write_text('{"videos": {\n "a": oops\n}}')
    with pytest.raises(ValueError, match=r'ann_file: .*meta_expressions.json is not JSON: line 2, column 7'):
        build(root)
    path.write_text('[]')
    with pytest.raises(ValueError, match="expected an object with the key 'videos', found list"):
        build(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='ann_file: there is no file'):
        build(root)


def test_missing_folders(root):
    with pytest.raises(FileNotFoundError, match=r'data_root: there is no folder .*elsewhere .*MMSOC_DATA'):
        build(root / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=r"data_prefix\['img'\]: there is no folder .*nowhere"):
        build(root, data_prefix=dict(img='nowhere', mask='train/Annotations'))
    with pytest.raises(FileNotFoundError, match=r"data_prefix\['mask'\]: there is no folder .*nowhere/a \(video a\)"):
        build(root, data_prefix=dict(img='train/JPEGImages', mask='nowhere'))
    with pytest.raises(FileNotFoundError, match='meta_file: there is no file'):
        build(root, meta_file='no.json')


def test_wrong_number_of_videos(root):
    with pytest.raises(ValueError, match='expected_videos: .* should give 3471 videos, found 2'):
        build(root, expected_videos=3471)


def test_config_mistakes(root):
    with pytest.raises(ValueError, match='clip_sampler: training needs one'):
        build(root, clip_sampler=None)
    with pytest.raises(ValueError, match='data_prefix: training needs the folder of masks'):
        build(root, data_prefix=dict(img='train/JPEGImages'))
    with pytest.raises(ValueError, match='data_prefix: expected the keys'):
        build(root, data_prefix=dict(video='x'))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])


def larger_frame(length=400):
    return np.random.default_rng(0).integers(0, 255, (24, length, 3))


@pytest.mark.parametrize(
    'damage, error, message',
    [
        (
            lambda r: truncate(r / 'train/JPEGImages/a/00005.jpg'),
            ValueError,
            r"frame .*a/00005.jpg cannot be read \(video a, sentence 'the bright left box'\): .*truncated",
        ),
        (
            lambda r: (r / 'train/JPEGImages/a/00005.jpg').write_bytes(b''),
            ValueError,
            r'frame .*a/00005.jpg cannot be read',
        ),
        (
            lambda r: (r / 'train/JPEGImages/a/00005.jpg').write_text('no image'),
            ValueError,
            r'frame .*a/00005.jpg cannot be read',
        ),
        (
            lambda r: (r / 'train/JPEGImages/a/00005.jpg').unlink(),
            FileNotFoundError,
            r'frame .*a/00005.jpg is missing \(video a',
        ),
        (
            lambda r: write_frame(r / 'train/JPEGImages/a/00005.jpg', larger_frame()),
            ValueError,
            r'frame .*a/00005.jpg is 400x24, but .*00000.jpg of the same clip is 40x24',
        ),
        (
            lambda r: truncate(r / 'train/Annotations/a/00005.png'),
            ValueError,
            r"mask .*a/00005.png cannot be read \(video a, sentence 'the bright left box'\)",
        ),
        (
            lambda r: (r / 'train/Annotations/a/00005.png').unlink(),
            FileNotFoundError,
            r'mask .*a/00005.png is missing \(video a',
        ),
        (
            lambda r: write_mask(r / 'train/Annotations/a/00005.png', np.zeros((24, 41))),
            ValueError,
            r'mask .*a/00005.png is 41x24, but its frame .*a/00005.jpg is 40x24 \(video a, sentence',
        ),
        (
            lambda r: Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(r / 'train/Annotations/a/00005.png'),
            ValueError,
            r'mask .*a/00005.png \(video a.*\): expected a palette PNG .* found mode RGB',
        ),
    ],
)
def test_bad_files_while_training(root, damage, error, message):
    dataset = build(root, pipeline=PIPELINE)
    damage(root)
    with pytest.raises(error, match=message):
        dataset[0]


@pytest.mark.parametrize(
    'damage, error, message',
    [
        (
            lambda r: truncate(r / 'train/Annotations/a/00005.png'),
            ValueError,
            r'mask .*a/00005.png cannot be read \(video a\)',
        ),
        (
            lambda r: (r / 'train/Annotations/a/00005.png').unlink(),
            FileNotFoundError,
            r"data_prefix\['mask'\]: 1 of 10 listed frames are missing in .*Annotations/a \(video a\): 00005.png",
        ),
    ],
)
def test_bad_masks_while_loading(root, damage, error, message):
    damage(root)
    with pytest.raises(error, match=message):
        build(root)


def test_keyword_only():
    with pytest.raises(TypeError):
        RefYouTubeVOSDataset('ann.json')
