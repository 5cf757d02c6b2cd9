import contextlib
import io
import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmsoc.evaluation import A2DMetric
from mmsoc.evaluation.a2d_metric import average_precision, iou_measures
from mmsoc.inference import QueryPerVideo, ThresholdedMasks
from tests.helpers import make_sample, random_clip, set_test_cfg, small_model
from tests.ranks import assert_ended_well, run_on_ranks
from tests.test_datasets.tiny_a2d import write_a2d, write_jhmdb


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def square(top, left, height, width, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def sample_of(video, gts, predictions, scores):
    """A sample as the evaluator hands it over: one sentence per mask of ``gts``."""
    return dict(
        video_id=video,
        texts=[f'sentence {i}' for i in range(len(gts))],
        exp_ids=[f'v_{video}_f_1_i_{i}' for i in range(len(gts))],
        gt_rles=[encode(mask) for mask in gts],
        pred_masks_all=[[encode(mask) for mask in masks] for masks in predictions],
        pred_scores_all=torch.tensor(scores),
    )


def evaluate(samples, **changes):
    metric = A2DMetric(**changes)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def two_images():
    gt = square(10, 10, 10, 10)
    almost = gt.copy()
    almost[10, 10:18] = False
    # IoU 50 / 100 with score .9, IoU 92 / 100 with score .8.
    return [sample_of('a', [gt], [[square(10, 10, 5, 10)]], [[0.9]]), sample_of('b', [gt], [[almost]], [[0.8]])]


def test_two_images_by_hand():
    metrics = evaluate(two_images())
    assert metrics['a2d/overall_IoU'] == 142 / 200 and metrics['a2d/mean_IoU'] == pytest.approx(0.71)
    # IoU .5 is not greater than .5.
    assert [metrics[f'a2d/P@{k}'] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == [0.5] * 5
    # COCO's .50 takes both (AP 1). At .55 to .90 the first detection is wrong: precision 1/2 up to recall 1/2, which are 51 of
    # 101 points. At .95 both are.
    assert metrics['a2d/mAP'] == pytest.approx((1 + 8 * 0.5 * 51 / 101) / 10, abs=1e-9)
    assert next(iter(metrics)) == 'a2d/mAP'


def test_sizes_differ_in_the_overall_iou():
    rows = [dict(intersection=10, union=10), dict(intersection=0, union=90), dict(intersection=0, union=0)]
    measures = iou_measures(rows)
    assert measures['overall_IoU'] == 0.1 and measures['mean_IoU'] == 2 / 3 and measures['P@0.9'] == 2 / 3


@pytest.mark.parametrize('threshold', [5, 6, 7, 8, 9])
def test_precision_is_strict(threshold):
    at, above = dict(intersection=threshold, union=10), dict(intersection=10 * threshold + 1, union=100)
    assert iou_measures([at])[f'P@0.{threshold}'] == 0 and iou_measures([above])[f'P@0.{threshold}'] == 1


def random_samples(seed=0, queries=4):
    generator = np.random.default_rng(seed)

    def rectangle(around=None):
        top, left, height, width = generator.integers((0, 0, 3, 3), (20, 30, 20, 30)) if around is None else around
        move = (0, 0) if around is None else generator.integers(0, 3, 2)
        return square(top + move[0], left + move[1], height, width)

    samples = []
    for i in range(6):
        gts, predictions = [], []
        for _ in range(1 + i % 3):
            where = generator.integers((0, 0, 3, 3), (20, 30, 20, 30))
            gts.append(square(*where))
            predictions.append([rectangle(where if query < 2 else None) for query in range(queries)])
        samples.append(
            sample_of(f'video{i}', gts, predictions, generator.random((len(gts), queries)).astype(np.float32))
        )
    return samples


def test_average_precision_is_pycocotools_own(tmp_path):
    """The way of the published protocol: files, image ids that are strings, run-length codes as ASCII."""
    samples = random_samples()
    images, annotations, detections = [], [], []
    for sample in samples:
        for i, image_id in enumerate(sample['exp_ids']):
            gt = sample['gt_rles'][i]
            images.append(dict(id=image_id, height=40, width=60))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=1,
                    iscrowd=0,
                    area=int(coco_mask.area(gt)),
                    bbox=coco_mask.toBbox(gt).tolist(),
                    segmentation=dict(size=gt['size'], counts=gt['counts'].decode()),
                )
            )
            detections += [
                dict(
                    image_id=image_id,
                    category_id=1,
                    score=float(score),
                    segmentation=dict(size=mask['size'], counts=mask['counts'].decode()),
                )
                for mask, score in zip(sample['pred_masks_all'][i], sample['pred_scores_all'][i], strict=True)
            ]
    for name, content in (
        ('truth', dict(info={}, images=images, annotations=annotations, categories=[dict(id=1, name='dummy_class')])),
        ('detections', detections),
    ):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / 'truth.json'))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / 'detections.json')), 'segm')
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metric = A2DMetric()
    metric.process(None, samples)
    found = average_precision([row for rows in metric.results for row in rows])
    assert list(found.values()) == evaluation.stats[:6].tolist() and 0.05 < found['mAP'] < 0.95
    assert evaluate(samples)['a2d/mAP'] == found['mAP']


