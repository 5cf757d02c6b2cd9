"""Where mask features wait."""

import os

import pytest
import torch

from mmsoc.inference.features import FeaturesInFile, FeaturesInMemory


@pytest.fixture
def store(tmp_path):
    store = FeaturesInFile(tmp_path)
    yield store
    store.close()


def file_size(store):
    store._file.flush()
    return os.fstat(store._file.fileno()).st_size


def test_numbers_that_float16_does_not_hold(store):
    """float16 ends at 65,504: such a chunk keeps float32, the others do not."""
    small = torch.tensor([[[[0.1, -2.0, 1e-3]]]])
    large = torch.tensor([[[[7e4, -7e4, 0.1]]], [[[3e38, 0.0, 1.0]]]])
    for chunk in (small, large, small):
        store.append(chunk)
    first, second, third = store
    assert torch.equal(second, large)
    assert torch.equal(first, small.half().float()) and torch.equal(third, first) and not torch.equal(first, small)
    assert [chunk.dtype for chunk in (first, second, third)] == [torch.float32] * 3
    assert file_size(store) == 2 * 3 + 4 * 6 + 2 * 3


def test_it_is_read_again_and_goes_on(store, seeded):
    chunks = [torch.randn(frames, 8, 4, 6).half().float() for frames in (3, 1, 2)]
    for count, chunk in enumerate(chunks, 1):
        store.append(chunk)
        for _ in range(2):
            found = list(store)
            assert len(found) == count
            assert all(torch.equal(a, b) for a, b in zip(found, chunks, strict=False))
    # A reader that stopped in between leaves the file as it was.
    next(iter(store))
    store.append(chunks[0])
    assert torch.equal(list(store)[-1], chunks[0]) and len(list(store)) == 4


def test_other_types(store):
    chunk = torch.tensor([[[[1.5, 1e5]]]], dtype=torch.bfloat16)
    store.append(chunk)
    store.append(chunk[..., :1])
    first, second = store
    assert torch.equal(first, chunk.float()) and torch.equal(second, chunk[..., :1].float())


def test_what_is_not_finite_stays_so(store):
    store.append(torch.tensor([[[[float('nan'), float('inf'), 1.0]]]]))
    (found,) = store
    assert found.isnan().flatten().tolist() == [True, False, False] and found.isinf().flatten().tolist()[1]


def test_the_file_goes(tmp_path):
    store = FeaturesInFile(tmp_path)
    store.append(torch.ones(1, 2, 3, 4))
    assert file_size(store) == 2 * 24
    store.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='closed'):
        list(store)


@pytest.mark.parametrize('kind', [FeaturesInFile, FeaturesInMemory])
def test_cleared(kind):
    store = kind()
    store.append(torch.ones(2, 1, 1, 1))
    store.clear()
    assert not list(store)
    store.append(torch.full((1, 1, 1, 1), 3.0))
    (found,) = store
    assert found.tolist() == [[[[3.0]]]]


def test_in_memory_nothing_is_copied():
    store, chunk = FeaturesInMemory(), torch.ones(2, 1, 1, 1)
    store.append(chunk)
    assert [found is chunk for found in store] == [found is chunk for found in store] == [True]
