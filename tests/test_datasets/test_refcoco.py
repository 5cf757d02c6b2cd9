import json
import logging
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from mmsoc.datasets.refcoco import load_plain_pickle
from mmsoc.datasets.transforms import LoadRefCOCOMasks, PackReferringInputs, PseudoClip
from mmsoc.datasets.transforms.refcoco import affine_matrix, motion_kernel, perspective_matrix, segmentation_to_rle
from mmsoc.registry import DATASETS, METRICS
from mmsoc.utils.errors import UserError
from tests.helpers import small_model
from tests.test_datasets.tiny_ref_youtube_vos import VIDEOS, write_split
from tests.test_datasets.tiny_refcoco import (
    OBJECTS,
    compressed,
    drawn,
    file_name,
    mask_of,
    python2_pickle,
    rectangle,
    references,
    write_refcoco,
)

LOAD = [dict(type='mmsoc.LoadVideoFrames'), dict(type='mmsoc.LoadRefCOCOMasks')]
PACK = dict(type='mmsoc.PackReferringInputs')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_refcoco(tmp_path_factory.mktemp('refcoco'))


@pytest.fixture
def copy(written, tmp_path):
    """A copy of the set, to be damaged."""
    return shutil.copytree(written, tmp_path / 'coco')


@pytest.fixture
def log():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def build(root, split='train', form='prepared', **changes):
    files = dict(
        prepared=dict(ann_file=f'refcoco/instances_refcoco_{split}.json'),
        original=dict(ann_file='refcoco/instances.json', refs_file='refcoco/refs(unc).p', split=split),
    )[form]
    # serialize_data costs a garbage collection, half a second.
    config = dict(
        type='mmsoc.RefCOCODataset', data_root=str(root), test_mode=split == 'val', serialize_data=False, **files
    )
    return DATASETS.build(dict(config, **changes))