def test_the_query_with_the_highest_score_counts():
    gt = square(0, 0, 10, 10)
    sample = sample_of('a', [gt], [[square(20, 20, 5, 5), gt, square(0, 0, 10, 5)]], [[0.2, 0.3, 0.7]])
    assert evaluate([sample])['a2d/mean_IoU'] == 0.5


def test_repeated_sentences_count_once():
    samples = random_samples()
    assert evaluate([*samples, *samples[:2]]) == evaluate(samples)


def test_report(tmp_path):
    metric = A2DMetric(out_file=str(tmp_path / 'report.json'), prefix='jhmdb')
    metric.dataset_meta = dict(samples='drawn')
    metric.process(None, two_images())
    metrics = metric.evaluate(2)
    report = json.loads((tmp_path / 'report.json').read_text())
    assert {f'jhmdb/{name}': value for name, value in report['metrics'].items()} == metrics
    assert (
        report['samples'] == 'drawn' and report['num_sentences'] == 2 and report['coco']['AP@0.5'] == pytest.approx(1)
    )
    assert report['rows'][0] == dict(
        image_id='v_a_f_1_i_0',
        video='a',
        sentence='sentence 0',
        intersection=50,
        union=100,
        IoU=0.5,
        score=pytest.approx(0.9),
    )


def one_of_several(rank, world_size, folder):
    """Scores every ``world_size``-th sample; the surplus draws repeat the first ones, as of mmengine's sampler."""
    dist.init_process_group('gloo')
    samples = random_samples()[:5]
    draws = -(-len(samples) // world_size)
    metric = A2DMetric(out_file=f'{folder}/{world_size}.json')
    for i in range(draws):
        metric.process(None, [samples[(i * world_size + rank) % len(samples)]])
    metric.evaluate(len(samples))
    dist.destroy_process_group()


def test_numbers_do_not_depend_on_the_number_of_processes(tmp_path):
    for world_size in (1, 2):
        assert_ended_well(
            run_on_ranks(one_of_several, world_size, tmp_path, folder=tmp_path, ranks=world_size, fork=True)
        )
    one, two = ((tmp_path / f'{world_size}.json').read_text() for world_size in (1, 2))
    assert one == two and json.loads(one)['num_sentences'] == 9


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda sample: sample.pop('pred_masks_all'),
            r"video a, sentence 'sentence 0': .*selector=dict\(type='AllQueries'\).*output=dict\(type='A2DMasks'\)",
        ),
        (
            lambda sample: sample.pop('gt_rles'),
            r'the test pipeline needs LoadA2DMasks\(evaluation=True\) or LoadJHMDBMask',
        ),
        (lambda sample: sample.update(pred_masks_all=[[]]), 'expected a score for each of the masks, found 1 for 0'),
        (
            lambda sample: sample.update(gt_rles=[encode(np.ones((4, 6)))]),
            r'expected masks of \(4, 6\) .*found {\(40, 60\)}',
        ),
    ],
)
def test_wrong_samples(change, message):
    sample = two_images()[0]
    change(sample)
    with pytest.raises(ValueError, match=message):
        evaluate([sample])


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='was the test loader empty'):
        A2DMetric().compute_metrics([])


# ------------------------------------------------------------------------------------------ the predictions of all queries


@pytest.fixture(scope='module')
def model(root):
    test_cfg = dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks'), frames_per_pass=2)
    return small_model(root, test_cfg=test_cfg)


def annotated(size, texts, **options):
    sample = make_sample(size, texts, num_frames=3, **options)
    sample.key_frames_inds = [1]
    return sample


@torch.no_grad()
def test_all_queries_are_predicted(model):
    """Against the raw outputs, brought to the original size by the steps of the released evaluation."""
    size, padded, original = (48, 72), (64, 96), (101, 203)
    clips = torch.stack(
        [torch.nn.functional.pad(random_clip(3, size)[0], (0, 24, 0, 16)), random_clip(3, padded, 1)[0]]
    )
    texts = [['a red car', 'the dog', 'a very small person'], ['the dog']]
    samples = [annotated(size, texts[0], ori_shape=original), annotated(padded, texts[1], ori_shape=original)]
    (raw,) = model(clips, samples, mode='tensor')
    assert raw['masks'].shape[:3] == (4, 1, 8)
    found = model(clips, samples, mode='predict')
    scores = torch.cat([sample.pred_scores_all for sample in found])
    assert torch.allclose(scores, raw['logits'].sigmoid()[:, 0, :, 0], atol=1e-6) and scores.shape == (4, 8)
    rles = [masks for sample in found for masks in sample.pred_masks_all]
    varied = 0
    for expr, (height, width) in enumerate([size] * 3 + [padded]):
        for query in range(8):
            large = torch.nn.functional.interpolate(raw['masks'][expr, :, query][None], padded, mode='bilinear')
            inside = (large.sigmoid() > 0.5)[:, :, :height, :width].float()
            expected = torch.nn.functional.interpolate(inside, original, mode='nearest')[0, 0].numpy()
            mask = coco_mask.decode(rles[expr][query])
            varied += 0 < mask.mean() < 1
            assert mask.shape == original and (mask != expected).mean() < 1e-3  # passes of 2 sentences against one of 4
    assert varied > 8
    first = found[0]
    best = first.pred_scores_all.argmax(1)
    assert first.pred_queries[:, 0].tolist() == best.tolist()
    assert first.pred_scores.tolist() == first.pred_scores_all.amax(1).tolist()
    assert [len(masks) for masks in first.pred_masks] == [1] * 3
    assert all(first.pred_masks[i][0] == first.pred_masks_all[i][best[i]] for i in range(3))


