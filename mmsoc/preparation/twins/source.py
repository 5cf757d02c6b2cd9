"""The MovingShapes videos from which twins are made."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mmsoc.preparation.moving_shapes import Expression, Settings, Thing, draw_video
from mmsoc.preparation.moving_shapes.sentences import sentence
from mmsoc.preparation.moving_shapes.writer import PALETTE, pixel_counts

VOID = 255
# With fewer colours Pillow writes 4 bits per pixel, which cannot hold 255.
FULL_PALETTE = [*PALETTE, *[0] * (3 * VOID - len(PALETTE)), 224, 224, 192]


class Clip:
    """A MovingShapes video; objects are numbered from 0."""

    def __init__(self, settings: Settings, split: str, index: int) -> None:
        self.scene, video = draw_video(settings, split, index)
        self.seed = (settings.seed, ('train', 'valid').index(split), index)
        self.index = index
        self.frames, self.ids = video
        self.areas = pixel_counts(self.ids, len(self.scene.things))
        """pixels (number of objects, T)"""
        self.claims = self.scene.expressions
        self.targets = [self.number(claim.target) for claim in self.claims]

    def number(self, thing: Thing) -> int:
        return self.scene.things.index(thing)

    def code(self, length: int) -> str:
        """Hexadecimal digits that identify the video."""
        return hashlib.sha256(repr(self.seed).encode()).hexdigest()[:length]

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *purpose.encode()])

    def masks(self, number: int) -> np.ndarray:
        """bool (T, H, W)"""
        return self.ids == number + 1

    def texts(self, claim: Expression, count: int, purpose: str) -> list[str]:
        """Several wordings of the claim, possibly repeated."""
        rng = self.rng(f'{purpose} {self.claims.index(claim)}')
        return [sentence(rng, claim) for _ in range(count)]


class Source:
    """The videos from which one run's twins are made; each is rendered once."""

    def __init__(self, settings: Settings, public: bool) -> None:
        self.settings = settings
        self.public = public
        self.clip = lru_cache(maxsize=None)(lambda split, index: Clip(settings, split, index))
        self.num_train, self.num_valid = settings.train_videos, settings.valid_videos

    def clips(
        self, split: str, count: int, part: int = 0, fits: Callable[[Clip], bool] = lambda clip: True
    ) -> list[Clip]:
        """The first ``count`` videos for which ``fits`` holds; ``part`` 1, 2, ... are disjoint from part 0."""
        found: list[Clip] = []
        index = 1000 * part
        while len(found) < count:
            clip = self.clip(split, index)
            found += [clip] if fits(clip) else []
            index += 1
        return found


def save_images(folder: Path, names: Sequence[str], images: Iterable[np.ndarray], suffix: str) -> None:
    """Saves RGB (H, W, 3), or id maps (H, W) with the palette of DAVIS."""
    folder.mkdir(parents=True)
    for name, pixels in zip(names, images, strict=True):
        image = Image.fromarray(pixels)
        if pixels.ndim == 2:
            image.putpalette(FULL_PALETTE)
        image.save(folder / f'{name}{suffix}', **dict(quality=95, subsampling=0) if suffix == '.jpg' else {})