def items_of(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


# ------------------------------------------------------------------------------------------------------------ items


@pytest.mark.parametrize('form', ['prepared', 'original'])
def test_training_items(written, log, form):
    items = items_of(build(written, form=form))
    assert [(item['texts'], item['obj_ids'], item['frames']) for item in items] == [
        (['the bright left box'], ['1001'], ['COCO_train2014_000000000100']),
        (['red one'], ['1001'], ['COCO_train2014_000000000100']),
        (['two blue things'], ['1002'], ['COCO_train2014_000000000100']),
        (['green'], ['1003'], ['COCO_train2014_000000000237']),
        (['green'], ['1003'], ['COCO_train2014_000000000237']),
        (['caf\xe9 on the right'], ['1003'], ['COCO_train2014_000000000237']),
    ]
    first = items[0]
    assert (
        first['img_paths'] == [str(written / 'train2014' / file_name(100))] and first['video_id'] == first['frames'][0]
    )
    assert first['frame_ids'] == [0] and first['mask_paths'] is None and (first['height'], first['width']) == (48, 64)
    ids = [item['exp_ids'][0] for item in items]
    assert ids == (['1', '2', '3', '4', '5', '6'] if form == 'prepared' else ['700', '701', '702', '703', '704', '705'])
    (line,) = (line for line in log if 'left out' in line)
    crowd = 7 if form == 'prepared' else 1004
    assert '8 sentences, 6 samples; left out: 2 sentences of crowds (annotations ' + str(crowd) in line


@pytest.mark.parametrize('form', ['prepared', 'original'])
def test_items_for_testing_hold_all_sentences_of_an_image(written, log, form):
    (item,) = items_of(build(written, 'val', form))
    assert item['texts'] == ['Left box', 'pink', 'upper  one'] and item['obj_ids'] == ['1005', '1005', '1007']
    assert item['exp_ids'] == (['1', '2', '4'] if form == 'prepared' else ['708', '709', '711'])
    assert any('4 sentences, 1 samples; left out: 1 sentences of empty masks (annotations' in line for line in log)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_both_forms_give_the_same_items(written, split):
    forms = [items_of(build(written, split, form)) for form in ('prepared', 'original')]
    for item in sum(forms, []):
        item.pop('exp_ids')
    assert forms[0] == forms[1]


def test_masks_are_those_drawn(written):
    train, val = build(written, pipeline=LOAD), build(written, 'val', pipeline=LOAD)
    for results in [train[i] for i in range(len(train))] + [val[0]]:
        (masks,), (boxes,) = results['gt_masks'], results['gt_bboxes']
        assert results['gt_bboxes_labels'][0].tolist() == [0] * len(results['texts'])
        for mask, box, ann_id in zip(masks.masks, boxes, map(int, results['obj_ids']), strict=True):
            assert np.array_equal(mask, mask_of(ann_id)), ann_id
            rectangles, color = np.array(OBJECTS[ann_id][1]), OBJECTS[ann_id][2]
            assert box.tolist() == [*rectangles[:, :2].min(0), *(rectangles[:, 2:].max(0) - 1)]
            # The image's object lies under the mask.
            assert np.abs(results['img'][0][mask > 0].astype(int) - color).mean() < 4


def test_masks_for_evaluation(written):
    sample = build(written, 'val', pipeline=[LOAD[0], dict(LOAD[1], evaluation=True), PACK])[0]['data_samples']
    assert [coco_mask.decode(rle).tolist() for rle in sample.gt_rles] == [
        mask_of(i).tolist() for i in (1005, 1005, 1007)
    ]
    assert sample.texts == ['Left box', 'pink', 'upper  one'] and 'masks' not in sample[0].gt_instances


def test_training_pipeline_of_one_frame(written):
    flip = dict(
        type='mmsoc.ForEachFrame',
        transforms=[dict(type='mmdet.RandomFlip', prob=1.0), dict(type='mmsoc.ShortSideResize', scale=(128, 96))],
    )
    packed = build(written, pipeline=[*LOAD, flip, dict(type='mmsoc.SwapLeftRight'), PACK])[0]
    sample = packed['data_samples']
    assert packed['inputs'].shape == (1, 3, 96, 128) and len(sample) == 1
    assert sample.texts == ['the bright right box'] and sample.exp_ids == ['1']
    objects = sample[0].gt_instances
    assert np.array_equal(objects.masks.masks[0], np.kron(mask_of(1001), np.ones((2, 2)))[:, ::-1])
    # Columns 4..23 and rows 6..25 before, first and last; mirrored within 64 columns and enlarged.
    assert objects.bboxes.tolist() == [[2 * (64 - 23), 12, 2 * (64 - 4), 50]] and objects.visible.tolist() == [True]


# ------------------------------------------------------------------------------------------------------------ segmentations


def test_segmentations():
    overlapping = [rectangle(2, 3, 12, 9), rectangle(8, 5, 18, 15)]
    mask = coco_mask.decode(segmentation_to_rle(overlapping, 20, 30, 'here'))
    assert np.array_equal(mask, drawn(20, 30, (2, 3, 12, 9), (8, 5, 18, 15)))
    triangle = coco_mask.decode(segmentation_to_rle([[0, 0, 10, 0, 0, 10]], 20, 30, 'here'))
    assert triangle[0, :9].all() and triangle[:9, 0].all() and not triangle[6:, 6:].any()
    assert coco_mask.area(segmentation_to_rle([], 20, 30, 'here')) == 0
    # Two empty columns of 3, then one full, then one of which the last pixel is set.
    counts = dict(size=[3, 4], counts=[6, 3, 2, 1])
    expected = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 1]])
    assert np.array_equal(coco_mask.decode(segmentation_to_rle(counts, 3, 4, 'here')), expected)
    text = compressed(expected.astype(np.uint8))
    assert np.array_equal(coco_mask.decode(segmentation_to_rle(text, 3, 4, 'here')), expected)
    packed = segmentation_to_rle(text, 3, 4, 'here')
    assert segmentation_to_rle(packed, 3, 4, 'here') == packed


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ('polygon', "here: 'segmentation' must be polygons or a run-length code, found 'polygon'"),
        (
            [[1, 1, 5, 5]],
            r"here: 'segmentation' must be polygons of three corners x, y at least, found '\[1, 1, 5, 5\]'",
        ),
        ([[1, 1, 5, 5, 7, 7, 8]], 'three corners'),
        ([1, 1, 5, 5, 7, 7], "three corners x, y at least, found '1'"),
        ([[1, 1, 5, 5, 7, 'x']], "here: the polygons of 'segmentation' cannot be drawn"),
        ([[1, 1, 5, 5, 7, float('nan')]], 'not all numbers are finite'),
        (
            dict(size=[20, 31], counts='0'),
            r"'size' \[20, 30\] \(height, width\), as the image is, found .* size \[20, 31\]",
        ),
        (dict(size=[20, 30]), r"found the keys \['size'\]"),
        (
            dict(size=[20, 30], counts='5'),
            'here: the run-length code cannot be read: its runs cover 5 pixels of 600',
        ),  # would hang
        (dict(size=[20, 30], counts='o'), 'here: the run-length code cannot be read: it is no such code'),
        (dict(size=[20, 30], counts=[5, 5]), 'run-length code cannot be read: the counts sum up to 10 pixels of 600'),
    ],
)
def test_wrong_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        segmentation_to_rle(segmentation, 20, 30, 'here')


