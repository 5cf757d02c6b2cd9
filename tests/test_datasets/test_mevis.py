import copy
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from mmsoc.datasets.transforms import LoadMeViSMasks
from mmsoc.registry import DATASETS
from mmsoc.utils.masks import run_totals
from tests.helpers import small_model
from tests.test_datasets.tiny_mevis import SIZE, VIDEOS, dataset_config, encode, mask_of, write_split
from tests.test_datasets.tiny_ref_youtube_vos import write_frame

PIPELINE = [
    dict(type='mmsoc.LoadVideoFrames'),
    dict(type='mmsoc.LoadMeViSMasks'),
    dict(
        type='mmsoc.ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=1.0), dict(type='mmsoc.ShortSideResize', scale=(80, 48))],
    ),
    dict(type='mmsoc.SwapLeftRight'),
    dict(type='mmsoc.PackReferringInputs'),
]
TEST_PIPELINE = [
    PIPELINE[0],
    dict(type='mmsoc.LoadMeViSMasks', evaluation=True),
    dict(type='mmsoc.ForEachFrame', transforms=[PIPELINE[2]['transforms'][1]]),
    PIPELINE[4],
]


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """All three splits, of the same videos."""
    root = tmp_path_factory.mktemp('mevis')
    for split in ('train', 'valid_u', 'valid'):
        write_split(root, split, VIDEOS, public=split != 'valid')
    return root


@pytest.fixture
def mevis(written, tmp_path):
    """A copy, to be damaged."""
    return shutil.copytree(written, tmp_path / 'mevis')


@pytest.fixture
def log():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def build(root, split='train', **changes):
    return DATASETS.build(dataset_config(root, split, **changes))


