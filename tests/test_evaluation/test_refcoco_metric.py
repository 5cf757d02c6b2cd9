import json
import logging

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from mmsoc.evaluation import A2DMetric, RefCOCOMetric
from tests.test_datasets.tiny_refcoco import write_refcoco

NAMES = ['overall_IoU', 'mean_IoU', 'P@0.5', 'P@0.6', 'P@0.7', 'P@0.8', 'P@0.9']


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def square(top, left, height, width, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def sample_of(image, gts, predictions, texts=None):
    """A sample as the evaluator hands it over: one sentence per mask of ``gts``."""
    return dict(
        video_id=image,
        texts=texts or [f'sentence {i}' for i in range(len(gts))],
        exp_ids=[str(i) for i in range(len(gts))],
        gt_rles=[encode(mask) for mask in gts],
        pred_masks=[[encode(mask)] for mask in predictions],
        pred_scores=torch.tensor([0.5] * len(gts)),
    )


def evaluate(samples, **changes):
    metric = RefCOCOMetric(**changes)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def two_images():
    gt, large = square(10, 10, 10, 10), square(0, 0, 40, 30)
    # IoU 50/100 and 70/100; in the second image 1080/1200 (36 of 40 rows) and 0 of 1200 + 100.
    return [
        sample_of('a', [gt, gt], [square(10, 10, 5, 10), square(10, 10, 10, 7)]),
        sample_of('b', [large, large], [square(0, 0, 36, 30), square(10, 40, 10, 10)]),
    ]


def test_two_images_by_hand():
    metrics = evaluate(two_images())
    assert list(metrics) == [f'refcoco/{name}' for name in NAMES]  # the first one chooses the checkpoint
    assert metrics['refcoco/overall_IoU'] == (50 + 70 + 1080 + 0) / (100 + 100 + 1200 + 1300)
    assert metrics['refcoco/mean_IoU'] == pytest.approx((0.5 + 0.7 + 0.9 + 0) / 4)
    # An IoU of .5 is not greater than .5, nor .7 than .7, nor .9 than .9.
    assert [metrics[f'refcoco/P@{k}'] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0.5, 0.5, 0.25, 0.25, 0]


def test_just_above_a_threshold():
    gt = square(0, 0, 40, 50)  # 2000 pixels
    for share, expected in ((1000, 0), (1001, 1)):
        mask = np.zeros(2000, bool)
        mask[:share] = True
        pred = np.zeros((40, 60), bool)
        pred[:, :50] = mask.reshape(40, 50)
        assert evaluate([sample_of('a', [gt], [pred])])['refcoco/P@0.5'] == expected


def random_samples(seed=0):
    generator = np.random.default_rng(seed)
    samples = []
    for i in range(8):
        gts, predictions = [], []
        for _ in range(1 + i % 3):
            top, left, height, width = generator.integers((0, 0, 3, 3), (18, 28, 20, 30))
            gts.append(square(top, left, height, width))
            predictions.append(square(top + generator.integers(0, 3), left + generator.integers(0, 3), height, width))
        samples.append(sample_of(f'image{i}', gts, predictions))
    return samples


def test_equal_to_a_direct_computation():
    samples = random_samples()
    pairs = [
        (coco_mask.decode(gt), coco_mask.decode(pred))
        for sample in samples
        for gt, (pred,) in zip(sample['gt_rles'], sample['pred_masks'], strict=True)
    ]
    ious = np.array([(gt & pred).sum() / (gt | pred).sum() for gt, pred in pairs])
    metrics = evaluate(samples)
    assert metrics['refcoco/mean_IoU'] == pytest.approx(ious.mean(), abs=1e-12)
    assert metrics['refcoco/overall_IoU'] == sum((gt & pred).sum() for gt, pred in pairs) / sum(
        (gt | pred).sum() for gt, pred in pairs
    )
    assert [metrics[f'refcoco/P@{k}'] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == [
        (ious > k).mean() for k in (0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    assert 0 < metrics['refcoco/P@0.8'] < 1


def test_equal_to_a2d_s():
    """The same masks as A2D-Sentences would have them, whose one query is the prediction."""
    samples = random_samples()
    other = A2DMetric(prefix='refcoco')
    other.process(
        None,
        [
            dict(
                sample,
                exp_ids=[f'{sample["video_id"]}_{i}' for i in sample['exp_ids']],
                pred_masks_all=sample['pred_masks'],
                pred_scores_all=sample['pred_scores'][:, None],
            )
            for sample in samples
        ],
    )
    found = other.evaluate(len(samples))
    assert evaluate(samples) == {f'refcoco/{name}': found[f'refcoco/{name}'] for name in NAMES}


def test_repeated_sentences_count_once(caplog):
    samples = random_samples()
    assert evaluate([*samples, *samples[:2]]) == evaluate(samples)
    # Two sentences of an object can be equal; they are two.
    gt = square(10, 10, 10, 10)
    equal = sample_of('a', [gt, gt, gt], [gt, gt, square(30, 30, 5, 5)], texts=['green'] * 3)
    assert evaluate([equal])['refcoco/mean_IoU'] == pytest.approx(2 / 3)


def test_report(tmp_path):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    metrics = evaluate(two_images(), out_file=str(tmp_path / 'report.json'), prefix='refcocog')
    logger.removeHandler(handler)
    report = json.loads((tmp_path / 'report.json').read_text())
    assert {f'refcocog/{name}': value for name, value in report['metrics'].items()} == metrics
    assert report['num_sentences'] == 4 and [row['IoU'] for row in report['rows']] == [0.5, 0.7, 0.9, 0]
    assert report['rows'][1] == dict(
        picture='a', exp_id='1', sentence='sentence 1', intersection=70, union=100, IoU=0.7, score=0.5
    )
    (table,) = (line for line in lines if '4 sentences' in line)
    assert 'overall IoU' in table and f'{1200 / 2700:.4f}' in table
    assert any('RefCOCOMetric: 4 rows written to' in line for line in lines)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda sample: sample.pop('gt_rles'),
            r'image a: there is no mask .* needs LoadRefCOCOMasks\(evaluation=True\)',
        ),
        (
            lambda sample: sample['pred_masks'].pop(),
            r'image a: expected one mask for each of the 2 sentences, found \[1\]',
        ),
        (lambda sample: sample['pred_masks'][1].append('a'), r'for each of the 2 sentences, found \[1, 2\]'),
        (
            lambda sample: sample.update(gt_rles=[encode(np.ones((4, 6)))] * 2),
            r"image a, sentence 'sentence 0': expected a mask of \(4, 6\) \(height, width\), .* found \(40, 60\)",
        ),
    ],
)
def test_wrong_samples(change, message):
    sample = two_images()[0]
    change(sample)
    with pytest.raises(ValueError, match=f'RefCOCOMetric: .*{message}'):
        evaluate([sample])


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='RefCOCOMetric: there is nothing to evaluate; was the test loader empty'):
        RefCOCOMetric().compute_metrics([])


