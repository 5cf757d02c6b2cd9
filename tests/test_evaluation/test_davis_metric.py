"""The "unsupervised" protocol of DAVIS 2017 and what Ref-DAVIS17 makes of it: by hand, and against the official code."""

import itertools
import json

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.evaluation import boundary_f, evaluate_folders, evaluate_sequence, region_similarity
from mmsoc.evaluation.davis_metric import RefDAVIS17Metric, merge_by_score, merge_objects
from mmsoc.inference import ThresholdedMasks
from mmsoc.registry import METRICS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import read_ids
from tests.helpers import make_sample, set_test_cfg, small_model
from tests.ranks import assert_ended_well, run_on_ranks

SIZE = 40, 60
PALETTE = [0, 0, 0, 236, 95, 103, 249, 145, 87] + [0] * (256 * 3 - 9)


def halves():
    """Objects 1 and 2 are the left and the right half of the lower half of the frame: 600 pixels each."""
    ids = np.zeros(SIZE, np.uint8)
    ids[20:, :30], ids[20:, 30:] = 1, 2
    return ids


# --- merging


def test_the_most_probable_object_gets_the_pixel():
    #                 0    1    2    3    4
    first = np.array([0.6, 0.6, 0.4, 0.5, 0.7])
    second = np.array([0.1, 0.9, 0.45, 0.0, 0.7])
    # 0: only the first; 1: the second is more probable; 2: both below 0.5 count as 0, less than the background's 0.1; 3: 0.5 is
    # enough; 4: a tie, the first wins
    assert merge_objects(np.stack([first, second])[:, None]).tolist() == [[1, 2, 0, 1, 1]]


def test_the_best_scored_object_gets_the_pixel():
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    assert merge_by_score(masks, [0.3, 0.4]).tolist() == [[1, 2, 2, 0]]
    assert merge_by_score(masks, [0.4, 0.3]).tolist() == [[1, 1, 2, 0]]
    assert merge_by_score(masks, [0.01, 0.01]).tolist() == [[1, 1, 2, 0]]  # a tie, and no threshold


# --- one sequence


def test_predicted_ids_need_not_be_those_of_the_objects():
    gt = halves()
    pred = np.uint8([0, 5, 3])[gt]
    result = evaluate_sequence([gt] * 3, [pred] * 3, where='x')
    assert result['rows'] == [dict(object=1, matched=5, J=1, F=1), dict(object=2, matched=3, J=1, F=1)]
    assert result['num_proposals'] == 5 and result['num_frames'] == 3 and result['late_ids'] == []


def test_the_pairing_is_the_best_in_sum():
    """Proposal 1 is best for both objects; the pairing takes the one where the other loses less."""
    gt = halves()
    pred = np.zeros(SIZE, np.uint8)
    pred[20:, :] = 1  # object 1: J = 600 / 1200; object 2: the same
    pred[20:, 45:] = 2  # proposal 1 is now 45 wide: object 1: 600 / 900, object 2: 300 / 1200
    result = evaluate_sequence([gt], [pred], where='x')  # proposal 2, 15 wide: object 1: 0, object 2: 300 / 600
    assert [row['matched'] for row in result['rows']] == [1, 2]
    assert [row['J'] for row in result['rows']] == pytest.approx([600 / 900, 300 / 600])


def test_an_object_that_nothing_is_left_for():
    gt = halves()
    result = evaluate_sequence([gt] * 2, [np.where(gt == 1, 1, 0).astype(np.uint8)] * 2, where='x')
    assert result['rows'] == [dict(object=1, matched=1, J=1, F=1), dict(object=2, matched=0, J=0, F=0)]


