import json
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.evaluation import JFMetric, boundary_f, region_similarity
from mmsoc.evaluation.jf_metric import boundary_map
from mmsoc.registry import DATASETS, METRICS
from mmsoc.utils.files import read_ids
from tests.ranks import assert_ended_well, run_on_ranks
from tests.test_datasets.tiny_ref_youtube_vos import VIDEOS, dataset_config, write_split


def square(top, left, height, width, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def full_frame_f(gt, pred, bound_th=0.008):
    """The definition, without any shortcut: maps and dilation of the whole frame."""
    height, width = gt.shape

    def boundary(mask):
        right, lower, diagonal = (np.zeros_like(mask) for _ in range(3))
        right[:, :-1], lower[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        result = (mask ^ right) | (mask ^ lower) | (mask ^ diagonal)
        result[-1] = mask[-1] ^ right[-1]
        result[:, -1] = mask[:, -1] ^ lower[:, -1]
        result[-1, -1] = False
        return result

    radius = bound_th if bound_th >= 1 else math.ceil(bound_th * math.sqrt(height**2 + width**2))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.uint8)
    b_gt, b_pred = boundary(gt), boundary(pred)
    near_gt, near_pred = (cv2.dilate(b.astype(np.uint8), disk) > 0 for b in (b_gt, b_pred))
    n_gt, n_pred = b_gt.sum(), b_pred.sum()
    if n_pred == 0 and n_gt > 0:
        precision, recall = 1, 0
    elif n_pred > 0 and n_gt == 0:
        precision, recall = 0, 1
    elif n_pred == 0 and n_gt == 0:
        precision, recall = 1, 1
    else:
        precision, recall = (b_pred & near_gt).sum() / n_pred, (b_gt & near_pred).sum() / n_gt
    return 0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_region_similarity_by_hand():
    a, b = square(10, 10, 10, 20), square(10, 20, 10, 20)
    assert region_similarity(a, b) == 100 / 300  # 10x10 shared; 200 + 200 - 100
    assert region_similarity(a, a) == 1
    assert region_similarity(a, square(30, 40, 5, 5)) == 0
    empty = np.zeros((40, 60), bool)
    assert region_similarity(empty, empty) == 1
    assert region_similarity(a, empty) == 0 == region_similarity(empty, a)
    # without the shared columns 20..29: nothing is shared, and something is there
    assert region_similarity(a, b, void=square(0, 20, 40, 10)) == 0
    assert region_similarity(a, b, void=np.ones((40, 60), bool)) == 1


def test_boundary_map_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    # a pixel belongs to the boundary if it differs from its right, lower or lower right neighbour
    assert np.argwhere(boundary_map(mask)).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not boundary_map(np.ones((5, 5), bool)).any()
    left_half = np.zeros((4, 6), bool)
    left_half[:, :3] = True
    assert np.array_equal(boundary_map(left_half), np.tile([0, 0, 1, 0, 0, 0], (4, 1)))
    corner = np.zeros((3, 3), bool)
    corner[2, 2] = True
    assert np.argwhere(boundary_map(corner)).tolist() == [[1, 1], [1, 2], [2, 1]]


def test_boundary_f_by_hand():
    # 100x100: radius = ceil(0.008 * 141.4) = 2
    a, size = square(20, 20, 30, 30, (100, 100)), (100, 100)
    assert boundary_f(a, a) == 1
    assert boundary_f(a, square(20, 22, 30, 30, size)) == 1  # two pixels aside: all within the radius
    assert boundary_f(a, square(70, 70, 10, 10, size)) == 0
    empty, full = np.zeros(size, bool), np.ones(size, bool)
    assert boundary_f(empty, empty) == boundary_f(full, full) == boundary_f(empty, full) == 1  # no boundary at all
    assert boundary_f(a, empty) == boundary_f(empty, a) == boundary_f(full, a) == 0
    # left halves that end at columns 50 and 53: one boundary column each, 3 apart: out of reach, but not with radius 3
    first, second = square(0, 0, 100, 50, size), square(0, 0, 100, 53, size)
    assert boundary_f(first, second) == 0
    assert boundary_f(first, second, bound_th=3) == 1
    # prediction = the left half and a dot far away, whose boundary has 4 pixels: precision 100 / 104, recall 1
    dotted = first | square(50, 80, 1, 1, size)
    precision = 100 / 104
    assert boundary_f(first, dotted) == pytest.approx(2 * precision / (precision + 1), abs=1e-15)
    # void hides the dot
    assert boundary_f(first, dotted, void=square(0, 70, 100, 30, size)) == 1


def test_boundary_f_equals_the_full_frame_form():
    rng = np.random.default_rng(0)
    checked = 0
    for trial in range(400):
        size = tuple(rng.integers(1, 150, 2))
        masks = []
        for _ in range(2):
            kind = rng.integers(6)
            mask = np.zeros(size, bool)
            if kind == 1:
                mask[:] = True
            elif kind == 2:
                mask = rng.random(size) < rng.random()
            elif kind > 2:  # a rectangle, often touching a border
                y, x = np.sort(rng.integers(-20, np.array(size) + 20, (2, 2)), axis=0).clip(0).T
                mask[y[0] : y[1], x[0] : x[1]] = True
            masks.append(mask)
        bound_th = (0.008, 0.05, 1, 7)[trial % 4]
        expected = full_frame_f(*masks, bound_th)
        assert boundary_f(*masks, bound_th=bound_th) == expected
        checked += 0 < expected < 1
    assert checked > 50


BOX_A, BOX_B = square(10, 10, 10, 20), square(12, 13, 10, 20)
EDGE_CASES = {
    'both_empty': (BOX_A & False, BOX_A & False),
    'gt_empty_pred_not': (BOX_A & False, BOX_A),
    'gt_not_pred_empty': (BOX_A, BOX_A & False),
    'same': (BOX_A, BOX_A),
    'shift_2_3': (BOX_A, BOX_B),
    'full_vs_full': (BOX_A | True, BOX_A | True),
    'single_px_vs_box': (square(0, 0, 1, 1), BOX_A),
}


@pytest.mark.parametrize('case', EDGE_CASES)
def test_edge_cases_of_the_official_code(reference, case):
    values = json.loads((reference / 'data/davis17_reference_jf/official_code_values.json').read_text())['edge_cases']
    assert set(values) == set(EDGE_CASES)
    assert region_similarity(*EDGE_CASES[case]) == pytest.approx(values[case]['J'], abs=1e-12)
    assert boundary_f(*EDGE_CASES[case]) == pytest.approx(values[case]['F_0.008'], abs=1e-12)
    assert boundary_f(*EDGE_CASES[case], bound_th=1) == pytest.approx(values[case]['F_bound1px'], abs=1e-12)


def read(path):
    return np.array(Image.open(path))


@pytest.mark.parametrize(
    'sequence', ['blackswan', 'car-roundabout', 'car-shadow', 'dog', 'drift-chicane', 'drift-straight']
)
def test_published_davis_values(reference, sequence):
    """OSVOS on DAVIS 2017: published per-object means over all frames but the first and last, 4 decimals."""
    data = reference / 'data'
    official = json.loads((data / 'davis17_reference_jf/official_code_values.json').read_text())
    expected = official['osvos_semi_supervised'][sequence]
    frames = sorted((data / 'davis16_val_gt' / sequence).glob('*.png'))
    assert len(frames) == len(expected['J'])
    region, contour = [], []
    for path in frames:
        gt, pred = read(path) > 0, read(data / 'davis17_osvos_pred' / sequence / path.name) == 1
        region.append(region_similarity(gt, pred))
        contour.append(boundary_f(gt, pred))
    assert f'{np.mean(region[1:-1]):.4f}' == expected['published_J']
    assert f'{np.mean(contour[1:-1]):.4f}' == expected['published_F']
    # every frame, to the 6 decimals that are kept
    assert np.allclose(region, expected['J'], rtol=0, atol=1e-6)
    assert np.allclose(contour, expected['F'], rtol=0, atol=1e-6)


# --- the metric


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def write_masks(folder, masks):
    folder.mkdir(parents=True)
    paths = []
    for t, ids in enumerate(masks):
        image = Image.fromarray(ids.astype(np.uint8), mode='P')
        image.putpalette(list(range(256)) * 3)
        paths.append(str(folder / f'{t:05d}.png'))
        image.save(paths[-1])
    return paths


def video_sample(folder, name, predictions, ids, obj_ids):
    """A prediction as the metric gets it. predictions: masks per sentence and frame; ids: id map per frame."""
    return dict(
        video_id=name,
        texts=[f'sentence {i} of {name}' for i in range(len(obj_ids))],
        exp_ids=[str(i) for i in range(len(obj_ids))],
        obj_ids=obj_ids,
        frames=[f'{t:05d}' for t in range(len(ids))],
        mask_paths=write_masks(folder / name, ids),
        pred_masks=[[encode(mask) for mask in masks] for masks in predictions],
        pred_scores=torch.arange(len(obj_ids)) / 10,
    )


def two_objects():
    """Objects 1 and 2 are the left and the right half of the lower part of the frame."""
    ids = np.zeros((40, 60), int)
    ids[20:, :30], ids[20:, 30:] = 1, 2
    return ids


def test_metric_by_hand(tmp_path):
    ids = two_objects()
    half = np.zeros((40, 60), bool)
    half[20:, :15] = True  # half of object 1: J = 0.5
    empty = np.zeros_like(half)
    metric = METRICS.build(dict(type='mmsoc.JFMetric', out_file=str(tmp_path / 'deep/result.json')))
    sample = video_sample(tmp_path, 'a', [[ids == 1, half, empty], [ids == 2] * 3], [ids] * 3, ['1', '2'])
    metric.process({}, [sample])
    result = metric.evaluate(1)
    f_half = boundary_f(ids == 1, half)
    assert 0 < f_half < 1
    # sentence 0: J (1 + 0.5 + 0) / 3 = 0.5, F (1 + f + 0) / 3; sentence 1: 1
    j, f = (0.5 + 1) / 2, ((1 + f_half) / 3 + 1) / 2
    assert result['rvos/J'] == pytest.approx(j) and result['rvos/F'] == pytest.approx(f)
    assert result['rvos/J&F'] == pytest.approx((j + f) / 2)
    written = json.loads((tmp_path / 'deep/result.json').read_text())
    assert written['metrics']['J'] == pytest.approx(j)
    assert written['num_videos'] == 1 and written['num_sentences'] == 2
    row = written['rows'][0]
    assert (row['video'], row['exp_id'], row['sentence'], row['num_frames']) == ('a', '0', 'sentence 0 of a', 3)
    assert row['J'] == pytest.approx(0.5) and row['J&F'] == pytest.approx((0.5 + (1 + f_half) / 3) / 2)
    assert written['rows'][1]['score'] == pytest.approx(0.1)


def test_first_and_last_frame(tmp_path):
    ids = two_objects()
    metric = JFMetric(skip_first_last=True)
    empty = np.zeros((40, 60), bool)
    sample = video_sample(tmp_path, 'a', [[empty, ids == 1, empty]], [ids] * 3, ['1'])
    assert metric.score_video(sample)['rows'][0]['num_frames'] == 1
    metric.process({}, [sample])
    assert metric.evaluate(1)['rvos/J'] == 1
    with pytest.raises(ValueError, match='video b has 2 frames, and skip_first_last leaves none'):
        metric.score_video(video_sample(tmp_path, 'b', [[empty] * 2], [ids] * 2, ['1']))


def test_void(tmp_path):
    ids = two_objects()
    ids[20:, 15:30] = 255
    wrong_in_void = np.zeros((40, 60), bool)
    wrong_in_void[20:, :25] = True
    for label, expected in ((255, 1.0), (None, 15 / 25)):
        metric = JFMetric(void_label=label)
        metric.process({}, [video_sample(tmp_path / str(label), 'a', [[wrong_in_void]], [ids], ['1'])])
        assert metric.evaluate(1)['rvos/J'] == pytest.approx(expected)


def test_absent_object_counts(tmp_path):
    ids = two_objects()
    without = np.where(ids == 1, 0, ids)
    empty = np.zeros((40, 60), bool)
    metric = JFMetric()
    metric.process({}, [video_sample(tmp_path, 'a', [[ids == 1, empty, ids == 1]], [ids, without, without], ['1'])])
    assert metric.evaluate(1)['rvos/J'] == pytest.approx(2 / 3)  # 1, 1 (both empty), 0


def test_15_items(tmp_path):
    """mmengine cuts the results to the number of items; 1 to 3 sentences each must all count."""
    ids = two_objects()
    metric = JFMetric(out_file=str(tmp_path / 'result.json'))
    num_sentences = 0
    good = 0
    for i in range(15):
        obj_ids = ['1', '2', '1'][: 1 + i % 3]
        right = i % 3 == 2
        pred = [[ids == int(obj_id) if right else ids == 9] for obj_id in obj_ids]
        metric.process({}, [video_sample(tmp_path, f'v{i}', pred, [ids], obj_ids)])
        num_sentences += len(obj_ids)
        good += len(obj_ids) * right
    assert num_sentences == 30
    assert metric.evaluate(15)['rvos/J'] == pytest.approx(good / 30)  # the mean is over sentences, not over videos
    assert good / 30 == 15 / 30 != 5 / 15
    assert json.loads((tmp_path / 'result.json').read_text())['num_sentences'] == 30


def _evaluate_on_two(rank, folder):
    import torch.distributed as dist

    dist.init_process_group('gloo')
    ids = two_objects()
    metric = JFMetric(out_file=str(folder / 'result.json'))
    # 5 videos on two ranks: 0 2 4 and 1 3 and, as padding, 0 again
    for place, i in enumerate(([0, 2, 4], [1, 3, 0])[rank]):
        pred = [[ids == (1 if i < 2 else 9)]] * 2
        metric.process({}, [video_sample(folder / str(rank) / str(place), f'v{i}', pred, [ids], ['1', '1'])])
    result = metric.evaluate(5)
    (folder / f'rank{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    assert_ended_well(run_on_ranks(_evaluate_on_two, tmp_path, folder=tmp_path, fork=True))
    for rank in range(2):
        assert json.loads((tmp_path / f'rank{rank}.json').read_text())['rvos/J'] == pytest.approx(2 / 5)
    rows = json.loads((tmp_path / 'result.json').read_text())['rows']
    assert [row['video'] for row in rows] == [f'v{i}' for i in range(5) for _ in range(2)]


def test_table(tmp_path):
    import logging

    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    MMLogger.get_current_instance().addHandler(handler)
    ids = two_objects()
    metric = JFMetric(max_table_videos=2)
    for i in range(3):
        metric.process({}, [video_sample(tmp_path, f'video{i}', [[ids == 1]], [ids], ['1'])])
    metric.evaluate(3)
    MMLogger.get_current_instance().removeHandler(handler)
    table = '\n'.join(lines)
    assert 'video1' in table and 'video2' not in table and '(1 more videos)' in table and '1.0000' in table


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mask_paths=None), r"video a has no masks to compare with; set data_prefix\['mask'\]"),
        (dict(obj_ids=None), "the expressions of video a have no 'obj_id'"),
        (dict(obj_ids=['7']), r"video a: no mask shows the objects \['7'\]; the masks show \[1, 2\]"),
        (dict(pred_masks=[[]]), r'video a: expected masks for 1 sentences and 1 frames, found \[0\]'),
        (
            dict(pred_masks=[[encode(np.zeros((4, 6)))]]),
            r"sentence 'sentence 0 of a': the predicted mask is 6x4, but .* is 60x40",
        ),
    ],
)
def test_bad_input(tmp_path, change, message):
    ids = two_objects()
    sample = dict(video_sample(tmp_path, 'a', [[ids == 1]], [ids], ['1']), **change)
    with pytest.raises(ValueError, match=message):
        JFMetric().score_video(sample)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='nothing to evaluate'):
        JFMetric().evaluate(0)


