"""The frames whose queries a live stream keeps for the cluster: the slot ``memory`` of `PredictionConfig`."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError


class KeptFrames(NamedTuple):
    """The frame queries that a live stream holds for the cluster."""

    queries: Tensor
    """(M, F, N, C)"""
    numbers: Tensor
    """(F,) int64 on the CPU, the number of each frame in the stream, ascending"""


class FrameMemory(ABC):
    """A bounded set of frames whose queries are kept. It is stateless: the stream holds the queries.

    Args:
        num_frames: maximum number of frames. At the released sizes an object query takes 1 KB, a frame of one sentence
            20 KB.

    Raises:
        UserError: ``num_frames`` is below 1.
    """

    def __init__(self, num_frames: int = 96) -> None:
        if num_frames < 1:
            raise UserError(f'model.test_cfg.memory.num_frames={num_frames}: expected at least 1')
        self.num_frames = num_frames

    @abstractmethod
    def kept(self, numbers: Tensor) -> Tensor:
        """Chooses the frames to keep.

        Args:
            numbers: (F,) int64 on the CPU, the number in the stream of each candidate frame, ascending.

        Returns:
            Their indices in ``numbers``, int64, ascending, at most ``num_frames``, always including the newest.
        """

    def update(self, before: KeptFrames | None, new: Tensor) -> KeptFrames:
        """Adds all new frames, and drops as many of the frames ``before`` as necessary.

        Args:
            before: None at the start of a stream.
            new: (M, T, N, C).
        """
        if before is None:
            return KeptFrames(new, torch.arange(new.shape[1]))
        kept = self.kept(before.numbers)
        queries = before.queries.index_select(1, to_device(kept, new.device))
        numbers = int(before.numbers[-1]) + 1 + torch.arange(new.shape[1])
        return KeptFrames(torch.cat([queries, new], 1), torch.cat([before.numbers[kept], numbers]))


@TASK_UTILS.register_module()
class RecentFrames(FrameMemory):
    """The last frames."""

    def kept(self, numbers: Tensor) -> Tensor:
        return torch.arange(max(len(numbers) - self.num_frames, 0), len(numbers))


@TASK_UTILS.register_module()
class ThinnedFrames(FrameMemory):
    """The last frames, and a thinned history back to the first: the older, the sparser.

    Half of the frames are the last ones. Of the others, except the first, the one that leaves the smallest gap relative
    to its age is dropped: gaps grow in proportion to age, so events at the start still count after thousands of frames.
    """

    def kept(self, numbers: Tensor) -> Tensor:
        kept = torch.arange(len(numbers))
        recent = max(self.num_frames // 2, 1)
        while len(kept) > self.num_frames:
            at = numbers[kept]
            gaps, ages = at[2:] - at[:-2], at[-1] - at[1:-1]  # of all but the first and the last
            older = len(kept) - recent - 1
            dropped = 1 + int((gaps[:older] / ages[:older]).argmin()) if older > 0 else 0
            kept = torch.cat([kept[:dropped], kept[dropped + 1 :]])
        return kept