def items_of(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


# --- training


def test_training_items(written, log):
    dataset = build(written, expected_videos=3)
    items = items_of(dataset)
    # a: 3 is in the windows 0-3, 4-7, 6-9, 7 only in 6-9, one of the two in all of them; b: 0 1 2 2; c is too short
    assert [(item['video_id'], item['exp_ids'], item['anno_ids'], item['frame_ids']) for item in items] == [
        ('a', ['0'], [('3',)], [0, 1, 2, 3]),
        ('a', ['0'], [('3',)], [4, 5, 6, 7]),
        ('a', ['0'], [('3',)], [6, 7, 8, 9]),
        ('a', ['1'], [('7',)], [6, 7, 8, 9]),
        ('a', ['2'], [('7', '3')], [0, 1, 2, 3]),
        ('a', ['2'], [('7', '3')], [4, 5, 6, 7]),
        ('a', ['2'], [('7', '3')], [6, 7, 8, 9]),
        ('b', ['0'], [('11',)], [0, 1, 2, 2]),
    ]
    assert items[0]['texts'] == ['the bright left box'] and items[6]['obj_ids'] == [('1', '0')]
    assert items[0]['img_paths'][1] == str(written / 'train/JPEGImages/a/00001.jpg')
    assert items[0]['labels'] == [0] and items[0]['mask_paths'] is None and items[0]['categories'] is None
    assert [len(of_sentence) for of_sentence in items[6]['mask_rles']['00009']] == [2]
    assert items[3]['mask_rles']['00007'] == [[]]  # null
    (line,) = (line for line in log if 'fewer than 2 frames' in line)
    assert '1 of 3 videos are left out' in line and line.endswith(': c')
    assert any('2 videos, 4 expressions, 8 training samples' in line for line in log)


def test_union_and_null(written):
    sample = build(written, pipeline=PIPELINE)[6]
    clip = sample['data_samples']  # frames 6-9 of a, flipped and twice as large
    assert sample['inputs'].shape == (4, 3, 48, 80) and sample['inputs'].dtype == torch.uint8
    for t, frame in zip((6, 7, 8, 9), clip, strict=True):
        expected = mask_of(0, t) | (mask_of(1, t) if t >= 8 else 0)
        masks = frame.gt_instances.masks.masks
        assert masks.shape == (1, 48, 80) and masks.dtype == np.uint8
        assert np.array_equal(masks[0], np.kron(expected, np.ones((2, 2)))[:, ::-1])
        # columns 2 + t to 7 + t, with annotation 7 to 17 + t: the last one counts
        left, right = 2 + t, (17 if t >= 8 else 7) + t
        assert frame.gt_instances.bboxes.tolist() == [[80 - 2 * right, 6, 80 - 2 * left, 12]]
    assert clip.texts == ['both of them'] and clip.obj_ids == [('1', '0')]
    absent = build(written, pipeline=PIPELINE)[7]['data_samples']
    assert [frame.gt_instances.visible.item() for frame in absent] == [True, False, True, True]
    assert absent[1].gt_instances.bboxes.tolist() == [[0] * 4] and absent.texts == ['a small thing on the left']


def test_objects_that_overlap(tmp_path):
    one, two = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    one[2:8, 2:10], two[5:12, 6:20] = 1, 1
    videos = {'v': dict(annotations={1: [True] * 2, 2: [True] * 2}, sentences=[('x', [1, 2])])}
    write_split(tmp_path, 'train', videos, masks={1: [one, None], 2: [two, None]})
    clip = build(tmp_path, pipeline=[*PIPELINE[:2], PIPELINE[4]])[0]['data_samples']
    assert np.array_equal(clip[0].gt_instances.masks.masks[0], one | two)
    assert clip[0].gt_instances.masks.masks.sum() == 6 * 8 + 7 * 14 - 3 * 4


def test_several_sentences_of_a_clip(written):
    dataset = build(written, pipeline=PIPELINE, sentences_per_clip=3)
    assert len(dataset) == 8
    info = dataset.get_data_info(3)
    assert info['anno_ids'][0] == ('7',) and sorted(info['anno_ids']) == [('3',), ('7',), ('7', '3')]
    # frames 0-3 do not show 7: the sentence that names it alone is dropped when the clip is packed
    assert sorted(dataset[0]['data_samples'].exp_ids) == ['0', '2']
    clip = dataset[3]['data_samples']
    masks = dict(zip(clip.exp_ids, clip[-1].gt_instances.masks.masks))
    assert (
        clip.exp_ids[0] == '1'
        and np.array_equal(masks['0'] | masks['1'], masks['2'])
        and not (masks['0'] & masks['1']).any()
    )
    with pytest.raises(ValueError, match='sentences_per_clip must be at least 1, found 0'):
        build(written, sentences_per_clip=0)


def test_sparse_sampler_and_fewer_frames(written):
    sampler = dict(type='SparseClipSampler', num_frames=3)
    pipeline = [dict(type='mmsoc.RandomFrames', num_frames=2), *PIPELINE]
    dataset = build(written, clip_sampler=sampler, pipeline=pipeline)
    assert len(dataset) == 3 * 4 + 1  # anchors 0 3 6 9 of three sentences, 0 of one
    np.random.seed(0)
    for _ in range(5):
        clip = dataset[0]['data_samples']  # object 3 around frame 0
        for name, frame in zip(clip.frames, clip, strict=True):  # the masks are those of the frames that were kept
            expected = np.kron(mask_of(0, int(name)), np.ones((2, 2)))[:, ::-1]
            assert np.array_equal(frame.gt_instances.masks.masks[0], expected)


def test_two_loader_workers(written):
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset_config(written, pipeline=PIPELINE),
        ),
        seed=0,
    )
    batches = list(loader)
    assert len(batches) == 4
    expected = build(written, pipeline=PIPELINE)[7]['data_samples']
    found = batches[3]['data_samples'][1]
    assert found.video_id == 'b' and np.array_equal(
        found[2].gt_instances.masks.masks, expected[2].gt_instances.masks.masks
    )


def test_masks_are_kept_once(written):
    dataset = build(written)
    text = dataset.codes._text
    codes = [code for codes in json.loads((written / 'train/mask_dict.json').read_text()).values() for code in codes]
    kept = [code['counts'] for code in codes if code is not None]
    assert len(text) == len(''.join(kept[:-1]))  # without annotation 12, which only the video that is left out has
    assert dataset.get_subset(3).codes is dataset.codes and copy.deepcopy(dataset).codes is dataset.codes
    assert len(build(written, indices=[7])) == 1 and build(written, lazy_init=True).codes is None


# --- testing


def test_items_for_testing(written, log):
    dataset = build(written, 'valid_u', require_masks=True, expected_videos=3, pipeline=TEST_PIPELINE)
    clip = dataset[0]['data_samples']
    assert len(dataset) == 3  # also the video of one frame
    assert clip.texts == [' The  Bright left\tBox ', 'the late one', 'both of them']  # as in the file
    assert clip.exp_ids == ['0', '1', '2'] and clip.obj_ids == [('0',), ('1',), ('1', '0')] and clip.mask_paths is None
    assert [len(rles) for rles in clip.gt_rles] == [10] * 3
    assert (
        dataset[0]['inputs'].shape == (10, 3, 48, 80) and clip[0].ori_shape == SIZE and len(clip[0].gt_instances) == 0
    )
    for t in range(10):  # at the original size
        late = mask_of(1, t) if t >= 8 else np.zeros(SIZE, np.uint8)
        expected = [mask_of(0, t), late, mask_of(0, t) | late]
        assert np.array_equal([coco_mask.decode(codes[t]) for codes in clip.gt_rles], expected)
    assert not any('left out' in line for line in log)


