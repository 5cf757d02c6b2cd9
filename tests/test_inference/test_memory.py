"""Which frames a live stream keeps, by hand."""

import pytest
import torch

from mmsoc.inference import RecentFrames, ThinnedFrames


@pytest.mark.parametrize(
    ('memory', 'num_frames', 'kept'),
    [
        (RecentFrames(3), 1, [0]),
        (RecentFrames(3), 3, [0, 1, 2]),
        (RecentFrames(3), 5, [2, 3, 4]),
        (RecentFrames(1), 5, [4]),
        (ThinnedFrames(4), 3, [0, 1, 2]),
        (ThinnedFrames(4), 4, [0, 1, 2, 3]),
        # The newer half, 2, stays; of those before, every second one, from the first on.
        (ThinnedFrames(4), 5, [0, 2, 3, 4]),
        (ThinnedFrames(4), 6, [0, 2, 4, 5]),
        # 0, 2, 4, 6 of seven are still too many, and 0, 4 of these stay.
        (ThinnedFrames(4), 9, [0, 4, 7, 8]),
        (ThinnedFrames(2), 5, [0, 4]),
        (ThinnedFrames(1), 5, [4]),
        (ThinnedFrames(3), 4, [0, 2, 3]),
        (ThinnedFrames(8), 12, [0, 2, 4, 6, 8, 9, 10, 11]),
    ],
)
def test_kept_frames(memory, num_frames, kept):
    found = memory.kept(num_frames)
    assert found.tolist() == kept and found.dtype == torch.int64 and found.device.type == 'cpu'


@pytest.mark.parametrize('kind', [RecentFrames, ThinnedFrames])
@pytest.mark.parametrize('limit', [1, 2, 3, 7, 96])
def test_there_is_a_bound_the_order_stays_and_the_newest_is_kept(kind, limit):
    for num_frames in range(1, 3 * limit + 2):
        kept = kind(limit).kept(num_frames).tolist()
        assert len(kept) <= limit and kept[-1] == num_frames - 1 and kept == sorted(set(kept)) and kept[0] >= 0
        assert len(kept) == num_frames or num_frames > limit, 'frames go although there is room'


def queries(*frames):
    """(1, F, 2, 3), each frame's queries are its number."""
    return torch.tensor(frames, dtype=torch.float32)[None, :, None, None].expand(1, len(frames), 2, 3)


def numbers(found):
    assert found.shape[0] == 1 and found.shape[2:] == (2, 3)
    return found[0, :, 0, 0].tolist()


def history(memory, chunks):
    """What is kept after each chunk."""
    kept, found = None, []
    for chunk in chunks:
        kept = memory.update(kept, queries(*chunk))
        found.append(numbers(kept))
    return found


def test_a_stream_of_recent_frames():
    """All new frames take part; what they push out goes with the next ones."""
    assert history(RecentFrames(3), [[0, 1], [2, 3], [4, 5], [6]]) == [
        [0, 1],
        [0, 1, 2, 3],
        [1, 2, 3, 4, 5],
        [3, 4, 5, 6],
    ]


def test_a_stream_of_thinned_frames():
    frames = [[number] for number in range(14)]
    found = history(ThinnedFrames(8), frames)
    assert found[8] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert found[9] == [0, 2, 4, 5, 6, 7, 8, 9]
    assert found[10] == [0, 2, 4, 5, 6, 7, 8, 9, 10]
    assert found[11] == [0, 4, 6, 7, 8, 9, 10, 11]
    assert found[13] == [0, 6, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize('kind', [RecentFrames, ThinnedFrames])
@pytest.mark.parametrize('chunk', [1, 4, 24])
def test_a_long_stream_is_bounded(kind, chunk):
    chunks = [list(range(start, start + chunk)) for start in range(0, 600, chunk)]
    for frames, found in zip(chunks, history(kind(16), chunks), strict=True):
        assert len(found) <= 16 + chunk and found[-chunk:] == frames and found == sorted(set(found))
    assert (found[0] == 0) == (kind is ThinnedFrames), 'the start of the video'


@pytest.mark.parametrize('kind', [RecentFrames, ThinnedFrames])
def test_no_memory_is_an_error(kind):
    with pytest.raises(ValueError, match=r'model\.test_cfg\.memory\.num_frames=0: expected at least 1'):
        kind(0)