def test_empty_proposals_are_added_only_up_to_the_number_of_objects():
    """Object 1 is in the first of 4 frames only: an empty mask would get 3 / 4, but there is one proposal, so it is taken."""
    gt = np.where(halves() == 1, 1, 0).astype(np.uint8)
    wrong = np.where(halves() == 2, 1, 0).astype(np.uint8)
    result = evaluate_sequence([gt, *[0 * gt] * 3], [wrong] * 4, where='x')
    (row,) = result['rows']
    assert row['matched'] == 1 and row['J'] == 0
    # With nothing predicted at all, one is added: J = (0 + 1 + 1 + 1) / 4.
    assert evaluate_sequence([gt, *[0 * gt] * 3], [0 * gt] * 4, where='x')['rows'][0]['J'] == 3 / 4


def test_the_first_mask_says_how_many_objects_there_are():
    first = np.where(halves() == 1, 1, 0).astype(np.uint8)
    first[:10, :10] = 255  # void is no object
    result = evaluate_sequence([first, halves()], [first * (first != 255), halves()], where='x')
    assert len(result['rows']) == 1 and result['rows'][0]['J'] == 1
    assert result['late_ids'] == [2]
    # Object 1 is missing in the first mask, but 2 is there: two objects
    second = np.where(halves() == 2, 2, 0).astype(np.uint8)
    assert [row['object'] for row in evaluate_sequence([second], [second], where='x')['rows']] == [1, 2]


def test_void_does_not_count():
    gt = np.where(halves() == 1, 1, 0).astype(np.uint8)
    gt[20:, 15:30] = 255
    pred = np.zeros(SIZE, np.uint8)
    pred[20:, :25] = 1  # 10 columns too wide, all of them void
    assert evaluate_sequence([gt], [pred], where='x')['rows'][0]['J'] == 1


def test_all_frames_count_unless_told_otherwise():
    gt = np.where(halves() == 1, 1, 0).astype(np.uint8)
    frames = [0 * gt, gt, gt, 0 * gt]
    assert evaluate_sequence([gt] * 4, frames, where='x')['rows'][0]['J'] == 2 / 4
    assert evaluate_sequence([gt] * 4, frames, where='x', skip_first_last=True)['rows'][0]['J'] == 1


@pytest.mark.parametrize(
    'gt, pred, message',
    [
        ([halves()], [halves() * 0 + 21], 'x: the protocol allows 20 predicted objects, found ids up to 21'),
        ([halves()], [halves() * 0 + 255], 'found ids up to 255'),
        ([halves() * 0, halves()], [halves()] * 2, 'x: the first mask shows no object'),
        ([halves()] * 2, [halves()], 'x: expected predictions of 2 frames, found 1'),
        ([halves()], [halves()[:, :50]], 'the prediction of frame 0 is 50x40, but its mask is 60x40'),
    ],
)
def test_bad_sequences(gt, pred, message):
    with pytest.raises(ValueError, match=message):
        evaluate_sequence(gt, pred, where='x')


# --- against the official code


def as_ids(source, target):
    """DAVIS 2016 masks, 0 and 255, as ids 0 and 1 (255 would be void)."""
    target.mkdir(parents=True)
    for path in source.glob('*.png'):
        Image.fromarray((read_ids(path) > 0).astype(np.uint8)).save(target / path.name)


@pytest.fixture
def davis(reference, tmp_path):
    """Returns the official values, and a function that makes the folder of masks of a sequence."""
    data = reference / 'data'
    values = json.loads((data / 'davis17_reference_jf/official_code_values.json').read_text())

    def masks(name):
        as_ids(data / 'davis16_val_gt' / name, tmp_path / 'gt' / name)
        return tmp_path / 'gt'

    return data, values, masks


@pytest.mark.parametrize('name', ['blackswan', 'car-shadow', 'dog', 'drift-chicane'])
def test_official_unsupervised_values(davis, name):
    """RVOS, 20 proposals: what the official evaluation says of all frames, to 5 decimals."""
    data, values, masks = davis
    expected = values['rvos_unsupervised'][name]
    result = evaluate_folders(masks(name), data / 'davis17_rvos_pred', sequences=[name])
    (row,) = result['rows']
    assert row['video'] == name and row['matched'] == expected['matched_proposal_id']
    assert row['J'] == pytest.approx(expected['J_mean_all_frames'], abs=5e-6)
    assert row['F'] == pytest.approx(expected['F_mean_all_frames'], abs=5e-6)
    assert (result['J'], result['F']) == (row['J'], row['F'])


