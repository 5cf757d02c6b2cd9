"""The videos of MovingShapes that the twins are made of."""

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
# With fewer colours Pillow writes 4 bits per pixel, into which 255 does not fit.
FULL_PALETTE = [*PALETTE, *[0] * (3 * VOID - len(PALETTE)), 224, 224, 192]


class Clip:
    """A video of MovingShapes; objects are known by their number, from 0."""

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
        """Hexadecimal digits by which the video is told from others."""
        return hashlib.sha256(repr(self.seed).encode()).hexdigest()[:length]

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([*self.seed, *purpose.encode()])

    def masks(self, number: int) -> np.ndarray:
        """bool (T, H, W)"""
        return self.ids == number + 1

    def texts(self, claim: Expression, count: int, purpose: str) -> list[str]:
        """The claim in several wordings, which may repeat."""
        rng = self.rng(f'{purpose} {self.claims.index(claim)}')
        return [sentence(rng, claim) for _ in range(count)]


class Source:
    """The videos from which the twins of one run are made; each is drawn once."""

    def __init__(self, settings: Settings, public: bool) -> None:
        self.settings = settings
        self.public = public
        self.clip = lru_cache(maxsize=None)(lambda split, index: Clip(settings, split, index))
        self.num_train, self.num_valid = settings.train_videos, settings.valid_videos

    def clips(
        self, split: str, count: int, part: int = 0, fits: Callable[[Clip], bool] = lambda clip: True
    ) -> list[Clip]:
        """The first ``count`` videos that fit; ``part`` 1, 2, ... are further ones, which part 0 does not have."""
        found: list[Clip] = []
        index = 1000 * part
        while len(found) < count:
            clip = self.clip(split, index)
            found += [clip] if fits(clip) else []
            index += 1
        return found


def save_pictures(folder: Path, names: Sequence[str], pictures: Iterable[np.ndarray], suffix: str) -> None:
    """RGB (H, W, 3), or id maps (H, W), which get the palette of DAVIS."""
    folder.mkdir(parents=True)
    for name, pixels in zip(names, pictures, strict=True):
        image = Image.fromarray(pixels)
        if pixels.ndim == 2:
            image.putpalette(FULL_PALETTE)
        image.save(folder / f'{name}{suffix}', **dict(quality=95, subsampling=0) if suffix == '.jpg' else {})
