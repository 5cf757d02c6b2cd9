"""Choice of the queries whose masks a sentence gets: the slot ``selector`` of `PredictionConfig`."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError


class Selection(NamedTuple):
    """The queries whose masks are decoded: Q for each of M sentences and T frames."""

    queries: Tensor
    """(M, T, Q) int64"""
    scores: Tensor
    """(M, T, Q) float32 in [0, 1]"""


class RunningScores(NamedTuple):
    """A live stream's statistics of all frames so far."""

    total: Tensor
    """(M, N, K) float32, the sum of the class scores over the frames; a scalar 0 before the first"""
    num_frames: int

    def add(self, logits: Tensor) -> 'RunningScores':
        """Updated with the frames of ``logits`` (M, T, N, K)."""
        return RunningScores(self.total + logits.float().sigmoid().sum(1), self.num_frames + logits.shape[1])


class QuerySelector(ABC):
    """Chooses queries by their class scores."""

    single = True
    """Whether it chooses one query per frame (Q = 1)."""

    @abstractmethod
    def __call__(self, logits: Tensor, so_far: RunningScores | None = None) -> Selection:
        """
        Args:
            logits: (M, T, N, K), class logits.
            so_far: the scores of these frames and all before them; None if these are all.
        """


def _video_scores(logits: Tensor, so_far: RunningScores | None) -> tuple[Tensor, Tensor]:
    """A query's score is its best class's mean over the frames: (M, N) float32 in [0, 1], and that class, (M, N) int64."""
    mean_MNK = logits.float().sigmoid().mean(1) if so_far is None else so_far.total / so_far.num_frames
    return mean_MNK.max(-1)


@TASK_UTILS.register_module()
class QueryPerVideo(QuerySelector):
    """The query with the highest score, averaged over all frames: one for the whole video, as in the paper."""

    def __call__(self, logits: Tensor, so_far: RunningScores | None = None) -> Selection:
        score_MN, class_MN = _video_scores(logits, so_far)
        query = score_MN.argmax(1)
        sentence = torch.arange(len(query), device=query.device)
        # A slice between index tensors: their dimension comes first.
        score_MT = logits[sentence, :, query, class_MN[sentence, query]].float().sigmoid()
        return Selection(query[:, None].expand_as(score_MT)[..., None], score_MT[..., None])


@TASK_UTILS.register_module()
class QueryPerFrame(QuerySelector):
    """In each frame the query with the highest score there; through the cluster all frames influence the scores."""

    def __call__(self, logits: Tensor, so_far: RunningScores | None = None) -> Selection:
        score_MT, query_MT = logits.float().sigmoid().amax(-1).max(-1)
        return Selection(query_MT[..., None], score_MT[..., None])


@TASK_UTILS.register_module()
class QueryByLength(QuerySelector):
    """`QueryPerVideo` for videos and clips of up to ``max_frames`` frames, as in the paper; `QueryPerFrame` for longer ones.

    In a long video another query may take over an object that moves, and the first one's masks are then empty. A live
    stream's length is that of all frames so far.

    Args:
        max_frames: by default the clip length of the published protocol of Ref-DAVIS17, which is also that of the longest
            video of Ref-YouTube-VOS's validation split.
    """

    def __init__(self, max_frames: int = 36) -> None:
        if max_frames < 1:
            raise UserError(f'model.test_cfg.selector.max_frames={max_frames}: expected at least 1')
        self.max_frames = max_frames
        self._short, self._long = QueryPerVideo(), QueryPerFrame()

    def __call__(self, logits: Tensor, so_far: RunningScores | None = None) -> Selection:
        num_frames = logits.shape[1] if so_far is None else so_far.num_frames
        return (self._short if num_frames <= self.max_frames else self._long)(logits, so_far)


@TASK_UTILS.register_module()
class AllQueries(QuerySelector):
    """All queries, as average precision needs them (`A2DMetric`). Only for clips with one annotated frame."""

    single = False

    def __call__(self, logits: Tensor, so_far: RunningScores | None = None) -> Selection:
        _, class_MN = _video_scores(logits, so_far)
        scores = logits.take_along_dim(class_MN[:, None, :, None], -1)[..., 0].float().sigmoid()
        return Selection(torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape), scores)