def test_split_without_masks(written, log):
    clip = build(written, 'valid', pipeline=TEST_PIPELINE)[0]['data_samples']
    assert 'gt_rles' not in clip and clip.obj_ids is None and clip.mask_paths is None
    assert any('no masks (mask_file is None), good for predictions only' in line for line in log)
    with pytest.raises(FileNotFoundError, match='require_masks: mask_file is None, so this split cannot be evaluated'):
        build(written, 'valid', require_masks=True)
    with pytest.raises(ValueError, match="require_masks: 5 expressions of .*valid/.* have no 'anno_id'"):
        build(written, 'valid', mask_file='valid_u/mask_dict.json', require_masks=True)
    with pytest.raises(ValueError, match='LoadMeViSMasks: there are no masks .*mask_file'):
        build(written, 'valid', pipeline=PIPELINE)[0]


def test_objects_that_no_frame_shows(tmp_path, log):
    # Of 2 there is no mask; of 3 masks without a pixel.
    masks = {1: [mask_of(0, 0), None], 2: [None, None], 3: [np.zeros(SIZE)] * 2}
    videos = {
        'v': dict(
            annotations={i: [True] * 2 for i in masks},
            sentences=[('seen', [1]), ('never seen', [2]), ('empty', [3, 2]), ('one is seen', [2, 1])],
        )
    }
    for split in ('train', 'valid_u'):
        write_split(tmp_path, split, videos, masks=masks)
    assert [item['exp_ids'] for item in items_of(build(tmp_path))] == [['0'], ['3']]
    (line,) = (line for line in log if 'are left out' in line)
    assert line.startswith('2 expressions are left out, since no frame shows their object') and "2 ('empty')" in line
    dataset = build(tmp_path, 'valid_u', pipeline=TEST_PIPELINE)
    assert dataset[0]['data_samples'].exp_ids == ['0', '1', '2', '3']  # the protocol counts them
    assert any(line.startswith('2 expressions name objects that no frame shows') for line in log)


def test_sentences_without_a_target(tmp_path, log):
    """Version 2: nothing in the video is meant, and ``anno_id`` is empty."""
    videos = copy.deepcopy(VIDEOS)
    videos['a']['sentences'].insert(1, ('nothing flies', []))
    videos['d'] = dict(annotations={20: [True] * 2}, sentences=[('nobody', [])])
    for split in ('train', 'valid_u'):
        write_split(tmp_path, split, videos)

    items = items_of(build(tmp_path, expected_videos=4, sentences_per_clip=4))
    assert [item['exp_ids'][0] for item in items if item['video_id'] == 'a'] == ['0', '0', '0', '2', '3', '3', '3']
    # Not beside others either: there it would take the place of a sentence that can be learned.
    assert all('1' not in item['exp_ids'] for item in items) and {item['video_id'] for item in items} == {'a', 'b'}
    assert any('2 of 6 expressions have no target and are left out' in line for line in log)

    dataset = build(tmp_path, 'valid_u', require_masks=True, pipeline=TEST_PIPELINE)
    sample = dataset[0]['data_samples']
    assert sample.texts[1] == 'nothing flies' and sample.obj_ids[1] == () and len(sample.gt_rles[1]) == 10
    assert not any(coco_mask.decode(code).any() for code in sample.gt_rles[1])
    assert all(coco_mask.decode(code).shape == SIZE for code in sample.gt_rles[1])
    assert coco_mask.decode(sample.gt_rles[0][0]).any() and dataset[3]['data_samples'].obj_ids == [()]
    assert any('2 of 7 expressions have no target: their mask is empty in every frame' in line for line in log)
    assert not any('objects that no frame shows' in line for line in log)


# --- run-length codes