def test_an_image_of_another_size_is_refused(copy):
    (copy / 'train2014' / file_name(100)).write_bytes((copy / 'train2014' / file_name(237)).read_bytes())
    with pytest.raises(
        ValueError, match=r"000100.jpg \(video .*'the bright left box'\): .* 'size' \[40, 80\] .*\[48, 64\]"
    ):
        build(copy, pipeline=LOAD)[0]


# ------------------------------------------------------------------------------------------------------------ damaged sets


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('', 'data_root: there is no folder .*train2014 and the folders refcoco, refcoco'),
        ('train2014', r"data_prefix\['img'\]: there is no folder .*train2014; expected COCO's images"),
        (
            'train2014/' + file_name(237),
            r"data_prefix\['img'\]: 1 of 2 images of .* are missing in .*train2014: COCO_.*237.jpg",
        ),
        ('refcoco/instances.json', 'ann_file: there is no file .*instances.json'),
        ('refcoco/refs(unc).p', r'refs_file: there is no file .*refs\(unc\).p'),
    ],
)
def test_half_unpacked(copy, path, message):
    shutil.rmtree(copy / path) if (copy / path).is_dir() else (copy / path).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        build(copy, form='original')


def first(name, **values):
    return lambda content: content[name][0].update(values)


def without(name, key):
    return lambda content: content[name][0].pop(key)


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda content: content.pop('images'), "ann_file .*train.json: the key 'images' is missing"),
        (without('images', 'id'), r"images\[0\]: the key 'id' is missing"),
        (first('images', id=2), 'images has the id 2 twice'),
        (first('annotations', id=2), 'annotations has the id 2 twice'),
        (
            first('annotations', image_id=2),
            'image 2: expected one annotation, found 1 and 2; is this the instances.json',
        ),
        (first('annotations', image_id=99), 'annotation 1: there is no image 99'),
        (lambda content: content['annotations'].pop(0), 'image 1: there is no annotation of it'),
        (without('images', 'caption'), "image 1: the sentence 'caption' is missing.*needs refs_file and split"),
        (first('images', caption=' '), 'image 1: the sentence is empty'),
        (first('images', caption=5), "image 1: 'caption' must be a str, found 5"),
        (without('images', 'file_name'), "image 1: the key 'file_name' is missing"),
        (first('images', file_name='../x.jpg'), "image 1, file_name: expected a name that can be a file .*'../x.jpg'"),
        (without('images', 'height'), "image 1: the key 'height' is missing"),
        (without('annotations', 'segmentation'), "annotation 1: the key 'segmentation' is missing"),
        (first('annotations', segmentation=[[1, 2, 3, 4]]), 'train.json, annotation 1: .*three corners'),
    ],
)
def test_wrong_prepared_files(copy, edit, message):
    change(copy / 'refcoco/instances_refcoco_train.json', edit)
    with pytest.raises(ValueError, match=message):
        build(copy)


def test_the_form_of_mdetr_is_refused_with_a_way_out(copy):
    def boxes_only(content):
        for annotation in content['annotations']:
            del annotation['segmentation']
            annotation['tokens_positive'] = [[0, 3]]

    change(copy / 'refcoco/instances_refcoco_train.json', boxes_only)
    with pytest.raises(
        UserError, match="annotation 1: the key 'segmentation' is missing.*MDETR's finetune_refcoco"
    ) as error:
        build(copy)
    for way_out in (
        'https://github.com/lichengunc/refer (refs_file and split)',
        'https://github.com/wjn922/ReferFormer',
    ):
        assert way_out in str(error.value)


def test_broken_json(copy):
    path = copy / 'refcoco/instances_refcoco_train.json'
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match='ann_file: .*train.json is not JSON: line 1'):
        build(copy)


