"""Which frames' queries a live stream keeps for the cluster: the slot ``memory`` of `PredictionConfig`."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.device import to_device
from mmsoc.utils.errors import UserError


class FrameMemory(ABC):
    """A bounded set of frames, of which the queries are kept. It has no state: the stream holds what is kept.

    Args:
        num_frames: how many frames are kept at most. An object query takes 1 KB for the released sizes, a frame of one sentence
            20 KB.

    Raises:
        UserError: ``num_frames`` is below 1.
    """

    def __init__(self, num_frames: int = 96) -> None:
        if num_frames < 1:
            raise UserError(f'model.test_cfg.memory.num_frames={num_frames}: expected at least 1')
        self.num_frames = num_frames

    @abstractmethod
    def kept(self, num_frames: int) -> Tensor:
        """Which of so many frames, in the order of time, are kept: int64, ascending, on the CPU, the newest always among them."""

    def update(self, queries: Tensor | None, new: Tensor) -> Tensor:
        """What is kept (M, F, N, C) after the frames ``new`` (M, T, N, C) came in, all of which are in it."""
        if queries is None:
            return new
        kept = self.kept(queries.shape[1])
        return torch.cat([queries.index_select(1, to_device(kept, queries.device)), new], 1)


@TASK_UTILS.register_module()
class RecentFrames(FrameMemory):
    """The last frames."""

    def kept(self, num_frames: int) -> Tensor:
        return torch.arange(max(num_frames - self.num_frames, 0), num_frames)


@TASK_UTILS.register_module()
class ThinnedFrames(FrameMemory):
    """The last frames, fewer of the older ones, and the first frame.

    When the memory is full, every second frame of its older half goes. The first frame stays; nothing else lasts longer than about
    twice ``num_frames``.
    """

    def kept(self, num_frames: int) -> Tensor:
        kept = torch.arange(num_frames)
        while len(kept) > self.num_frames:
            recent = max(self.num_frames // 2, 1)
            kept = torch.cat([kept[:-recent][::2], kept[-recent:]]) if len(kept) > recent + 1 else kept[-recent:]
        return kept