def test_run_totals():
    rng = np.random.default_rng(0)
    masks = [rng.random((h, w)) < p for h, w, p in ((1, 1, 1), (5, 7, 0), (30, 41, 0.5), (64, 90, 0.02), (3, 3, 1))]
    far = np.zeros((400, 300))
    far[399, 299] = 1  # a run of 119,999, four digits
    masks.append(far)
    codes = [encode(mask)['counts'].encode() for mask in masks]
    totals, areas = run_totals(codes)
    assert totals.tolist() == [mask.size for mask in masks] and areas.tolist() == [mask.sum() for mask in masks]
    # by hand: 2 zeros, 3 ones, 4 zeros, 3 + 2 ones: the last number is the difference to the run two places before
    assert [of.tolist() for of in run_totals([b'2342'])] == [[2 + 3 + 4 + 5], [3 + 5]]
    broken = [codes[2][:-1] + b'P', b'', b'2 42', b'o' * 12 + b'0', codes[3]]
    assert run_totals(broken)[0].tolist() == [-1, -1, -1, -1, 64 * 90]


# --- bad input


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda v: v['a']['expressions']['2'].update(anno_id=[3, 3]), r"expression 2: 'anno_id' has .* twice: \[3, 3\]"),
        (lambda v: v['a']['expressions']['2'].update(anno_id=[3, 99]), r'1 unknown anno_id.*: 99 \(video a, expression 2\)'),
        (lambda v: v['a']['expressions']['2'].update(anno_id=[]), r"'anno_id' is empty.*an empty 'obj_id'.*found \[1, 0\]"),
        (lambda v: v['a']['expressions']['2'].update(obj_id=[]), r"'obj_id' must be a list of at least one integer, found \[\]"),
        (lambda v: v['a']['expressions']['2'].update(anno_id=['3']), "'anno_id' must be a list of at least one integer, found"),
        (lambda v: v['a']['expressions']['2'].update(anno_id=3), "'anno_id' must be a list, found 3"),
        (lambda v: v['a']['expressions']['2'].pop('obj_id'), "expression 2: the key 'obj_id' is missing"),
        (lambda v: v['a']['expressions']['2'].pop('anno_id'), "expression 2: there is no 'anno_id', which training needs"),
        (lambda v: v['b']['expressions']['0'].update(anno_id=[3]), 'anno_id 3 is also in video a, expression 0'),
        (lambda v: v['a']['expressions']['2'].update(exp=' '), "video a, expression 2: the sentence 'exp' is empty"),
        (lambda v: v['b']['frames'].reverse(), "b: expected 'frames' in ascending order.*found 00002, 00001, 00000"),
        (lambda v: v['b']['frames'].pop(), r'anno_id 11 \(video b, expression 0\): expected .* of 2 frames, found 3 masks'),
    ],
)  # fmt: skip
def test_bad_expressions(mevis, change, message):
    edit(mevis / 'train/meta_expressions.json', lambda content: change(content['videos']))
    with pytest.raises(ValueError, match=message):
        build(mevis)


def test_one_expression_without_annotations(mevis):
    path = mevis / 'valid_u/meta_expressions.json'
    edit(path, lambda content: content['videos']['a']['expressions']['2'].pop('anno_id'))
    with pytest.raises(ValueError, match="video a: some expressions have an 'anno_id' and some have none"):
        build(mevis, 'valid_u')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: d['3'].pop(), r'anno_id 3 \(video a, expression 0\): expected .* each of 10 frames, found 9 masks'),
        (lambda d: d.update({'3': None}), 'each of 10 frames, found NoneType'),
        (lambda d: d['3'].__setitem__(4, 'x'), "run-length code, {'size'.* in place 4, found x"),
        (lambda d: d['3'][4].update(counts=[5, 2]), r'in place 4, found .*\[5, 2\]'),
        (lambda d: d['3'][4].update(size=[24.0, 40]), r'in place 4, found .*24\.0'),
        (lambda d: d['3'].__setitem__(4, encode(np.ones((5, 6)))), r'of one size .* found \[24, 40\] and, in place 4, \[5, 6\]'),
        (lambda d: d['3'][4].update(counts=d['3'][4]['counts'][:-2]), r'place 4 is broken: expected runs of 24 x 40 pixels, found'),
        (lambda d: d['3'][4].update(counts='o'), 'place 4 is broken.* found no such code'),
    ],
)  # fmt: skip
def test_bad_masks(mevis, change, message):
    path = mevis / 'train/mask_dict.json'
    edit(path, change)
    with pytest.raises(ValueError, match=f'mask_file {path}.*{message}'):
        build(mevis)


def test_a_mask_file_that_is_none(mevis):
    path = mevis / 'train/mask_dict.json'
    path.write_text('{"3": [')  # a download that broke off
    with pytest.raises(ValueError, match='mask_file: .*mask_dict.json is not JSON: line 1, column 8'):
        build(mevis)
    path.write_text('[]')
    with pytest.raises(ValueError, match=r'mask_dict.json: expected an object \{anno_id: masks\}, found list'):
        build(mevis)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='mask_file: there is no file .*train/mask_dict.json'):
        build(mevis)
    with pytest.raises(FileNotFoundError, match='mask_file: there is no file .*train/mask_dict.json'):
        build(mevis, 'valid_u', mask_file='train/mask_dict.json')


