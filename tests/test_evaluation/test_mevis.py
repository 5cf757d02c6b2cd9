"""MeViS's valid_u by JFMetric: J and F by hand; and valid by SubmissionWriter and its validator."""

import json
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from pycocotools import mask as coco_mask

from mmsoc.evaluation import JFMetric, boundary_f, region_similarity
from mmsoc.registry import DATASETS, METRICS
from tests.helpers import small_model
from tests.test_datasets.tiny_mevis import VIDEOS, dataset_config, encode, write_split
from tools.analysis_tools import validate_submission

SIZE = (100, 100)  # F's radius: ceil(0.008 * 141.4) = 2
LOAD = [
    dict(type='LoadVideoFrames'),
    dict(type='LoadMeViSMasks', evaluation=True),
    dict(type='ForEachFrame', transforms=[dict(type='ShortSideResize', scale=(80, 50))]),
    dict(type='PackReferringInputs'),
]


def columns(first, stop):
    """A mask of some columns, from the upper to the lower border: its boundary is the columns first - 1 and stop - 1."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, first:stop] = 1
    return mask


NOTHING = columns(0, 0)
# Video v: annotation 1 is the left half, 2 a strip beside it. Video w: one annotation.
ANNOTATED = {
    'v': dict(annotations={1: [True] * 4, 2: [True] * 4}, sentences=[('both', [1, 2]), ('the strip', [2])]),
    'w': dict(annotations={5: [True] * 2}, sentences=[('it', [5])]),
}
MASKS = {
    1: [columns(0, 50), columns(0, 50), None, None],
    2: [columns(50, 53), None, None, None],
    5: [columns(0, 50), columns(0, 50)],
}
PREDICTED = {
    'v': [
        [columns(0, 50), columns(0, 50), NOTHING, columns(0, 50)],
        [columns(50, 52), NOTHING, NOTHING, NOTHING],
    ],
    'w': [[columns(0, 53), NOTHING]],
}
# Sentence "both", whose truth is the columns 0..52 in frame 0, 0..49 in frame 1, nothing in frames 2 and 3.
#   J: 50 / 53; 1; 1 (both are empty); 0 (something where there is nothing).
#   F: the boundaries are the columns 49 and 52, 3 apart, which is more than the radius: 0; 1; 1; 0.
# "the strip", 50..52, only in frame 0: J = 2 / 3, then 1, 1, 1; F: boundaries 49 and 51 against 49 and 52: 1, then 1, 1, 1.
# "it", 0..49 in both frames: J = 50 / 53, then 0 (nothing where there is something); F = 0, 0.
J = {'both': (50 / 53 + 1 + 1 + 0) / 4, 'the strip': (2 / 3 + 3) / 4, 'it': (50 / 53 + 0) / 2}
F = {'both': (0 + 1 + 1 + 0) / 4, 'the strip': 1, 'it': 0}


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = write_split(tmp_path_factory.mktemp('mevis'), 'valid_u', ANNOTATED, size=SIZE, masks=MASKS)
    return DATASETS.build(dataset_config(root, 'valid_u', require_masks=True, pipeline=LOAD))


def predicted(dataset, index):
    clip = dataset[index]['data_samples']
    clip.set_field([[encode(mask) for mask in masks] for masks in PREDICTED[clip.video_id]], 'pred_masks')
    clip.set_field(torch.ones(len(clip.texts)), 'pred_scores')
    return clip


def test_by_hand(dataset, tmp_path):
    evaluator = Evaluator(dict(type='JFMetric', out_file=str(tmp_path / 'result.json')))
    for index in range(2):
        evaluator.process(data_samples=[predicted(dataset, index)], data_batch={})
    result = evaluator.evaluate(2)
    rows = {row['sentence']: row for row in json.loads((tmp_path / 'result.json').read_text())['rows']}
    for sentence in J:
        assert rows[sentence]['J'] == pytest.approx(J[sentence], abs=1e-12), sentence
        assert rows[sentence]['F'] == pytest.approx(F[sentence], abs=1e-12), sentence
    assert rows['both']['num_frames'] == 4 and rows['it']['num_frames'] == 2  # all frames
    # The mean is over the three expressions, not over the two videos.
    j, f = sum(J.values()) / 3, sum(F.values()) / 3
    assert result == {'rvos/J&F': pytest.approx((j + f) / 2), 'rvos/J': pytest.approx(j), 'rvos/F': pytest.approx(f)}


def test_against_a_loop_over_the_files(tmp_path):
    """The protocol once more, without the data set: union of the codes in the file, frame by frame."""
    root = write_split(tmp_path, 'valid_u', VIDEOS)
    dataset = DATASETS.build(dataset_config(root, 'valid_u', pipeline=[*LOAD[:2], LOAD[3]]))
    metric = JFMetric()
    rng = np.random.default_rng(0)
    codes = json.loads((root / 'valid_u/mask_dict.json').read_text())
    per_expression = []
    for video, record in json.loads((root / 'valid_u/meta_expressions.json').read_text())['videos'].items():
        predictions = []
        for expression in record['expressions'].values():
            scores, masks = [], []
            for t in range(len(record['frames'])):
                truth = np.zeros((24, 40), bool)
                for anno_id in expression['anno_id']:
                    if codes[str(anno_id)][t] is not None:
                        truth |= coco_mask.decode(codes[str(anno_id)][t]).astype(bool)
                masks.append(np.roll(truth, rng.integers(0, 4), axis=1))
                scores.append([region_similarity(truth, masks[-1]), boundary_f(truth, masks[-1])])
            predictions.append([encode(mask) for mask in masks])
            per_expression.append(np.mean(scores, axis=0))
        clip = dataset[list(VIDEOS).index(video)]['data_samples']
        clip.set_field(predictions, 'pred_masks')
        clip.set_field(torch.ones(len(predictions)), 'pred_scores')
        metric.process({}, [clip.to_dict()])
    j, f = np.mean(per_expression, axis=0)
    assert 0 < j < 1 and 0 < f < 1
    result = metric.evaluate(3)
    assert (result['rvos/J'], result['rvos/F']) == pytest.approx((j, f), abs=1e-12)


def test_temporal_stability(dataset):
    metric = METRICS.build(dict(type='TemporalStabilityMetric'))
    metric.process({}, [predicted(dataset, 1).to_dict()])
    assert metric.evaluate(1)['stability/var_J'] == pytest.approx((50 / 53) ** 2 / 4)  # of 50 / 53 and 0


def test_what_does_not_fit(dataset):
    sample = predicted(dataset, 0).to_dict()
    short = [masks[:3] for masks in sample['pred_masks']]
    with pytest.raises(
        ValueError, match=r'video v: expected masks for 2 sentences and 4 frames, found \[3, 3\] frames'
    ):
        JFMetric().score_video(sample | dict(pred_masks=short))
    small = [[encode(np.zeros((50, 80)))] * 4] * 2
    with pytest.raises(
        ValueError, match="sentence 'both': the predicted mask is 80x50, but the mask of frame 0 is 100x100"
    ):
        JFMetric().score_video(sample | dict(pred_masks=small))
    with pytest.raises(
        ValueError, match=r'video v: expected gt_rles to hold, for each of 2 sentences, .* found lists of \[\]'
    ):
        JFMetric().score_video(
            sample | dict(gt_rles=[encode(NOTHING)] * 2)
        )  # as of one annotated frame (A2D-Sentences)
    with pytest.raises(ValueError, match=r'\(gt_rles\) mark no void; expected void_label=None, found 255'):
        JFMetric(void_label=255).score_video(sample)
    with pytest.raises(ValueError, match='video v has no masks to compare with; .*LoadMeViSMasks'):
        JFMetric().score_video({key: value for key, value in sample.items() if key != 'gt_rles'})


def test_a_small_model_is_scored_and_submitted(root, tmp_path, monkeypatch, capsys):
    for split in ('valid_u', 'valid'):
        write_split(tmp_path / 'mevis', split, VIDEOS, size=(48, 80), public=split == 'valid_u')
    model = small_model(root, test_cfg=dict(frames_per_clip=4))  # a has 10 frames
    archive = tmp_path / 'out/mevis.zip'
    for split, evaluator in (
        ('valid_u', Evaluator(dict(type='JFMetric'))),
        ('valid', Evaluator(dict(type='SubmissionWriter', zip_file=str(archive), layout='mevis'))),
    ):
        dataset = DATASETS.build(dataset_config(tmp_path / 'mevis', split, pipeline=LOAD))
        for index in range(len(dataset)):
            batch = pseudo_collate([dataset[index]])
            evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
        result = evaluator.evaluate(len(dataset))
        if split == 'valid_u':
            assert 0 <= result['rvos/J'] <= 1 and 0 <= result['rvos/F'] <= 1
    assert result == {'submission/num_videos': 3, 'submission/num_sentences': 5, 'submission/num_masks': 3 * 10 + 3 + 1}
    with zipfile.ZipFile(archive) as opened:
        assert {'a/0/00000.png', 'a/2/00009.png', 'b/0/00002.png', 'c/0/00000.png'} < set(
            opened.namelist()
        )  # no top folder
    command = [
        'validate_submission.py', str(archive), '--layout', 'mevis', '--expressions',
        str(tmp_path / 'mevis/valid/meta_expressions.json'), '--images', str(tmp_path / 'mevis/valid/JPEGImages'),
    ]  # fmt: skip
    monkeypatch.setattr(sys, 'argv', command)
    validate_submission.main()
    assert '34 files; expected 34 masks of 5 sentences and 3 videos' in capsys.readouterr().out
    with zipfile.ZipFile(archive, 'a') as opened:
        opened.writestr('a/3/00000.png', b'')
    with pytest.raises(SystemExit, match='1 faults'):
        validate_submission.main()
    assert 'a/3/00000.png: not expected' in capsys.readouterr().out