def test_pretraining_from_files_to_numbers(root, tmp_path):
    """An epoch of a few images and validation, from the base configs."""
    data, base = write_refcoco(tmp_path), root / 'configs' / '_base_'
    names = ('models/soc_tiny', 'datasets/refcoco', 'schedules/schedule_pretrain_30e', 'default_runtime')
    (tmp_path / 'config.py').write_text(f'_base_ = {[str(base / f"{name}.py") for name in names]}\n')
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg.max_epochs = 1
    cfg.experiment_name = 'twin'
    cfg.train_dataloader.batch_size = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers = 0
        for dataset in loader.dataset.get('datasets', [loader.dataset]):
            dataset.update(data_root=str(data), expected_sentences=None)
            for transform in dataset.pipeline:
                if transform['type'] == 'ForEachFrame':
                    transform['transforms'][-1]['scale'] = (64, 48)
    for dataset in cfg.train_dataloader.dataset.datasets:
        dataset.indices = 1
    cfg.val_evaluator.out_file = str(tmp_path / 'val.json')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2  # one sentence of each set, in batches of two
    report = json.loads((tmp_path / 'val.json').read_text())
    image = 'COCO_train2014_000000000374'
    assert [(row['picture'], row['exp_id'], row['sentence']) for row in report['rows']] == [
        (image, '1', 'Left box'),
        (image, '2', 'pink'),
        (image, '4', 'upper  one'),
    ]
    assert all(row['union'] >= 400 for row in report['rows'])  # the objects' 20 x 20 and 24 x 20 pixels at least
    assert (tmp_path / 'work' / 'best_refcoco_overall_IoU_epoch_1.pth').is_file()