def test_all_queries_choose_as_one_does(model, root, monkeypatch):
    clip = random_clip(3, (64, 96))[0][None]
    (every,) = model(clip, [annotated((64, 96), ['a red car', 'the dog'])], mode='predict')
    set_test_cfg(model, monkeypatch, selector=QueryPerVideo(), output=ThresholdedMasks())
    (chosen,) = model(clip, [annotated((64, 96), ['a red car', 'the dog'])], mode='predict')
    assert chosen.pred_queries.tolist() == every.pred_queries.tolist()
    assert torch.allclose(chosen.pred_scores, every.pred_scores) and 'pred_masks_all' not in chosen
    # Without padding and at the original size the two ways are one.
    assert [m[0]['counts'] for m in chosen.pred_masks] == [m[0]['counts'] for m in every.pred_masks]


def test_all_queries_need_one_annotated_frame(model, root):
    with pytest.raises(ValueError, match='selector=AllQueries: expected clips with one annotated frame .*, found 2'):
        model(random_clip(2, (64, 96))[0][None], [make_sample((64, 96), ['a car'], num_frames=2)], mode='predict')
    with pytest.raises(ValueError, match='all_queries and return_logits do not go together'):
        small_model(root, test_cfg=dict(all_queries=True, return_logits=True))


# ------------------------------------------------------------------------------------------ from files to numbers


def test_training_and_testing_on_the_twins(root, tmp_path):
    """One step on A2D, validation, and a test on JHMDB, from the base configs."""
    base = root / 'configs' / '_base_'
    data, jhmdb = write_a2d(tmp_path), write_jhmdb(tmp_path, samples=[('first_video', 5), ('second_video', 1)])
    names = ('models/soc_tiny', 'datasets/a2d_sentences', 'schedules/schedule_a2d_40e', 'default_runtime')
    (tmp_path / 'config.py').write_text(
        f'_base_ = {[str(base / f"{name}.py") for name in names]}\n'
        "model = dict(test_cfg=dict(selector=dict(type='AllQueries'), output=dict(type='A2DMasks')))\n"
    )
    cfg = Config.fromfile(tmp_path / 'config.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg.max_epochs = 1
    loaders = [cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader]
    for loader in loaders:
        loader.num_workers = 0
    jhmdb_cfg = Config.fromfile(base / 'datasets' / 'jhmdb_sentences.py')
    cfg.test_dataloader.dataset = dict(
        jhmdb_cfg.jhmdb_dataloader.dataset, data_root=str(jhmdb), samples_file='samples.json', expected_samples=2
    )
    cfg.test_evaluator = [dict(jhmdb_cfg.jhmdb_evaluator, out_file=str(tmp_path / 'jhmdb.json'))]
    cfg.val_evaluator.out_file = str(tmp_path / 'a2d.json')
    for loader in loaders[:2]:
        loader.dataset.update(data_root=str(data), expected_videos=None)
    cfg.train_dataloader.dataset.indices = 2
    for loader in loaders:
        loader.dataset.num_frames = 4
        for transform in loader.dataset.pipeline:
            if transform['type'] == 'ForEachFrame':
                transform['transforms'][-1]['scale'] = (64, 48)
    cfg.experiment_name = 'twins'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 1
    report = json.loads((tmp_path / 'a2d.json').read_text())
    assert [row['image_id'] for row in report['rows']] == [
        'v_b_test_f_5_i_0',
        'v_b_test_f_5_i_2',
        'v_b_test_f_9_i_2',
        'v_c_test_f_2_i_0',
    ]
    assert report['samples'] is None and (tmp_path / 'work' / 'best_a2d_mAP_epoch_1.pth').is_file()
    metrics = runner.test()
    report = json.loads((tmp_path / 'jhmdb.json').read_text())
    assert report['num_sentences'] == 2 and report['samples'] == f'the list {jhmdb}/samples.json'
    assert 0 <= metrics['jhmdb/mAP'] <= 1 and len(metrics) == 8