def test_from_data_set_to_score(tmp_path):
    """Through MMEngine's evaluator, with the samples that the test pipeline makes."""
    root = write_split(tmp_path / 'data', 'train', VIDEOS)
    dataset = DATASETS.build(
        dict(
            dataset_config(root, clip_sampler=None, test_mode=True, require_masks=True),
            type='RefYouTubeVOSDataset',
            pipeline=[
                dict(type='LoadVideoFrames'),
                dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=(80, 48))]),
                dict(type='PackReferringInputs'),
            ],
        )
    )
    for out_file, shift in (('right.json', 0), ('shifted.json', 1)):
        evaluator = Evaluator(dict(type='JFMetric', out_file=str(tmp_path / out_file)))
        for i in range(len(dataset)):
            clip = dataset[i]['data_samples']
            masks = [[read_ids(path) == int(obj_id) for path in clip.mask_paths] for obj_id in clip.obj_ids]
            rles = [[encode(np.roll(mask, shift, axis=1)) for mask in frames] for frames in masks]
            clip.set_field(rles, 'pred_masks')
            clip.set_field(torch.ones(len(rles)), 'pred_scores')
            evaluator.process(data_samples=[clip], data_batch={})
        result = evaluator.evaluate(len(dataset))
        if shift == 0:
            assert result == {'rvos/J&F': 1, 'rvos/J': 1, 'rvos/F': 1}
    # A 6x4 rectangle moved by one: J = 20 / 28 where the object is, 1 where it is absent.
    # Sentence 0 of a: always there; 1 of a: in 2 of 10 frames; b: in 2 of 3.
    j = 20 / 28
    assert result['rvos/J'] == pytest.approx((j + (2 * j + 8) / 10 + (2 * j + 1) / 3) / 3)
    rows = json.loads((tmp_path / 'shifted.json').read_text())['rows']
    assert [row['sentence'] for row in rows][2] == 'a small thing on the right'


def test_read_ids_is_what_was_written(tmp_path):
    path = write_masks(tmp_path / 'x', [two_objects()])[0]
    assert np.array_equal(read_ids(path), two_objects())
