import pytest

from mmsoc.datasets import ShortEpochSampler


def epochs(sampler, number):
    for epoch in range(number):
        sampler.set_epoch(epoch)
        yield list(sampler)


def test_every_sample_is_seen_equally_often():
    # 7 samples in epochs of 4: seven epochs are four whole shuffles.
    sampler = ShortEpochSampler(range(7), epoch_size=4, seed=3)
    taken = [index for epoch in epochs(sampler, 7) for index in epoch]
    assert len(sampler) == 4
    for start in range(0, 28, 7):
        assert sorted(taken[start : start + 7]) == list(range(7))
    assert taken[:7] != taken[7:14]


def test_an_epoch_does_not_depend_on_those_before():
    sampler = ShortEpochSampler(range(7), epoch_size=4, seed=3)
    expected = list(epochs(sampler, 4))[3]
    fresh = ShortEpochSampler(range(7), epoch_size=4, seed=3)
    fresh.set_epoch(3)
    assert list(fresh) == expected


def test_epochs_longer_than_the_data():
    sampler = ShortEpochSampler(range(3), epoch_size=8, seed=0)
    assert sorted(list(sampler)[:6]) == [0, 0, 1, 1, 2, 2]


class Families:
    """Six samples of two families."""

    def __len__(self):
        return 6

    def get_data_info(self, index):
        return dict(families=['easy' if index % 2 else 'hard'])


def test_a_curriculum():
    # Epochs of 3: two of the easy ones alone, each in turn all of them; from then on a row of shuffles of all six.
    sampler = ShortEpochSampler(Families(), epoch_size=3, family_starts=dict(easy=0, hard=2), seed=0)
    taken = list(epochs(sampler, 6))
    assert sorted(taken[0]) == sorted(taken[1]) == [1, 3, 5]
    assert sorted(taken[2] + taken[3]) == sorted(taken[4] + taken[5]) == list(range(6))
    # all from the start is no curriculum at all
    plain = ShortEpochSampler(Families(), epoch_size=3, seed=0)
    assert list(epochs(plain, 4)) == list(
        epochs(ShortEpochSampler(Families(), epoch_size=3, family_starts=dict(easy=0, hard=0), seed=0), 4)
    )


@pytest.mark.parametrize(
    'starts, message',
    [
        (dict(easy=0), r"family_starts names \['easy'\], the families of the data set are \['easy', 'hard'\]"),
        (dict(easy=0, hard=1, odd=2), "names .*'odd'"),
        (dict(easy=1, hard=2), 'must start in epoch 0'),
    ],
)
def test_a_wrong_curriculum(starts, message):
    with pytest.raises(ValueError, match=message):
        ShortEpochSampler(Families(), epoch_size=3, family_starts=starts)


def test_processes_share_an_epoch(monkeypatch):
    parts = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        parts.append(list(ShortEpochSampler(range(10), epoch_size=6, seed=1)))
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, 1))
    assert sorted(parts[0] + parts[1]) == sorted(ShortEpochSampler(range(10), epoch_size=6, seed=1))
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, 4))
    with pytest.raises(ValueError, match=r'multiple of the number of processes \(4\), found 6'):
        ShortEpochSampler(range(10), epoch_size=6)


def test_a_sentence_without_a_family_beside_one_with_a_family():
    class Mixed(Families):
        def get_data_info(self, index):
            return dict(families=[None, 'hard'] if index % 2 else ['hard', None])

    sampler = ShortEpochSampler(Mixed(), epoch_size=3, family_starts={'(none)': 0, 'hard': 2}, seed=0)
    (first,) = epochs(sampler, 1)
    assert set(first) == {1, 3, 5}