def of_ref(number, **values):
    return lambda refs: refs[number].update(values)


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (of_ref(1, ref_id=10), r'refs\(unc\).p, ref_id 10: the id occurs twice'),
        (of_ref(1, ann_id=9999), r'ref_id 11: ann_id 9999 is not in .*instances.json'),
        (of_ref(1, image_id=9999), r'ref_id 11: image_id 9999 is not in .*instances.json'),
        (
            of_ref(1, ann_id=1003),
            'ref_id 11: expected an annotation of image 100, found ann_id 1003, which .* of image 237',
        ),
        (lambda refs: refs[1].pop('split'), "ref_id 11: the key 'split' is missing"),
        (lambda refs: refs[1].pop('ref_id'), "reference 1 of the list: the key 'ref_id' is missing"),
        (lambda refs: refs[1].pop('sentences'), "ref_id 11: the key 'sentences' is missing"),
        (lambda refs: refs[1]['sentences'][0].update(sent_id=700), 'ref_id 11: the sent_id 700 occurs twice'),
        (lambda refs: refs[1]['sentences'][0].update(sent=' '), 'ref_id 11, sent_id 702: the sentence is empty'),
        (lambda refs: refs[1]['sentences'][0].pop('sent'), "ref_id 11, sent_id 702: the key 'sent' is missing"),
        (lambda refs: refs.clear(), r"expected a list of references, found '\[\]'"),
    ],
)
def test_wrong_references(copy, edit, message):
    refs = references()
    edit(refs)
    (copy / 'refcoco/refs(unc).p').write_bytes(python2_pickle(refs))
    with pytest.raises(ValueError, match=message):
        build(copy, form='original')


def test_wrong_settings(written):
    with pytest.raises(ValueError, match=r"refs\(unc\).p has no split 'testA'; it has \['train', 'val'\]"):
        build(written, 'testA', 'original')
    with pytest.raises(ValueError, match='split: refs_file refs.p holds all splits; expected the name of one'):
        build(written, refs_file='refs.p')
    with pytest.raises(ValueError, match="split: 'train' chooses among the references of refs_file, and there is none"):
        DATASETS.build(dict(type='mmsoc.RefCOCODataset', data_root=str(written), ann_file='x.json', split='train'))
    with pytest.raises(ValueError, match=r"data_prefix: expected the key 'img', found \['image'\]"):
        build(written, data_prefix=dict(image='x'))
    with pytest.raises(ValueError, match='expected_sentences: .*train.json should give 120624 sentences, found 8'):
        build(written, expected_sentences=120624)
    with pytest.raises(ValueError, match=r'and the split train of .*refs\(unc\).p should give 9 sentences, found 8'):
        build(written, form='original', expected_sentences=9)
    assert len(build(written, expected_sentences=8)) == 6  # what is left out is counted
    with pytest.raises(ValueError, match='expected one annotation, found|needs refs_file and split'):
        build(written, ann_file='refcoco/instances.json')


def test_nothing_left(copy):
    change(
        copy / 'refcoco/instances_refcoco_train.json',
        lambda content: [annotation.update(iscrowd=1) for annotation in content['annotations']],
    )
    with pytest.raises(ValueError, match='ann_file: .*train.json gives no sample'):
        build(copy)


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ['EVIL_FOLDER'],)


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_pickle_cannot_run_code(tmp_path, monkeypatch, protocol):
    monkeypatch.setenv('EVIL_FOLDER', str(tmp_path / 'made'))
    path = tmp_path / 'refs.p'
    path.write_bytes(pickle.dumps([dict(ref_id=1, split='train', sentences=Evil())], protocol))
    with pytest.raises(ValueError, match=r'refs_file: .*refs.p cannot be read as a pickle: .*it asks for \w+.mkdir'):
        load_plain_pickle(str(path), 'refs_file')
    assert not (tmp_path / 'made').exists()
    pickle.loads(path.read_bytes())  # the ordinary way does run it
    assert (tmp_path / 'made').exists()


def test_pickles(tmp_path):
    path = tmp_path / 'refs.p'
    value = [dict(ref_id=1, text='caf\xe9', part=1.5, nothing=None, tuple=(1, 'a'), large=2**70)]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(value, protocol))
        assert load_plain_pickle(str(path), 'refs_file') == value
    path.write_bytes(python2_pickle(references()))
    assert load_plain_pickle(str(path), 'refs_file') == references()
    for content in (path.read_bytes()[:-20], b'', b'no pickle'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='refs.p cannot be read as a pickle'):
            load_plain_pickle(str(path), 'refs_file')


# ------------------------------------------------------------------------------------------------------------ pseudo-clips

OBJECT, GROUND = (200, 50, 50), (60, 90, 120)  # far enough from 0 and 255 for a change of brightness by 40


def sample_of(box=(50, 30, 110, 90), size=(120, 160)):
    """What loading hands to PseudoClip."""
    mask = drawn(*size, box)
    image = np.where(mask[..., None] > 0, OBJECT, GROUND).astype(np.uint8)
    return dict(
        video_id='v',
        texts=['red'],
        exp_ids=['1'],
        obj_ids=['7'],
        frames=['v'],
        frame_ids=[0],
        img_paths=['v.jpg'],
        mask_paths=None,
        img=[image],
        img_path=['v.jpg'],
        ori_shape=[size],
        img_shape=[size],
        scale_factor=[(1.0, 1.0)],
        flip=[False],
        flip_direction=[None],
        gt_masks=[BitmapMasks(mask[None], *size)],
        gt_bboxes=[np.array([[box[0], box[1], box[2] - 1, box[3] - 1]], np.float32)],
        gt_bboxes_labels=[np.zeros(1, np.int64)],
    )


