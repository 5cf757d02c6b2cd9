"""Videos are scored in a thread, in order, and no error is lost."""

import threading

import pytest

from mmsoc.evaluation.background import BackgroundMetric


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
