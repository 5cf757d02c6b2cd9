"""Videos are scored in a thread, in order, and no error is lost."""

import json
import os
import threading
from datetime import timedelta

import pytest

from mmsoc.evaluation.background import BackgroundMetric
from mmsoc.utils.errors import UserError
from tests.ranks import assert_ended_well, run_on_ranks


class Names(BackgroundMetric):
    def __init__(self):
        super().__init__()
        self.threads, self.released = set(), threading.Event()

    def score_video(self, sample):
        self.threads.add(threading.get_ident())
        if sample['name'] == 'slow':
            assert self.released.wait(10)
        if sample['name'] == 'bad':
            raise ValueError('video bad: no masks')
        return sample['name']

    def compute_metrics(self, results):
        return dict(names=results)


def test_the_caller_does_not_wait_and_the_order_stays():
    metric = Names()
    for _ in range(2):  # an evaluation in each epoch
        metric.released.clear()
        metric.process(None, [dict(name='slow')])
        metric.process(None, [dict(name='b')])  # returns while the first one is at work
        assert metric.results == []
        metric.released.set()
        metric.process(None, [dict(name='c'), dict(name='d')])
        assert metric.evaluate(4) == dict(names=['slow', 'b', 'c', 'd'])
        assert not any(thread.name.startswith('mmsoc-metric') for thread in threading.enumerate())
    assert threading.get_ident() not in metric.threads


def test_no_more_than_two_wait():
    metric = Names()
    metric.process(None, [dict(name='slow'), dict(name='b')])
    blocked = threading.Thread(target=metric.process, args=(None, [dict(name='c')]))
    blocked.start()
    blocked.join(0.3)
    assert blocked.is_alive()
    metric.released.set()
    blocked.join(10)
    assert metric.evaluate(3) == dict(names=['slow', 'b', 'c'])


def test_errors_come_back():
    metric = Names()
    metric.process(None, [dict(name='bad')])
    with pytest.raises(ValueError, match='video bad: no masks'):
        metric.evaluate(1)
    metric.process(None, [dict(name='good')])
    assert metric.evaluate(1) == dict(names=['good'])
    with pytest.raises(ValueError, match='video bad: no masks'):
        metric.process(None, [dict(name='bad'), *[dict(name='good')] * 3])


def evaluate_on(rank, folder, names, kind):
    """Two videos on each rank; ``names`` are those whose scoring fails, with an error of this class."""
    import torch.distributed as dist

    class Failing(Names):
        def score_video(self, sample):
            if sample['name'] in names:
                raise kind(f'video {sample["name"]}: no masks')
            return sample['name']

    os.chdir(folder)  # mmengine collects results below it
    dist.init_process_group('gloo', timeout=timedelta(seconds=20))
    metric = Failing()
    metric.process(None, [dict(name=f'{place}{rank}') for place in 'ab'])
    error = '', ''
    try:
        metric.evaluate(4)
    except Exception as raised:
        error = type(raised).__name__, str(raised), type(raised.__cause__).__name__
    after = len(metric.results)
    # The processes are still in step: the next evaluation succeeds.
    names = ()
    metric.process(None, [dict(name=f'{place}{rank}') for place in 'cd'])
    (folder / f'error{rank}.json').write_text(json.dumps([error, after, metric.evaluate(4)['names']]))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ('names', 'kind', 'expected'),
    [
        (['b1'], UserError, ('UserError', '1 of 2 processes: rank 1: video b1: no masks', ['NoneType', 'UserError'])),
        (
            ['b0'],
            OSError,
            ('RuntimeError', "1 of 2 processes: rank 0: OSError('video b0: no masks')", ['OSError', 'NoneType']),
        ),
        (
            ['a0', 'b1'],
            UserError,
            (
                'UserError',
                '2 of 2 processes: rank 0: video a0: no masks; rank 1: video b1: no masks',
                ['UserError', 'UserError'],
            ),
        ),
    ],
    ids=['rank 1', 'rank 0', 'both'],
)
def test_an_error_in_one_process_is_raised_in_all(tmp_path, names, kind, expected):
    ended = run_on_ranks(evaluate_on, tmp_path, names, kind, folder=tmp_path)
    assert_ended_well(ended)
    name, message, causes = expected
    for rank in range(2):
        error, left, scored = json.loads((tmp_path / f'error{rank}.json').read_text())
        assert error == [name, f'Failing: scoring failed in {message}', causes[rank]]
        assert left == 0 and scored == ['c0', 'c1', 'd0', 'd1']
