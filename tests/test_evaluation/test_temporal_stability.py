"""The variance of J and of J&F over frames: by hand, and of real masks."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.evaluation import TemporalStabilityMetric, boundary_f
from mmsoc.registry import METRICS


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def box(width=20):
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10 : 10 + width] = True
    return mask


def video_sample(folder, predictions, truths, name='a'):
    """predictions: masks per sentence and frame; truths: mask of object 1 per frame."""
    folder = folder / name
    folder.mkdir(parents=True)
    paths = [str(folder / f'{t:05d}.png') for t in range(len(truths))]
    for path, mask in zip(paths, truths):
        Image.fromarray(mask.astype(np.uint8)).save(path)
    return dict(
        video_id=name,
        texts=[f'sentence {i}' for i in range(len(predictions))],
        exp_ids=[str(i) for i in range(len(predictions))],
        obj_ids=['1'] * len(predictions),
        mask_paths=paths,
        pred_masks=[[encode(mask) for mask in masks] for masks in predictions],
    )


def test_by_hand(tmp_path):
    metric = METRICS.build(dict(type='mmsoc.TemporalStabilityMetric', out_file=str(tmp_path / 'result.json')))
    # Sentence 0: J = 1, 0.5, 0, 1 (half of the box; nothing; nothing where there is nothing): mean 5 / 8, squares 9 / 4, so
    # the variance is 9 / 16 - 25 / 64 = 11 / 64. Sentence 1: J = 1, 1, 1, 1: no variance.
    truths = [box(), box(), box(), box(0)]
    metric.process({}, [video_sample(tmp_path, [[box(), box(10), box(0), box(0)], truths], truths)])
    # Another video, one sentence: J = 1, 0: mean 1 / 2, squares 1 / 2, variance 1 / 4; F the same.
    metric.process({}, [video_sample(tmp_path, [[box(), box()]], [box(), box(0)], 'b')])
    result = metric.evaluate(2)
    assert result['stability/var_J'] == pytest.approx((11 / 64 + 0 + 1 / 4) / 3)  # the mean is over the three sentences
    half = boundary_f(box(), box(10))
    q = [1, (0.5 + half) / 2, 0, 1]
    of_jf = sum(v * v for v in q) / 4 - (sum(q) / 4) ** 2
    assert result['stability/var_J&F'] == pytest.approx((of_jf + 0 + 1 / 4) / 3)
    for key in ('var_J', 'var_J&F'):
        assert result[f'stability/{key}_x100'] == pytest.approx(100 * result[f'stability/{key}'])
    rows = json.loads((tmp_path / 'result.json').read_text())['rows']
    assert [row['var_J'] for row in rows] == pytest.approx([11 / 64, 0, 1 / 4])
    assert rows[0]['J_t'] == [1, 0.5, 0, 1] and (rows[2]['video'], rows[2]['exp_id']) == ('b', '0')


def test_void(tmp_path):
    truth = box(10).astype(np.uint8)
    truth[10:20, 20:30] = 255
    for label, expected in (
        (255, 0),
        (None, (1 - 0.5) ** 2 / 4),
    ):  # the variance of 1 and 0.5 is a quarter of 0.5 squared
        metric = TemporalStabilityMetric(void_label=label)
        metric.process({}, [video_sample(tmp_path / str(label), [[box(20), box(10)]], [truth, box(10)])])
        assert metric.evaluate(1)['stability/var_J'] == pytest.approx(expected)


@pytest.mark.parametrize('name', ['car-shadow', 'drift-straight'])
def test_real_masks(reference, tmp_path, name):
    """OSVOS: the variances of the official code's J and F of each frame."""
    data = reference / 'data'
    expected = json.loads((data / 'davis17_reference_jf/official_code_values.json').read_text())
    expected = expected['osvos_semi_supervised'][name]
    truths, predictions = (
        [np.array(Image.open(path)) > 0 for path in sorted((data / folder / name).glob('*.png'))]
        for folder in ('davis16_val_gt', 'davis17_osvos_pred')
    )
    metric = TemporalStabilityMetric()
    metric.process({}, [video_sample(tmp_path, [predictions], truths)])
    result = metric.evaluate(1)
    assert result['stability/var_J'] == pytest.approx(expected['J_var_pop'], rel=1e-4)
    assert result['stability/var_J&F'] == pytest.approx(expected['JF_var_pop'], rel=1e-4)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            dict(mask_paths=None),
            r"TemporalStabilityMetric: video a has no masks to compare with; set data_prefix\['mask'\]",
        ),
        (dict(obj_ids=None), r"TemporalStabilityMetric: the expressions of video a have no 'obj_id'.*use an ann_file"),
        (dict(obj_ids=['7']), r"video a: no mask shows the objects \['7'\]; the masks show \[1\]"),
        (dict(pred_masks=[[]]), r'video a: expected masks for 1 sentences and 1 frames, found \[0\]'),
        (
            dict(pred_masks=[[encode(np.zeros((4, 6)))]]),
            "sentence 'sentence 0': the predicted mask is 6x4, but .* is 60x40",
        ),
    ],
)
def test_bad_input(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        TemporalStabilityMetric().score_video(video_sample(tmp_path, [[box()]], [box()]) | change)


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match='nothing to evaluate'):
        TemporalStabilityMetric().evaluate(0)