@pytest.mark.parametrize('name', ['car-shadow', 'drift-straight', 'car-roundabout'])
def test_published_single_object_values(davis, name):
    """OSVOS: published per-object means over all frames but the first and last, 4 decimals."""
    data, values, masks = davis
    expected = values['osvos_semi_supervised'][name]
    (row,) = evaluate_folders(masks(name), data / 'davis17_osvos_pred', sequences=[name], skip_first_last=True)['rows']
    assert f'{row["J"]:.4f}' == expected['published_J'] and f'{row["F"]:.4f}' == expected['published_F']


@pytest.mark.parametrize('name', ['judo', 'bike-packing'])
def test_two_objects_against_all_pairings(reference, name):
    """OSVOS of two objects taken for the truth, 20 proposals of RVOS: the best of all 380 pairings, tried one by one."""
    data = reference / 'data'
    frames = sorted(path.name for path in (data / 'davis17_osvos_pred' / name).glob('*.png'))[::12]
    gt, pred = (
        [read_ids(data / folder / name / frame) for frame in frames]
        for folder in ('davis17_osvos_pred', 'davis17_rvos_pred')
    )
    rows = evaluate_sequence(gt, pred, where=name)['rows']
    assert len(rows) == 2
    pair = {
        (i, k): [
            np.mean([measure(ids == i, of == k) for ids, of in zip(gt, pred)])
            for measure in (region_similarity, boundary_f)
        ]
        for i in (1, 2)
        for k in range(1, 21)
    }
    best = max(itertools.permutations(range(1, 21), 2), key=lambda ks: sum(sum(pair[i, k]) for i, k in zip((1, 2), ks)))
    for row, k in zip(rows, best):
        assert row['matched'] == k and [row['J'], row['F']] == pytest.approx(pair[row['object'], k])


def test_folders_that_do_not_fit(tmp_path):
    for folder, names in (('gt', '012'), ('few', '01'), ('many', '0123')):
        (tmp_path / folder / 'v').mkdir(parents=True)
        for name in names:
            Image.fromarray(halves()).save(tmp_path / folder / 'v' / f'{name}.png')
    assert evaluate_folders(tmp_path / 'gt', tmp_path / 'gt')['J&F'] == 1
    with pytest.raises(FileNotFoundError, match=r"few/v: 1 of 3 frames are missing: \['2.png'\]"):
        evaluate_folders(tmp_path / 'gt', tmp_path / 'few')
    with pytest.raises(ValueError, match=r"many/v: 1 frames have no mask in .*gt/v: \['3.png'\]"):
        evaluate_folders(tmp_path / 'gt', tmp_path / 'many')
    with pytest.raises(FileNotFoundError, match='there is no folder .*none/v'):
        evaluate_folders(tmp_path / 'gt', tmp_path / 'none')
    with pytest.raises(FileNotFoundError, match='which should hold the masks'):
        evaluate_folders(tmp_path / 'none', tmp_path / 'gt')


# --- the metric


