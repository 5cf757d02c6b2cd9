"""A few videos to look at: one of each family, longer and larger than those of the set."""

from typing import NamedTuple

import numpy as np

from .scene import FAMILIES, Settings
from .writer import draw_video

SETTINGS = Settings(seed=11, width=384, height=256, num_frames=16)
FPS = 8
# Of the valid split; video i is of family i % 4. soc-mini segments them well.
_VIDEOS = (4, 9, 14, 7)


class Sample(NamedTuple):
    """``name``: of the family; ``frames``: uint8 (T, H, W, 3), RGB; ``texts``: the video's sentences."""

    name: str
    frames: np.ndarray
    texts: list[str]


def sample_videos() -> list[Sample]:
    """The same four at each call: 16 frames of 384x256, to be shown at `FPS`."""
    samples = []
    for index in _VIDEOS:
        scene, video = draw_video(SETTINGS, 'valid', index)
        texts = [expression.text for expression in scene.expressions]
        samples.append(Sample(FAMILIES[index % len(FAMILIES)], video.frames, texts))
    return samples