def clip_of(seed=0, sample=None, **options):
    np.random.seed(seed)
    return PseudoClip(**options).transform(sample or sample_of())


@pytest.mark.parametrize('num_frames', [1, 2, 8])
def test_a_clip_holds_the_image(num_frames):
    original = sample_of()
    clip = clip_of(num_frames=num_frames)
    assert sorted(clip['frames']) == [f'v_{i}' for i in range(num_frames)] and clip['frame_ids'] == list(
        range(num_frames)
    )
    place = clip['frames'].index('v_0')
    same = [np.array_equal(image, original['img'][0]) for image in clip['img']]
    assert same == [t == place for t in range(num_frames)]
    assert np.array_equal(clip['gt_masks'][place].masks, original['gt_masks'][0].masks)
    assert np.array_equal(clip['gt_bboxes'][place], original['gt_bboxes'][0])
    for key in (
        'img',
        'img_path',
        'img_paths',
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
        'gt_masks',
        'gt_bboxes',
        'gt_bboxes_labels',
    ):
        assert len(clip[key]) == num_frames, key
    assert all(image.shape == (120, 160, 3) and image.dtype == np.uint8 for image in clip['img'])
    assert clip['texts'] == ['red'] and clip['exp_ids'] == ['1']


def test_the_mask_moves_with_the_image():
    moved = 0
    for seed in range(5):
        clip = clip_of(seed, blur_prob=0)
        for image, masks, boxes in zip(clip['img'], clip['gt_masks'], clip['gt_bboxes'], strict=True):
            mask = masks.masks[0]
            assert set(np.unique(mask)) <= {0, 1}
            is_object = image[..., 0].astype(int) - image[..., 1] > 60  # 150 in the object, -30 or (black) 0 beside it
            assert (is_object != mask).sum() <= 0.03 * mask.sum()  # half-mixed pixels of the outline
            rows, columns = np.nonzero(mask)
            assert boxes.tolist() == [[columns.min(), rows.min(), columns.max(), rows.max()]]
            moved += not np.array_equal(mask, sample_of()['gt_masks'][0].masks[0])
    assert moved == 5 * 7  # all but the image itself


def test_copies_are_independent_and_random():
    clip = clip_of(3)
    masks = [masks.masks.tobytes() for masks in clip['gt_masks']]
    assert len(set(masks)) == 8
    again, other = clip_of(3), clip_of(4)
    assert clip['frames'] == again['frames'] and all(map(np.array_equal, clip['img'], again['img']))
    assert not any(
        np.array_equal(a, b) for a in clip['img'] for b in other['img'] if not np.array_equal(a, sample_of()['img'][0])
    )


def test_frames_are_shuffled():
    places = [clip_of(seed, num_frames=4)['frames'].index('v_0') for seed in range(40)]
    assert {places.count(t) > 3 for t in range(4)} == {True}
    assert len({tuple(clip_of(seed, num_frames=4)['frames']) for seed in range(40)}) > 12


def test_brightness():
    sample = sample_of()
    levels = []
    for seed in range(20):
        clip = clip_of(seed, sample_of(), num_frames=3, perspective=0, rotate=0, translate=0, blur_prob=0)
        for image, masks in zip(clip['img'], clip['gt_masks'], strict=True):
            difference = image.astype(int) - sample['img'][0]
            assert difference.min() == difference.max() and np.array_equal(masks.masks, sample['gt_masks'][0].masks)
            levels.append(difference.min())
    assert -40 <= min(levels) < -30 and 30 < max(levels) <= 40
    white = sample_of()
    white['img'] = [np.full((120, 160, 3), 250, np.uint8)]
    clip = clip_of(0, white, perspective=0, rotate=0, translate=0, blur_prob=0)
    assert (
        max(image.max() for image in clip['img']) == 255 and min(image.min() for image in clip['img']) >= 210
    )  # no wrapping


def test_no_change_where_nothing_is_asked_for():
    clip = clip_of(brightness=0, perspective=0, rotate=0, translate=0, blur_prob=0)
    assert all(np.array_equal(image, sample_of()['img'][0]) for image in clip['img'])


def apply(matrix, *point):
    x, y, w = matrix @ [*point, 1]
    return pytest.approx((x / w, y / w), abs=1e-3)