@pytest.mark.parametrize('evaluation', [False, True])
def test_masks_of_another_size(mevis, evaluation):
    write_frame(mevis / 'valid_u/JPEGImages/c/00000.jpg', np.zeros((24, 44, 3)))
    pipeline = [PIPELINE[0], dict(type='mmsoc.LoadMeViSMasks', evaluation=evaluation)]
    message = r"mask of frame 00000 is 40x24, but its frame .*c/00000.jpg is 44x24 \(video c, sentence 'a picture'\)"
    with pytest.raises(ValueError, match=message):
        build(mevis, 'valid_u', pipeline=pipeline)[2]
    assert LoadMeViSMasks().evaluation is False


def test_wrong_places(mevis):
    with pytest.raises(FileNotFoundError, match='data_root: there is no folder .*mask_dict.json'):
        build(mevis / 'elsewhere')
    with pytest.raises(FileNotFoundError, match='ann_file: there is no file'):
        build(mevis, ann_file='meta_expressions.json')
    with pytest.raises(FileNotFoundError, match=r"data_prefix\['img'\]: there is no folder .*nowhere"):
        build(mevis, data_prefix=dict(img='nowhere'))
    (mevis / 'train/JPEGImages/b/00001.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 3 listed frames are missing in .*b \(video b\): 00001.jpg'):
        build(mevis)


def test_wrong_settings(written):
    with pytest.raises(ValueError, match='should give 1662 videos, found 3'):
        build(written, expected_videos=1662)
    with pytest.raises(ValueError, match='mask_file: training needs the masks'):
        build(written, mask_file=None)
    with pytest.raises(ValueError, match='clip_sampler: training needs one'):
        build(written, clip_sampler=None)
    with pytest.raises(ValueError, match=r"data_prefix: expected the key 'img', found \['mask'\]"):
        build(written, data_prefix=dict(mask='x'))


def test_nothing_left(tmp_path):
    write_split(tmp_path, 'train', {'c': VIDEOS['c']})
    with pytest.raises(ValueError, match='gives no training sample'):
        build(tmp_path)


# --- with a model, and the configs


def test_a_small_model_learns_from_it(root, written):
    model = small_model(root).train()
    dataset = build(written, pipeline=PIPELINE, sentences_per_clip=3)
    batch = model.data_preprocessor(pseudo_collate([dataset[6]]), True)
    losses = model(**batch, mode='loss')
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()


def test_configs(root, written, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(written.parent))
    cfg = Config.fromfile(root / 'configs/soc/soc_swin-t_mevis.py')
    assert cfg.data_root == f'{written.parent}/mevis' and cfg.model.test_cfg.frames_per_clip == 36
    submission = Config.fromfile(root / 'configs/soc/soc_swin-t_mevis_submission.py')
    for dataloader, videos, split in (
        (cfg.train_dataloader, 1662, 'train'),
        (cfg.val_dataloader, 50, 'valid_u'),
        (cfg.test_dataloader, 50, 'valid_u'),
        (submission.val_dataloader, 50, 'valid_u'),
        (submission.test_dataloader, 140, 'valid'),
    ):
        dataloader.dataset.data_root = str(written)
        with pytest.raises(ValueError, match=f'{split}/meta_expressions.json should give {videos} videos, found 3'):
            DATASETS.build(dataloader.dataset)
        dataloader.dataset.expected_videos = None
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert train[0]['inputs'].shape == (8, 3, 360, 600)
    assert [frame.gt_instances.visible.item() for frame in train[0]['data_samples']] == [True] * 8
    assert len(DATASETS.build(cfg.val_dataloader.dataset)[1]['data_samples'].gt_rles) == 1
    assert 'gt_rles' not in DATASETS.build(submission.test_dataloader.dataset)[1]['data_samples']
    assert submission.test_evaluator.type == 'SubmissionWriter' and submission.val_evaluator.type == 'JFMetric'
    base = Config.fromfile(root / 'configs/soc/soc_swin-t_ytvos.py')
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks'):
        assert cfg[key] == base[key], key
    large = Config.fromfile(root / 'configs/soc/soc_swin-b_mevis.py')
    assert large.model.backbone.arch == 'base' and large.model.test_cfg == cfg.model.test_cfg
