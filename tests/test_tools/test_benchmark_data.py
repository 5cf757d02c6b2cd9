"""tools/analysis_tools/benchmark_data.py: every part runs on tiny data, and a difference between two ways is noticed."""

import json
import sys

import cv2
import numpy as np
import pytest

from mmsoc.evaluation.jf_metric import _dilate
from tools.analysis_tools import benchmark_data

TINY = [
    '--runs',
    '1',
    '--mask-size',
    '48',
    '85',
    '--length',
    '5',
    '--video-length',
    '12',
    '--video-size',
    '32',
    '56',
    '--startup-size',
    '3',
    '10',
    '30',
    '--scan-masks',
    '54',
    '--scan-size',
    '36',
    '64',
    '--h5-videos',
    '2',
]


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['benchmark_data.py', *TINY, *map(str, options)])
    benchmark_data.main()


def test_all_parts(tmp_path, monkeypatch, capsys):
    run(monkeypatch, '--out', tmp_path / 'figures.json', '--work-dir', tmp_path)
    rows = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert list(dict.fromkeys(row['part'] for row in rows)) == ['jf', 'a2d', 'startup', 'scan', 'h5']
    assert all(row['value'] > 0 for row in rows)
    printed = ' '.join(capsys.readouterr().out.split())
    # 5 frames, in one of the two videos with one object, in the other with two
    assert 'plain: 15 masks of made 1, made 2, 85x48' in printed and 'at least 4' in printed
    # windows of 8 in videos of 10 frames: two for each of 10 expressions
    assert any('3 videos, 10 expressions, 30 masks, 20 samples' in row['what'] for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ['figures.json'], 'what was made stays'
    plain, ours, faster = rows[3:6]
    assert faster['value'] == pytest.approx(plain['value'] / ours['value']) and faster['expected'] == 'at least 5'


def test_masks_of_davis(reference, monkeypatch, capsys):
    run(monkeypatch, '--parts', 'jf', '--davis-root', reference / 'data/ref-davis17-mini')
    assert 'plain: 90 masks of car-shadow, drift-straight, 854x480' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ('part', 'name', 'other', 'message'),
    [
        ('jf', 'boundary_f', lambda gt, pred: 0.5, 'jf: the two ways differ by'),
        (
            'a2d',
            'LoadVideoWindow',
            lambda: lambda results: dict(img=[np.zeros((32, 56, 3), np.uint8)] * 8),
            'a2d: the two ways differ in the clip around frame 0',
        ),
    ],
)
def test_a_difference_ends_the_run(monkeypatch, part, name, other, message):
    monkeypatch.setattr(benchmark_data, name, other)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, '--parts', part)


def test_the_plain_form():
    gt = np.zeros((480, 854), bool)
    gt[100:200, 100:200] = True
    # moved by 9 pixels, of which 8 are allowed: of 400 boundary pixels only those of the horizontal sides, but their ends, match
    pred = np.roll(gt, 9, axis=1)
    assert benchmark_data.plain_j(gt, pred) == pytest.approx(91 / 109)
    assert benchmark_data.plain_f(gt, gt) == 1 and 0.4 < benchmark_data.plain_f(gt, pred) < 0.6
    assert benchmark_data.plain_f(gt, np.roll(gt, 8, axis=1)) == 1
    empty = np.zeros_like(gt)
    assert (benchmark_data.plain_f(gt, empty), benchmark_data.plain_f(empty, empty)) == (0, 1)
    assert (benchmark_data.plain_j(gt, empty), benchmark_data.plain_j(empty, empty)) == (0, 1)


def test_dilation_by_steps():
    """What makes mmsoc's F fast: a disk put together from short segments."""
    points = (np.random.default_rng(0).random((70, 60)) < 0.01).astype(np.uint8)
    points[0, 0] = points[-1, -1] = 1
    for radius in range(25):
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        disk = (x * x + y * y <= radius * radius).astype(np.uint8)
        assert np.array_equal(_dilate(points, radius), cv2.dilate(points, disk)), radius


def test_mistakes(tmp_path, monkeypatch, capsys):
    with pytest.raises(
        SystemExit, match='error: --davis-root: expected masks .*valid/Annotations/<video>/<frame>.png, found none'
    ):
        run(monkeypatch, '--parts', 'jf', '--davis-root', tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, '--startup-size', 3, 10, 2)
    assert 'every video needs an expression and a mask' in capsys.readouterr().err