def test_matrices():
    """Height 100, width 200."""
    assert np.allclose(perspective_matrix((100, 200), np.zeros((4, 2))), np.eye(3))
    # Upper left by a tenth of the width and a fifth of the height, lower right by a twentieth: inwards, whatever the sign.
    matrix = perspective_matrix((100, 200), np.array([[-0.1, 0.2], [0, 0], [0.05, -0.05], [0, 0]]))
    assert apply(matrix, 20, 20) == (0, 0) and apply(matrix, 200, 0) == (200, 0)
    assert apply(matrix, 190, 95) == (200, 100) and apply(matrix, 0, 100) == (0, 100)
    # A right angle, clockwise, about the centre of the pixels: what is right of it comes below it.
    assert apply(affine_matrix((100, 200), 90, 0), 109.5, 49.5) == (99.5, 59.5)
    assert apply(affine_matrix((100, 200), 0, 0.1), 10, 5) == (30, 15)


def test_one_homography_is_as_good_as_two_steps():
    """imgaug's way: first the perspective, then the affine one, each interpolated and each losing what leaves the image."""
    rows, columns = np.mgrid[:120, :160]
    smooth = np.stack([rows * 2, columns, 255 - rows - columns // 2], -1).astype(np.uint8)
    black = []
    for seed in range(10):
        sample = sample_of(box=(0, 0, 110, 90))  # at the image's border, beyond which there must be none of it
        sample['img'] = [smooth]
        original = sample['gt_masks'][0].masks[0]
        clip = clip_of(seed, sample, num_frames=2, brightness=0, blur_prob=0, perspective=0.1)
        found, mask = ((clip[key][clip['frames'].index('v_1')]) for key in ('img', 'gt_masks'))
        np.random.seed(seed)
        np.random.uniform()
        distortion = perspective_matrix((120, 160), np.random.normal(0, 0.1, (4, 2)))
        movement = affine_matrix((120, 160), np.random.uniform(-20, 20), np.random.uniform(-0.1, 0.1))[:2]
        expected = cv2.warpAffine(cv2.warpPerspective(smooth, distortion, (160, 120)), movement, (160, 120))
        two_steps = cv2.warpAffine(
            cv2.warpPerspective(original, distortion, (160, 120), flags=cv2.INTER_NEAREST),
            movement,
            (160, 120),
            flags=cv2.INTER_NEAREST,
        )
        inside = cv2.warpAffine(np.ones((120, 160), np.uint8), movement, (160, 120))
        inside = (
            cv2.erode(inside, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        )  # not where it fades
        assert np.abs(found[inside].astype(int) - expected[inside]).max() <= 3
        assert not found[cv2.dilate(expected.max(-1), np.ones((3, 3))) == 0].any()  # the same black
        assert (mask.masks[0] != two_steps).sum() < 0.06 * two_steps.sum()  # pixels of the outline
        black.append((found.max(-1) == 0).mean())
    assert max(black) > 0.05


def test_motion_blur():
    for angle in (0, 90, 45, 200):
        kernel = motion_kernel(9, angle, 0.3)
        assert kernel.shape == (9, 9) and kernel.sum() == pytest.approx(1) and kernel.min() >= 0
        assert (kernel > 0.01).sum() <= 20  # a line
    upright = motion_kernel(9, 0, 0.5)
    assert np.allclose(upright[:, 4], 1 / 9) and np.allclose(motion_kernel(9, 90, 0.5)[4], 1 / 9, atol=1e-3)
    assert motion_kernel(11, 0, 1.0)[0, 5] == pytest.approx(1 / 5.5) and motion_kernel(11, 0, 1.0)[-1, 5] == 0
    # Only the image blurs, and as often as asked for.
    still = dict(num_frames=8, brightness=0, perspective=0, rotate=0, translate=0)
    blurred = masks_changed = 0
    for seed in range(20):
        clip = clip_of(seed, **still)
        blurred += sum(not np.array_equal(image, sample_of()['img'][0]) for image in clip['img'])
        masks_changed += sum(not np.array_equal(m.masks, sample_of()['gt_masks'][0].masks) for m in clip['gt_masks'])
    assert 20 <= blurred <= 52 and not masks_changed  # 140 copies, each with probability 1/4: 35 +- 3 * 5.1


def test_an_object_that_leaves_the_image():
    sample = sample_of(box=(0, 0, 6, 6))
    clip = clip_of(1, sample, translate=0.3)
    empty = [not masks.masks.any() for masks in clip['gt_masks']]
    assert any(empty) and not empty[clip['frames'].index('v_0')]
    assert all(boxes.tolist() == [[0, 0, 0, 0]] for boxes, gone in zip(clip['gt_bboxes'], empty) if gone)
    packed = PackReferringInputs().transform(clip)['data_samples']
    assert packed.texts == ['red'] and [frame.gt_instances.visible.item() for frame in packed] == [
        not gone for gone in empty
    ]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_frames=0), 'num_frames must be in 1..inf, found 0'),
        (dict(brightness=-1), 'brightness must be in 0..255'),
        (dict(perspective=0.3), 'perspective must be in 0..0.25, found 0.3'),
        (dict(blur_prob=1.5), 'blur_prob must be in 0..1'),
        (dict(blur_kernels=(9, 10)), r'blur_kernels must be odd numbers from 3 on, found \(9, 10\)'),
        (dict(blur_kernels=()), 'blur_kernels must be odd'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=f'PseudoClip: {message}'):
        PseudoClip(**options)


def test_wrong_places_in_the_pipeline():
    sample = sample_of()
    del sample['gt_masks']
    with pytest.raises(
        ValueError, match="found 1 with no masks; LoadRefCOCOMasks must come before .video v, sentence 'red'"
    ):
        PseudoClip().transform(sample)
    with pytest.raises(ValueError, match='expected one frame with masks, found 8 with masks'):
        PseudoClip().transform(clip_of())


# ------------------------------------------------------------------------------------------------------------ with the model


@pytest.mark.parametrize('clip', [[], [dict(type='mmsoc.PseudoClip', num_frames=3)]], ids=['one frame', 'pseudo-clip'])
def test_losses_of_a_batch(root, written, clip):
    np.random.seed(0)
    resize = dict(type='mmsoc.ForEachFrame', transforms=[dict(type='mmsoc.ShortSideResize', scale=(96, 64))])
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(
                type='mmsoc.RefCOCODataset',
                data_root=str(written),
                ann_file='refcoco/instances_refcoco_train.json',
                pipeline=[*LOAD, *clip, resize, PACK],
            ),
        ),
        seed=1,
    )
    model = small_model(root).train()
    sizes = set()
    for batch in loader:
        sizes.add(tuple(tuple(inputs.shape) for inputs in batch['inputs']))
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        assert losses and all(torch.isfinite(loss).all() for loss in losses.values())
    assert {shape[0] for shapes in sizes for shape in shapes} == {3 if clip else 1}
    assert any(len(set(shapes)) == 2 for shapes in sizes)  # images of two sizes in a batch


