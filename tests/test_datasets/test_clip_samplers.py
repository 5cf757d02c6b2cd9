import numpy as np
import pytest

from mmsoc.datasets import SparseClipSampler, WindowClipSampler
from mmsoc.registry import TASK_UTILS


@pytest.mark.parametrize(
    'length, expected',
    [
        (8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        # the third window would have frames 8 and 9 only: it becomes the last four
        (10, [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]),
        (9, [[0, 1, 2, 3], [4, 5, 6, 7], [5, 6, 7, 8]]),
        (4, [[0, 1, 2, 3]]),
        (3, [[0, 1, 2, 2]]),
        (1, [[0, 0, 0, 0]]),
    ],
)
def test_windows(length, expected):
    sampler = TASK_UTILS.build(dict(type='mmsoc.WindowClipSampler', num_frames=4))
    assert sampler.split([True] * length) == expected
    assert sampler.draw(expected[-1], length) == expected[-1]


def test_windows_without_the_object_are_dropped():
    present = [False] * 10
    sampler = WindowClipSampler(num_frames=4)
    assert sampler.split(present) == []
    present[7] = True  # in the second window and in the overlapping last one
    assert sampler.split(present) == [[4, 5, 6, 7], [6, 7, 8, 9]]


def test_sparse_anchors():
    assert SparseClipSampler(num_frames=5).split([True] * 12) == [[0], [5], [10]]
    assert SparseClipSampler(num_frames=5).split([True] * 2) == [[0]]


def reference_sparse(anchor, length, before, after):
    """What of a clip of 5 is fixed by the two random distances, and from which frames the other two come."""
    local = [anchor, max(0, anchor - before), min(length - 1, anchor + after)]
    candidates = list(range(min(local))) + list(range(max(local), length))
    return local, candidates if len(candidates) > 2 else list(range(length))


@pytest.mark.parametrize('length', [1, 2, 3, 4, 5, 9, 30])
def test_sparse_draw(length):
    sampler = SparseClipSampler(num_frames=5)
    np.random.seed(0)
    drawn = set()
    for anchor in range(0, length, 5):
        for _ in range(60):
            frames = sampler.draw([anchor], length)
            assert len(frames) == 5 and frames == sorted(frames)
            assert frames[0] >= 0 and frames[-1] < length and anchor in frames
            drawn.add(tuple(frames))
            possible = False
            for before in (1, 2, 3):
                for after in (1, 2, 3):
                    local, allowed = reference_sparse(anchor, length, before, after)
                    rest = list(frames)
                    if all(local.count(i) <= rest.count(i) for i in local):
                        for i in local:
                            rest.remove(i)
                        # without replacement: the two differ, unless one frame is all there is
                        possible |= set(rest) <= set(allowed) and (len(set(rest)) == 2 or length < 2)
            assert possible, frames
    assert length < 4 or len(drawn) > 5


def test_sparse_short_videos_by_hand():
    np.random.seed(0)
    # one frame: everything is that frame
    assert SparseClipSampler(num_frames=5).draw([0], 1) == [0] * 5
    # 3 frames, clips of 9: local 3 + 6 others, but the video has only 3: it is repeated twice
    frames = SparseClipSampler(num_frames=9).draw([0], 3)
    assert len(frames) == 9
    assert min(frames.count(i) for i in range(3)) >= 2
    assert SparseClipSampler(num_frames=1).draw([3], 9) == [3]
    assert len(SparseClipSampler(num_frames=3).draw([0], 9)) == 3


def test_sparse_seed():
    sampler = SparseClipSampler(num_frames=5)

    def draw(seed):
        np.random.seed(seed)
        return [sampler.draw([10], 30) for _ in range(5)]

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize('make', [lambda: WindowClipSampler(num_frames=0), lambda: SparseClipSampler(num_frames=2)])
def test_bad_num_frames(make):
    with pytest.raises(ValueError, match='num_frames must be'):
        make()
