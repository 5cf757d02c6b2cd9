"""Scoring in a background thread."""

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric

from mmsoc.utils.errors import UserError


class BackgroundMetric(BaseMetric):
    """A metric that scores videos in a thread while the network predicts the next ones, since contours and PNGs of
    full-size masks are slow.

    Videos are scored one at a time, in order, and at most one more waits. An error is raised by a later `process`, in
    this process only (`abort_on_failure` ends the others), or by `evaluate`, in all processes.
    """

    MOST_WAITING = 2

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._scored: deque[Future] = deque()
        self._thread: ThreadPoolExecutor | None = None

    @abstractmethod
    def score_video(self, sample: dict) -> dict:
        """Computes what ``compute_metrics`` receives for a predicted sample."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends exactly one object per sample: mmengine cuts the collected results to the number of samples."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix='mmsoc-metric')
        for sample in data_samples:
            self._scored.append(self._thread.submit(self.score_video, sample))
            self._take(self.MOST_WAITING)

    def evaluate(self, size: int) -> dict:
        """As mmengine's, once all videos are scored.

        Raises:
            UserError: scoring failed with a UserError in any of several processes; the message names them.
            RuntimeError: the same with any other error. A single process raises its error unchanged.
        """
        try:
            self._raise_together(self._finish())
        except BaseException:
            self.results.clear()  # of this failed evaluation
            raise
        return super().evaluate(size)

    def _finish(self) -> Exception | None:
        """Waits until all videos are scored; returns the error, if any."""
        try:
            self._take(0)
        except Exception as error:
            return error
        finally:
            self._scored.clear()
            if self._thread is not None:
                self._thread.shutdown(cancel_futures=True)
                self._thread = None
        return None

    def _raise_together(self, error: Exception | None) -> None:
        """Shares errors before any process enters mmengine's collectives, where it would wait for a failed one."""
        message = None if error is None else str(error) if isinstance(error, UserError) else repr(error)
        reports = all_gather_object((message, isinstance(error, UserError)))
        failed = {rank: report for rank, report in enumerate(reports) if report[0] is not None}
        if error is not None and len(reports) == 1:
            raise error
        if failed:
            kind = UserError if all(is_user_error for _, is_user_error in failed.values()) else RuntimeError
            causes = '; '.join(f'rank {rank}: {message}' for rank, (message, _) in failed.items())
            raise kind(
                f'{type(self).__name__}: scoring failed in {len(failed)} of {len(reports)} processes: {causes}'
            ) from error

    def _take(self, most: int) -> None:
        """Waits until at most this many videos are unscored."""
        while len(self._scored) > most:
            self.results.append(self._scored.popleft().result())