def load(root, monkeypatch, data, name):
    monkeypatch.setenv('MMSOC_DATA', str(data))
    return Config.fromfile(root / 'configs' / name)


def without_numbers(cfg):
    """The tiny set has not the real one's number of sentences and videos."""
    for dataset in cfg.train_dataloader.dataset.datasets:
        dataset.pop('expected_sentences', dataset.pop('expected_videos', None))
        dataset.serialize_data = False
    cfg.train_dataloader.num_workers = 0
    return cfg


def test_config_of_images(root, written, monkeypatch):
    cfg = load(root, monkeypatch, written.parent, '_base_/datasets/refcoco.py')
    with pytest.raises(ValueError, match='should give 120624 sentences, found 8'):
        DATASETS.build(cfg.train_dataloader.dataset)
    loader = Runner.build_dataloader(without_numbers(cfg).train_dataloader, seed=0)
    assert len(loader.dataset) == 3 * 6 and loader.dataset.metainfo == dict(classes=('referred',))
    batch = next(iter(loader))
    assert len(batch['inputs']) == 8 and {tuple(inputs.shape) for inputs in batch['inputs']} <= {
        (1, 3, 360, 480),
        (1, 3, 320, 640),
    }
    cfg.val_dataloader.dataset.expected_sentences = None
    (sample,) = Runner.build_dataloader(dict(cfg.val_dataloader, num_workers=0), seed=0)
    assert (
        len(sample['data_samples'][0].gt_rles) == 3
        and type(METRICS.build(cfg.val_evaluator)).__name__ == 'RefCOCOMetric'
    )
    # The other form, by the line that the config's comment shows.
    originals = dict(ann_file='refcoco/instances.json', refs_file='refcoco/refs(unc).p', split='train')
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset.datasets[0], **originals))) == 6


@pytest.fixture
def joint(root, written, tmp_path, monkeypatch):
    (tmp_path / 'coco').symlink_to(written)
    write_split(tmp_path / 'ref-youtube-vos', 'train', VIDEOS)
    cfg = without_numbers(load(root, monkeypatch, tmp_path, '_base_/datasets/joint.py'))
    for part in cfg.train_dataloader.dataset.datasets:
        part.pipeline[-3].transforms[-1].scale = (64, 48)  # less to compute
    return cfg


