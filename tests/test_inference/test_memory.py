"""Which frames a live stream keeps, by hand."""

import pytest
import torch

from mmsoc.inference import RecentFrames, ThinnedFrames


@pytest.mark.parametrize(
    ('memory', 'numbers', 'kept'),
    [
        (RecentFrames(3), [0], [0]),
        (RecentFrames(3), [0, 1, 2], [0, 1, 2]),
        (RecentFrames(3), [0, 1, 2, 3, 4], [2, 3, 4]),
        (RecentFrames(3), [0, 8, 20, 30], [8, 20, 30]),
        (RecentFrames(1), [0, 1, 2, 3, 4], [4]),
        (ThinnedFrames(4), [0, 1, 2], [0, 1, 2]),
        (ThinnedFrames(4), [0, 1, 2, 3], [0, 1, 2, 3]),
        # 3 and 4 stay, and 0. Without 1 or 2 there is a gap of 2, at an age of 3 or 2.
        (ThinnedFrames(4), [0, 1, 2, 3, 4], [0, 2, 3, 4]),
        # 1 goes: 2/4. Of 2 (gap 3, age 3) and 3 (gap 2, age 2) the older.
        (ThinnedFrames(4), [0, 1, 2, 3, 4, 5], [0, 3, 4, 5]),
        # A gap counts by its age: without 90 it is 50 at an age of 110, without 150 it is 70 at 50.
        (ThinnedFrames(4), [0, 90, 150, 199, 200], [0, 150, 199, 200]),
        # ... and without 20 it is 110 at 180, without 110 it is 178 at 90.
        (ThinnedFrames(4), [0, 20, 110, 198, 200], [0, 110, 198, 200]),
        (ThinnedFrames(2), [0, 1, 2, 3, 4], [0, 4]),
        (ThinnedFrames(1), [0, 1, 2, 3, 4], [4]),
        (ThinnedFrames(3), [0, 1, 2, 3], [0, 2, 3]),
    ],
)
def test_kept_frames(memory, numbers, kept):
    numbers = torch.tensor(numbers)
    found = memory.kept(numbers)
    assert numbers[found].tolist() == kept and found.dtype == torch.int64 and found.device.type == 'cpu'


@pytest.mark.parametrize('kind', [RecentFrames, ThinnedFrames])
@pytest.mark.parametrize('limit', [1, 2, 3, 7, 96])
def test_there_is_a_bound_the_order_stays_and_the_newest_is_kept(kind, limit):
    for num_frames in range(1, 3 * limit + 2):
        kept = kind(limit).kept(torch.arange(num_frames)).tolist()
        assert len(kept) <= limit and kept[-1] == num_frames - 1 and kept == sorted(set(kept)) and kept[0] >= 0
        assert len(kept) == num_frames or num_frames > limit, 'frames go although there is room'


def queries(*frames):
    """(1, F, 2, 3), each frame's queries are its number."""
    return torch.tensor(frames, dtype=torch.float32)[None, :, None, None].expand(1, len(frames), 2, 3)


def history(memory, chunks):
    """What is kept after each chunk."""
    kept, found = None, []
    for chunk in chunks:
        kept = memory.update(kept, queries(*chunk))
        assert kept.queries.shape[0] == 1 and kept.queries.shape[2:] == (2, 3)
        assert kept.queries[0, :, 0, 0].tolist() == kept.numbers.tolist()
        found.append(kept.numbers.tolist())
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
    found = history(ThinnedFrames(4), [[number] for number in range(8)])
    assert found[3:5] == [[0, 1, 2, 3], [0, 1, 2, 3, 4]]
    # The two newest and 0 stay. At 4, 1 goes: 2/3 against 2/2 of frame 2. At 5, 2 goes: 3/3, as much as 2/2 of the younger 3.
    assert found[5:7] == [[0, 2, 3, 4, 5], [0, 3, 4, 5, 6]]
    # At 6, 4 goes: 2/2 against 4/3 of frame 3.
    assert found[7] == [0, 3, 5, 6, 7]


def test_gaps_grow_with_age():
    """After 5,000 frames: the last 48 are there, and of all before them some, in every stretch of time."""
    found = history(ThinnedFrames(96), [list(range(start, start + 8)) for start in range(0, 5000, 8)])[-1]
    assert found[0] == 0 and found[-48:] == list(range(4952, 5000))
    older = found[: -48 - 8]
    gaps = [(after - before, 4999 - after) for before, after in zip(older, older[1:])]
    assert max(gap / age for gap, age in gaps[1:]) < 0.5
    for age in (100, 250, 500, 1000, 2000):
        assert sum(age <= 4999 - number < 2 * age for number in older) >= 3, age


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
