"""Several sentences in one image, each in its color, and videos of such images."""

from fractions import Fraction

import numpy as np
import pytest

from mmsoc.registry import VISUALIZERS
from mmsoc.visualization import VideoWriter, add_caption, add_legend, distinct_colors, enlarge, write_video
from tests.test_apis.tiny_videos import read_video

RED, BLUE = (255, 0, 0), (0, 0, 255)


def grey(height=40, width=60, value=100):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def visualizer():
    return VISUALIZERS.build(
        dict(type='mmsoc.RVOSLocalVisualizer', name='overlay', colors=(RED, BLUE), alpha=1.0, contour=0)
    )


def test_legend():
    image = grey(50, 200)
    drawn = add_legend(image, [('one', RED), ('two', BLUE)], font_size=14)
    assert np.array_equal(drawn[:50], image)
    bar = drawn[50:]
    red, blue = (np.flatnonzero((bar == color).all(-1).any(1)) for color in (RED, BLUE))
    assert len(red) == len(blue) == 14 and red.max() < blue.min()  # squares, one below the other
    one = add_caption(image, 'one', RED, font_size=14)
    line = drawn.shape[0] - one.shape[0]
    assert line > 14 and np.array_equal(one[50 : 50 + line], drawn[50 : 50 + line])
    wrapped = add_legend(image, [('word ' * 20, RED), ('two', BLUE)], font_size=14)
    assert wrapped.shape[0] >= drawn.shape[0] + line and (wrapped[50:] == BLUE).all(-1).sum() == 14 * 14


def test_distinct_colors():
    assert distinct_colors(2, (RED, BLUE, (0, 0, 0))) == [RED, BLUE]
    colors = distinct_colors(60, (RED, BLUE))
    assert colors[:2] == [RED, BLUE] and colors == distinct_colors(80, (RED, BLUE))[:60]
    distances = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 30
    first = distinct_colors(8, (RED, BLUE))
    assert min(np.abs(np.subtract(a, b)).sum() for i, a in enumerate(first) for b in first[:i]) > 150
    assert len(set(distinct_colors(180))) == 180


def test_enlarge():
    mask = np.array([[1, 0], [0, 1]], bool)
    np.testing.assert_array_equal(enlarge(mask, 2), np.kron(mask, np.ones((2, 2))).astype(bool))
    assert enlarge(grey(3, 4), 3).shape == (9, 12, 3) and enlarge(mask, 1) is mask


def test_sentences(visualizer):
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 5:10, 5:10] = masks[1, 5:10, 20:30] = masks[2, 20:25, 5:10] = True
    drawn = visualizer.draw_sentences(grey(), masks, ['one', 'two', 'three'], scores=[0.5, 0.25, 0.75], zoom=1)
    third = visualizer.color_of(2)
    assert third not in (RED, BLUE) and third == visualizer.color_of(2)
    for mask, color in zip(masks, (RED, BLUE, third)):
        assert (drawn[:40][mask] == color).all()
        assert (drawn[40:] == color).all(-1).any()  # in the legend
    assert (drawn[:40][~masks.any(0)] == 100).all()
    empty = visualizer.draw_sentences(grey(), masks & False, ['one', 'two', 'three'], scores=[0.5, 0.25, 0.75], zoom=1)
    assert np.array_equal(empty[:40], grey()) and np.array_equal(empty[40:], drawn[40:])
    other = visualizer.draw_sentences(grey(), masks, ['one', 'two', 'three'], zoom=1)
    assert not np.array_equal(other[40:], drawn[40 : 40 + len(other) - 40])  # the scores
    assert visualizer.draw_sentences(grey(), masks, ['one', 'two', 'three']).shape[1] == 6 * 60  # at least 320
    assert visualizer.draw_sentences(grey(40, 400), [np.ones((40, 400))], ['one']).shape[1] == 400
    with pytest.raises(ValueError, match='2 sentences, but 3 masks'):
        visualizer.draw_sentences(grey(), masks, ['one', 'two'])
    with pytest.raises(ValueError, match='the mask is 61x40, but the image is 60x40'):
        visualizer.draw_sentences(grey(), [np.ones((40, 60)), np.ones((40, 61))], ['one', 'two'], zoom=1)


def test_sentences_that_name_the_same(visualizer):
    masks = np.zeros((3, 40, 60), bool)
    masks[0, 4:20, 4:40] = masks[1, 4:20, 12:60] = masks[2, 4:20, 28:34] = True
    drawn = visualizer.draw_sentences(grey(), masks, ['one', 'two', 'three'], zoom=1)[:40]
    colors = RED, BLUE, visualizer.color_of(2)
    share = [(drawn == color).all(-1) for color in colors]
    assert share[0][4:20, 4:12].all() and share[1][4:20, 40:].all() and np.array_equal(sum(share), masks.any(0))
    for index, mask in enumerate(masks):
        assert not share[index][~mask].any()
    two, three = np.s_[4:20, 12:28], np.s_[4:20, 28:34]
    assert [part[two].mean() for part in share] == [0.5, 0.5, 0] and min(part[three].mean() for part in share) > 0.2
    # Outlines are whole ones.
    visualizer.alpha, visualizer.contour = 0, 1
    outlined = visualizer.draw_sentences(grey(), masks[:2], ['one', 'two'], zoom=1)[:40]
    for column, color in ((4, RED), (12, BLUE)):  # smooth lines are not quite of their color
        np.testing.assert_allclose(outlined[5:19, column], [color] * 14, atol=40)
    assert (outlined[6:18, 14:38] == 100).all()


def test_video_of_images_that_differ_in_size(tmp_path):
    write_video(tmp_path / 'a.mp4', [grey(40, 60, 200), grey(30, 50, 200)], fps=3, crf=1)
    frames, stream = read_video(tmp_path / 'a.mp4')
    assert stream.average_rate == 3 and [frame.shape for frame in frames] == [(40, 60, 3)] * 2
    assert frames[1][:28, :48].min() > 190 and frames[1][32:].max() < 10 and frames[1][:, 52:].max() < 10
    with pytest.raises(ValueError, match='no frame was written'):
        write_video(tmp_path / 'a.mp4', [])


def test_times(tmp_path):
    times = [0, Fraction(1, 30), 0.5, 2]
    path = tmp_path / 'a.mp4'
    with VideoWriter(path, fps=10) as video:
        for time in times:
            video.write(grey(), time)
    frames, stream = read_video(path)
    assert len(frames) == 4
    # the last frame is shown for a tenth of a second, as `fps` says
    assert float(stream.duration * stream.time_base) == pytest.approx(2.1, abs=0.02)
    for second, message in (
        (0, r'at 0.00000 s does not come after the one before, at 0.00000 s'),
        (None, 'some have none'),
    ):
        with pytest.raises(ValueError, match=message), VideoWriter(path) as video:
            video.write(grey(), 0)
            video.write(grey(), second)
    with pytest.raises(ValueError, match='some have none'), VideoWriter(path) as video:
        video.write(grey())
        video.write(grey(), 1)
