"""Choice of a video's frames for training clips.

A clip sampler has two methods. ``split`` runs once, when the data set is loaded, and splits an expression into items;
``draw`` runs each time an item is fetched and returns its frames. Frames are indices into the video's sorted frame
list.
"""

from collections.abc import Sequence

import numpy as np

from mmsoc.registry import TASK_UTILS
from mmsoc.utils.errors import UserError


@TASK_UTILS.register_module()
class WindowClipSampler:
    """Consecutive windows without overlap, as in MTTR and SOC; deterministic.

    A short last window becomes the last ``num_frames`` frames (and so overlaps the previous one); a video shorter than
    a window repeats its last frame. A window that never shows the object is no item.
    """

    def __init__(self, *, num_frames: int = 8) -> None:
        if num_frames < 1:
            raise UserError(f'WindowClipSampler: num_frames must be at least 1, found {num_frames}')
        self.num_frames = num_frames

    def split(self, present: Sequence[bool]) -> list[list[int]]:
        """
        Args:
            present: for every frame of the video, whether it shows the object.

        Returns:
            The windows, each a list of ``num_frames`` frame indices.
        """
        length, size = len(present), self.num_frames
        if length < size:
            windows = [[min(i, length - 1) for i in range(size)]]
        else:
            starts = [min(start, length - size) for start in range(0, length, size)]
            windows = [list(range(start, start + size)) for start in starts]
        return [window for window in windows if any(present[i] for i in window)]

    def draw(self, clip: Sequence[int], video_length: int) -> list[int]:
        """Returns the window itself."""
        return list(clip)


@TASK_UTILS.register_module()
class SparseClipSampler:
    """ReferFormer's sampling: an anchor frame, a near frame on each side, and frames from the rest of the video.

    There is one item per expression and anchor 0, n, 2n, ... (n = ``num_frames``). The neighbours are 1 to 3 frames
    away and clamped to the video; the other n - 3 frames are drawn without replacement from before the earliest and
    *from* the latest of the three (which can therefore repeat), or from all frames where that leaves too few, or repeat
    the whole video where even that is too short. The frames are sorted. Random numbers come from numpy's global
    generator.
    """

    def __init__(self, *, num_frames: int = 5) -> None:
        if num_frames != 1 and num_frames < 3:
            raise UserError(
                'SparseClipSampler: num_frames must be 1 (the anchor alone) or at least 3 (the anchor and a '
                f'neighbour on each side), found {num_frames}'
            )
        self.num_frames = num_frames

    def split(self, present: Sequence[bool]) -> list[list[int]]:
        """Returns the anchors, each as a list of one frame index.

        The anchor need not show the object: a drawn clip that never shows it is replaced during packing.
        """
        return [[anchor] for anchor in range(0, len(present), self.num_frames)]

    def draw(self, clip: Sequence[int], video_length: int) -> list[int]:
        """Returns ``num_frames`` sorted frame indices around the anchor ``clip[0]``."""
        anchor = clip[0]
        if self.num_frames == 1:
            return [anchor]
        before, after = np.random.randint(1, 4, size=2).tolist()
        local = [anchor, max(0, anchor - before), min(video_length - 1, anchor + after)]
        num_global = self.num_frames - 3
        candidates = [*range(min(local)), *range(max(local), video_length)]
        if len(candidates) <= num_global:
            candidates = list(range(video_length))
        if len(candidates) >= num_global:
            others = np.random.choice(candidates, num_global, replace=False).tolist()
        else:
            others = [i % video_length for i in range(num_global)]
        return sorted(local + others)