def write_masks(folder, maps):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for t, ids in enumerate(maps):
        image = Image.fromarray(ids)
        image.putpalette(PALETTE)
        paths.append(str(folder / f'{t:05d}.png'))
        image.save(paths[-1])
    return paths


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def video_sample(folder, predictions, ids=None, name='a', num_frames=2):
    """A prediction as the metric gets it. predictions: logits (H, W) per sentence, the same in each frame."""
    ids = halves() if ids is None else ids
    return dict(
        video_id=name,
        frames=[f'{t:05d}' for t in range(num_frames)],
        exp_ids=[str(i) for i in range(len(predictions))],
        obj_ids=[str(i // 4 + 1) for i in range(len(predictions))],
        mask_paths=write_masks(folder / name, [ids] * num_frames),
        pred_logits=[torch.from_numpy(logits)[None].repeat(num_frames, 1, 1) for logits in predictions],
        pred_masks=[[encode(logits > 0)] * num_frames for logits in predictions],
        pred_scores=torch.arange(len(predictions)) / 10,
    )


def logits_of(mask, inside=4.0):
    return np.where(mask, inside, -4.0).astype(np.float32)


def four_annotators():
    """The sentences' logits, object by object, in the order of their ids."""
    left, right, both = halves() == 1, halves() == 2, halves() > 0
    first = [logits_of(left), logits_of(right), logits_of(left), logits_of(both, 5)]
    second = [logits_of(right), logits_of(left), logits_of(both, 3), logits_of(right)]
    return [*first, *second]


def by_hand():
    """J and F of each annotator.

    0: both right. 1: the two sentences exchanged, which the pairing undoes. 2: the second object's mask covers both, but where
    the first is, the first is more probable: both right. 3: the first object's covers both and is more probable everywhere, so
    that nothing is left of the second: it is J = 600 / 1200 of one object, and the other object gets an empty mask, 0.
    """
    both = halves() > 0
    f = max(boundary_f(halves() == i, both) for i in (1, 2))
    return [1, 1, 1, (0.5 + 0) / 2], [1, 1, 1, (f + 0) / 2]


def test_metric_by_hand(tmp_path):
    metric = METRICS.build(
        dict(
            type='mmsoc.RefDAVIS17Metric', out_file=str(tmp_path / 'deep/result.json'), masks_dir=str(tmp_path / 'maps')
        )
    )
    metric.process({}, [video_sample(tmp_path, four_annotators())])
    result = metric.evaluate(1)
    j, f = by_hand()
    assert 0 < f[3] < 0.5
    assert list(result)[0] == 'davis17/J&F'  # what save_best='auto' follows
    assert result['davis17/J'] == pytest.approx(np.mean(j)) and result['davis17/F'] == pytest.approx(np.mean(f))
    assert result['davis17/J&F'] == pytest.approx((np.mean(j) + np.mean(f)) / 2)
    for annotator in range(4):
        assert result[f'davis17/J_annotator{annotator}'] == pytest.approx(j[annotator])
        assert result[f'davis17/J&F_annotator{annotator}'] == pytest.approx((j[annotator] + f[annotator]) / 2)
        # what was written is what was scored
        written = evaluate_folders(tmp_path, tmp_path / f'maps/anno_{annotator}', sequences=['a'])
        assert written['J'] == pytest.approx(j[annotator]) and written['F'] == pytest.approx(f[annotator])
    with Image.open(tmp_path / 'maps/anno_1/a/00001.png') as image:
        assert image.mode == 'P' and image.getpalette()[:9] == PALETTE[:9]
        assert np.array_equal(np.array(image), np.uint8([0, 2, 1])[halves()])
    content = json.loads((tmp_path / 'deep/result.json').read_text())
    assert len(content['rows']) == 8 and content['overlap'] == 'probability'
    assert content['metrics']['J'] == pytest.approx(np.mean(j))
    assert [row['matched'] for row in content['rows']][2:4] == [2, 1]  # annotator 1


def test_overlaps_by_score(tmp_path):
    """The scores rise with the sentence's id, so the second object is always on top: annotator 2 loses its first object, and
    annotator 3's second one is right, which leaves half of what covers both to the first: both right.
    """
    metric = RefDAVIS17Metric(overlap='score')
    sample = video_sample(tmp_path, four_annotators())
    del sample['pred_logits']
    metric.process({}, [sample])
    result = metric.evaluate(1)
    assert [result[f'davis17/J_annotator{a}'] for a in range(4)] == pytest.approx([1, 1, 0.25, 1])


def test_the_mean_is_over_objects_and_not_over_videos(tmp_path):
    metric = RefDAVIS17Metric()
    metric.process({}, [video_sample(tmp_path, four_annotators())])
    alone = np.where(halves() == 1, 1, 0).astype(np.uint8)
    nothing = logits_of(alone > 1)
    metric.process({}, [video_sample(tmp_path, [nothing] * 4, ids=alone, name='b')])
    result = metric.evaluate(2)
    assert result['davis17/J_annotator0'] == pytest.approx((1 + 1 + 0) / 3)


def test_objects_without_a_sentence_are_counted_and_named(tmp_path):
    import logging

    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    MMLogger.get_current_instance().addHandler(handler)
    metric = RefDAVIS17Metric()
    metric.process({}, [video_sample(tmp_path, [logits_of(halves() == 1)] * 4)])
    result = metric.evaluate(1)
    MMLogger.get_current_instance().removeHandler(handler)
    assert result['davis17/J'] == 0.5
    assert any(
        "1 of 2 objects have no sentence and are scored as the protocol prescribes: {'a': 1}" in line for line in lines
    )


def test_small_logits_are_resized_to_the_frame(tmp_path):
    """At stride 4: an object that fills whole cells but whose border is interpolated."""
    ids = np.zeros(SIZE, np.uint8)
    ids[8:24, 12:40] = 1
    small = logits_of(ids > 0)[2::4, 2::4].copy()
    full = torch.nn.functional.interpolate(torch.from_numpy(small)[None, None], size=SIZE, mode='bilinear')[0, 0] > 0
    sample = video_sample(tmp_path, [logits_of(ids > 0)] * 4, ids=ids)
    sample['pred_logits'] = [torch.from_numpy(small)[None].repeat(2, 1, 1)] * 4
    metric = RefDAVIS17Metric()
    metric.process({}, [sample])
    assert metric.evaluate(1)['davis17/J'] == pytest.approx(region_similarity(ids > 0, full.numpy()))


def _evaluate_on_two(rank, folder):
    import torch.distributed as dist

    dist.init_process_group('gloo')
    metric = RefDAVIS17Metric(masks_dir=str(folder / 'maps'))
    # 3 videos on two ranks: 0 2 and 1 and, as padding, 0 again
    for i in ([0, 2], [1, 0])[rank]:
        sentences = four_annotators() if i else [logits_of(halves() > 2)] * 8
        metric.process({}, [video_sample(folder / str(rank), sentences, name=f'v{i}')])
    result = metric.evaluate(3)
    (folder / f'rank{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    assert_ended_well(run_on_ranks(_evaluate_on_two, tmp_path, folder=tmp_path, fork=True))
    for rank in range(2):
        result = json.loads((tmp_path / f'rank{rank}.json').read_text())
        assert result['davis17/J'] == pytest.approx((0 + 2 * np.mean(by_hand()[0])) / 3)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mask_paths=None), r"video a has no masks to compare with; set data_prefix\['mask'\]"),
        (dict(obj_ids=None), "video a: its expressions have no 'obj_id'"),
        (dict(obj_ids=list('11112122')), 'expression 5 should describe object 2 .*found obj_id .1.'),
        (dict(exp_ids=list('01234568')), 'expected expressions 0, 1, ..., 4 for each object'),
        (dict(pred_logits=None), r"set model\.test_cfg\.output=dict\(type='MasksAndLogits'\)"),
        (dict(pred_logits=[[]] * 8), 'expected pred_logits of 8 sentences and 2 frames, found'),
        (dict(pred_masks=[[]] * 8), 'expected pred_masks of 8 sentences and 2 frames, found'),
        (
            dict(pred_masks=[[encode(np.zeros((4, 6)))] * 2] * 8),
            'a predicted mask is 6x4, but the mask of the data set is 60x40',
        ),
    ],
)
def test_bad_samples(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        RefDAVIS17Metric().score_video(video_sample(tmp_path, four_annotators()) | change)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(video_id='../a'), r"RefDAVIS17Metric: video_id: .*found '\.\./a': it holds a path separator"),
        (dict(frames=['00000', '../../x']), r"RefDAVIS17Metric: frames of video a: .*found '\.\./\.\./x'"),
    ],
)
def test_names_that_would_leave_the_folder_of_masks_are_refused(tmp_path, change, message):
    sample = video_sample(tmp_path / 'data', four_annotators()) | change
    with pytest.raises(UserError, match=message):
        RefDAVIS17Metric(masks_dir=str(tmp_path / 'maps')).score_video(sample)
    assert [path.name for path in tmp_path.iterdir()] == ['data']
    RefDAVIS17Metric().score_video(sample)  # nothing is written by these names


