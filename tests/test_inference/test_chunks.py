"""How a stream of frames is cut, by hand."""

import pytest
import torch

from mmsoc.inference.chunks import Chunks

SIZE = (2, 3)


def frames(*numbers):
    """uint8 (t, 3, 2, 3)"""
    return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, *SIZE)


def told(chunk):
    """The numbers of its frames, and of those that are kept."""
    numbers = chunk.frames[:, 0, 0, 0].tolist()
    return numbers, numbers[chunk.kept.start : chunk.kept.stop]


def test_overlap_on_both_sides():
    chunks, found = Chunks(SIZE, chunk_frames=4, before=2, after=1), {}
    for number in range(11):
        for chunk in chunks.add(frames(number)):
            found[number] = told(chunk)
        assert len(chunks._waiting) <= 2 + 4 + 1
    assert chunks.num_frames == 11
    # A chunk waits for the frame behind it.
    assert found == {4: ([0, 1, 2, 3, 4], [0, 1, 2, 3]), 8: ([2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7])}
    assert [told(chunk) for chunk in chunks.rest()] == [([6, 7, 8, 9, 10], [8, 9, 10])]
    assert chunks.num_frames == 11 and not chunks._waiting and not list(chunks.rest())


def test_no_overlap_behind():
    """Of a live source: a chunk is there with its last frame."""
    chunks = Chunks(SIZE, chunk_frames=2, before=3, after=0)
    assert [told(chunk) for chunk in chunks.add(frames(0, 1, 2))] == [([0, 1], [0, 1])]
    assert [told(chunk) for chunk in chunks.add(frames(3))] == [([0, 1, 2, 3], [2, 3])]
    assert [told(chunk) for chunk in chunks.add(frames(4, 5, 6, 7, 8))] == [
        ([1, 2, 3, 4, 5], [4, 5]),
        ([3, 4, 5, 6, 7], [6, 7]),
    ]
    assert [told(chunk) for chunk in chunks.rest()] == [([5, 6, 7, 8], [8])]


def test_what_is_left_may_be_several_chunks():
    chunks = Chunks(SIZE, chunk_frames=2, before=0, after=8)
    assert not list(chunks.add(frames(0, 1, 2, 3, 4)))
    assert [told(chunk) for chunk in chunks.rest()] == [
        ([0, 1, 2, 3, 4], [0, 1]),
        ([2, 3, 4], [2, 3]),
        ([4], [4]),
    ]


@pytest.mark.parametrize('options', [(0, 1, 1), (1, -1, 0), (1, 0, -2)])
def test_sizes_that_do_not_fit(options):
    with pytest.raises(ValueError, match=f'found {options[0]} and {min(options[1:])}'):
        Chunks(SIZE, *options)


@pytest.mark.parametrize('shape', [(1, 3, 2, 4), (0, 3, 2, 3), (3, 2, 3), (1, 4, 2, 3)])
def test_frames_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'expected frames of shape \(t, 3, 2, 3\) with t >= 1, found'):
        list(Chunks(SIZE, 2, 0, 0).add(torch.zeros(shape, dtype=torch.uint8)))
