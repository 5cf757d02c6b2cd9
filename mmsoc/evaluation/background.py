"""Scoring beside the network."""

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmengine.evaluator import BaseMetric


class BackgroundMetric(BaseMetric):
    """A metric that works on videos in a thread while the network predicts the next ones: contours and PNGs of full-size masks take
    long.

    One video is scored at a time, in order, and at most one more waits. An error is raised by a later `process`, or by
    `evaluate`.
    """

    MOST_WAITING = 2

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._scored: deque[Future] = deque()
        self._thread: ThreadPoolExecutor | None = None

    @abstractmethod
    def score_video(self, sample: dict) -> dict:
        """What ``compute_metrics`` gets of a predicted sample."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends exactly one object per sample: mmengine cuts the collected results to the number of samples."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix='mmsoc-metric')
        for sample in data_samples:
            self._scored.append(self._thread.submit(self.score_video, sample))
            self._take(self.MOST_WAITING)

    def evaluate(self, size: int) -> dict:
        """As mmengine's, once all videos are scored."""
        try:
            self._take(0)
        except BaseException:
            self.results.clear()  # of this evaluation, which gives nothing
            raise
        finally:
            self._scored.clear()
            if self._thread is not None:
                self._thread.shutdown(cancel_futures=True)
                self._thread = None
        return super().evaluate(size)

    def _take(self, most: int) -> None:
        """Waits until at most so many videos are not scored."""
        while len(self._scored) > most:
            self.results.append(self._scored.popleft().result())