def test_bad_arguments():
    with pytest.raises(ValueError, match="overlap must be 'probability' or 'score', found 'max'"):
        RefDAVIS17Metric(overlap='max')
    with pytest.raises(ValueError, match='num_annotators must be at least 1'):
        RefDAVIS17Metric(num_annotators=0)
    with pytest.raises(ValueError, match='nothing to evaluate'):
        RefDAVIS17Metric().evaluate(0)
    with pytest.raises(TypeError, match='overlaps'):
        RefDAVIS17Metric(overlaps='score')


# --- what the model hands to it


def test_logits_of_the_model(root, monkeypatch):
    """Resized and cut at 0 they are the predicted masks, with and without padding; they are there only if asked for."""
    samples = [
        make_sample((48, 64), ['the left one', 'a dog'], num_frames=5, padded=(64, 64), ori_shape=(96, 128)),
        make_sample((64, 64), ['a cat'], num_frames=5, padded=(64, 64), ori_shape=(70, 70)),
    ]
    inputs = torch.randn(2, 5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs[0, ..., 48:, :] = 0
    model = small_model(root, test_cfg=dict(frames_per_clip=3, output=dict(type='MasksAndLogits')))
    found = model(inputs, samples, mode='predict')
    assert [tuple(logits.shape) for sample in found for logits in sample.pred_logits] == [(5, 48, 64)] * 2 + [
        (5, 16, 16)
    ]
    for sample in found:
        sample = sample.to_dict()  # as an evaluator gets it
        for logits, masks in zip(sample['pred_logits'], sample['pred_masks'], strict=True):
            size = masks[0]['size']
            full = torch.nn.functional.interpolate(logits[:, None], size=size, mode='bilinear', align_corners=False)[
                :, 0
            ]
            assert logits.dtype == torch.float32
            assert np.array_equal(np.stack([coco_mask.decode(mask) for mask in masks]), (full > 0).numpy())
    other = make_sample((64, 64), ['a cat'], num_frames=5, ori_shape=(70, 70))
    set_test_cfg(model, monkeypatch, output=ThresholdedMasks())
    (without,) = model(inputs[1:], [other], mode='predict')
    assert 'pred_logits' not in without and 'pred_masks' in without


def test_real_masks_predicted_perfectly(reference):
    folder = reference / 'data/ref-davis17-mini/valid/Annotations/car-shadow'
    paths = sorted(map(str, folder.glob('*.png')))[:2]
    logits = torch.stack([torch.from_numpy(logits_of(read_ids(path) == 1)) for path in paths])
    sample = dict(
        video_id='car-shadow',
        frames=['00000', '00001'],
        exp_ids=list('0123'),
        obj_ids=['1'] * 4,
        mask_paths=paths,
        pred_logits=[logits] * 4,
        pred_masks=[[encode(mask > 0) for mask in logits.numpy()]] * 4,
        pred_scores=torch.ones(4),
    )
    metric = RefDAVIS17Metric()
    metric.process({}, [sample])
    assert metric.evaluate(1)['davis17/J&F'] == 1
