"""From states to pixels: frames and id maps."""

from typing import NamedTuple

import cv2
import numpy as np

from .scene import COLORS, POLYGONS, Scene, Settings, Thing

_FINE = 3  # 3x3 supersampling: frames take the mean, id maps the middle sample
_DIM = 0.42
_MARK = 0.65  # stripes and dots are darker than their background


class Video(NamedTuple):
    """``frames`` uint8 (T, H, W, 3), RGB; ``ids`` uint8 (T, H, W), 0 is background."""

    frames: np.ndarray
    ids: np.ndarray


def render(rng: np.random.Generator, settings: Settings, scene: Scene) -> Video:
    """Draws a scene; later objects hide earlier ones."""
    background = _background(rng, settings)
    ground = np.repeat(np.repeat(background, _FINE, 0), _FINE, 1)
    frames, ids = [], []
    for t in range(scene.num_frames):
        image = ground.copy()
        labels = np.zeros(image.shape[:2], np.uint8)
        for i, thing in enumerate(scene.things):
            _draw(image, labels, thing, t, i + 1)
        frame = cv2.resize(image, (scene.width, scene.height), interpolation=cv2.INTER_AREA)
        grain = rng.normal(0, settings.level.grain, frame.shape[:2])[..., None] if settings.level.grain else 0
        frames.append((frame + grain).clip(0, 255).round().astype(np.uint8))
        ids.append(labels[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE])
    return Video(np.stack(frames), np.stack(ids))


def _draw(image: np.ndarray, labels: np.ndarray, thing: Thing, t: int, label: int) -> None:
    angle, size = float(np.deg2rad(thing.angle[t])), float(thing.size[t] * _FINE)
    cos, sin = np.cos(angle), np.sin(angle)
    center = np.array([thing.x[t], thing.y[t]]) * _FINE - 0.5  # pixel i covers i-0.5 .. i+0.5
    corners = POLYGONS[thing.shape] @ np.array([[cos, sin], [-sin, cos]]) * size + center
    height, width = labels.shape
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    inside = np.zeros((y1 - y0, x1 - x0), np.uint8)
    bits = 6
    cv2.fillPoly(inside, [np.round((corners - (x0, y0)) * 2**bits).astype(np.int32)], 1, shift=bits)
    color = np.array(COLORS[str(thing.color[t])]) * (1.0 if thing.bright[t] else _DIM)
    window = slice(y0, y1), slice(x0, x1)
    shown = inside.astype(bool)
    labels[window][shown] = label
    image[window][shown] = color.round()
    if thing.texture != 'plain':
        y, x = np.nonzero(shown)
        x, y = (x + x0 - center[0]) / size, (y + y0 - center[1]) / size
        u, v = x * cos + y * sin, y * cos - x * sin  # along the object's axes
        if thing.texture == 'striped':
            mark = np.floor(v * 2.2) % 2 == 0
        else:
            mark = (u * 1.4 % 1 - 0.5) ** 2 + (v * 1.4 % 1 - 0.5) ** 2 < 0.075
        shown[shown] = mark
        image[window][shown] = (color * _MARK).round()


def _background(rng: np.random.Generator, settings: Settings) -> np.ndarray:
    """uint8 (H, W, 3): greys with a slight tint, far from the colour of any object."""
    height, width = settings.height, settings.width
    kind = settings.level.backgrounds[rng.integers(len(settings.level.backgrounds))]
    y, x = np.mgrid[:height, :width] / settings.unit
    if kind == 'plain':
        pattern = np.zeros((height, width))
    elif kind == 'clouds':
        coarse = rng.uniform(-1, 1, (5, 7)).astype(np.float32)
        pattern = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == 'checks':
        pattern = np.where((np.floor(x * rng.uniform(3, 6)) + np.floor(y * rng.uniform(3, 6))) % 2, 0.6, -0.6)
    else:
        angle, wide = rng.uniform(0, np.pi), rng.uniform(4, 8)
        along = x * np.cos(angle) + y * np.sin(angle)
        if kind == 'gradient':
            pattern = (along - along.min()) / np.ptp(along) * 2 - 1
        else:
            pattern = np.sin(along * wide * 2) * 0.8
    grey = rng.uniform(70, 185) + rng.uniform(15, 40) * pattern
    tint = rng.uniform(-10, 10, 3)
    return (grey[..., None] + tint).clip(0, 255).astype(np.uint8)