def test_config_of_joint_training(joint):
    np.random.seed(0)
    loader = Runner.build_dataloader(joint.train_dataloader, seed=0)
    dataset = loader.dataset
    # Of the videos: 2 windows for sentence 0 of a, 1 for the sentence of the object seen late, 1 of b.
    assert [len(part) for part in dataset.datasets] == [6, 6, 6, 4]
    batches = list(loader)
    assert len(batches) == 22 and {batch['inputs'][0].shape[0] for batch in batches} == {8}
    of_images = [batch['data_samples'][0].video_id.startswith('COCO') for batch in batches]
    assert sum(of_images) == 18 and of_images != sorted(of_images, reverse=True)  # mixed
    assert all(batch['data_samples'][0].texts == [batch['data_samples'][0].texts[0].lower()] for batch in batches)
    assert joint.val_dataloader.dataset.type == 'RefYouTubeVOSDataset' and joint.val_evaluator.type == 'JFMetric'
    flips = {
        t.transforms[0].prob
        for part in joint.train_dataloader.dataset.datasets
        for t in part.pipeline
        if 'transforms' in t
    }
    assert flips == {0.309}


def test_frames_are_redrawn_through_concatenation(joint):
    videos = joint.train_dataloader.dataset.datasets[3]
    videos.update(clip_sampler=dict(type='SparseClipSampler', num_frames=3), pipeline=[])
    dataset = DATASETS.build(joint.train_dataloader.dataset)
    np.random.seed(0)
    assert len({tuple(dataset[18]['frame_ids']) for _ in range(20)}) > 1
    assert len({tuple(dataset.get_data_info(18)['frame_ids']) for _ in range(20)}) > 1


def test_sets_with_other_classes_together(joint):
    joint.train_dataloader.dataset.datasets[3].use_category = True
    with pytest.raises(ValueError, match='does not match meta information of the first dataset'):
        DATASETS.build(joint.train_dataloader.dataset)
    dataset = DATASETS.build(dict(joint.train_dataloader.dataset, ignore_keys=['classes']))
    assert len(dataset) == 22 and dataset.metainfo['classes'] == ('referred',)


def test_samplers_that_look_into_the_set(root, written, monkeypatch):
    cfg = without_numbers(load(root, monkeypatch, written.parent, '_base_/datasets/refcoco.py'))
    cfg.train_dataloader.update(batch_size=2, batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    for data_set in loader.dataset.datasets:
        data_set.pipeline.transforms = data_set.pipeline.transforms[:0]
    batches = [batch['texts'] for batch in loader]
    assert len(batches) == 9  # all are wide: one queue
    del cfg.train_dataloader.batch_sampler
    for sampler, length in (
        (dict(type='mmdet.MultiDataSampler', dataset_ratio=[1, 1, 1]), 9),
        (dict(type='ShortEpochSampler', epoch_size=4), 2),
    ):
        cfg.train_dataloader.sampler = sampler
        assert len(Runner.build_dataloader(cfg.train_dataloader, seed=0)) == length


@pytest.mark.parametrize('name', ['soc_swin-t_refcoco', 'soc_swin-b_refcoco'])
def test_configs_of_pretraining(root, name):
    cfg = Config.fromfile(root / 'configs/pretrain' / f'{name}.py')
    assert not cfg.model.text_encoder.frozen and cfg.model.head.num_classes == 1
    assert cfg.param_scheduler[0].milestones == [15, 20] and cfg.train_cfg.max_epochs == 30
    # 64 images in a step, 1e-4; the backbone a tenth, RoBERTa a twentieth.
    assert (
        cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 64
        and cfg.optim_wrapper.optimizer.lr == 1e-4
    )
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys['backbone'].lr_mult == 0.1 and keys['text_encoder.roberta'].lr_mult == 0.05
    for loader in ('train', 'val', 'test'):
        DATASETS.build(dict(cfg[f'{loader}_dataloader'].dataset, lazy_init=True))


def test_loading_masks_of_several_sentences_of_polygons(written):
    """Polygons that were not made run-length codes before, as an own data set may hand them."""
    results = dict(sample_of(), segmentations=[[rectangle(1, 2, 5, 6)], compressed(drawn(120, 160, (10, 20, 30, 40)))])
    results['texts'] = ['a', 'b']
    masks = LoadRefCOCOMasks().transform(results)['gt_masks'][0].masks
    assert np.array_equal(masks, [drawn(120, 160, (1, 2, 5, 6)), drawn(120, 160, (10, 20, 30, 40))])
