"""Drawing on RGB frames (uint8 (H, W, 3)); every function returns a new image."""

import colorsys
import itertools
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from mmsoc.utils.errors import UserError

Color = tuple[int, int, int]


def check_size(mask: np.ndarray, image: np.ndarray) -> None:
    """Raises ValueError if a mask (H, W) and its image differ in size."""
    if mask.shape != image.shape[:2]:
        raise UserError(
            f'the mask is {mask.shape[1]}x{mask.shape[0]}, but the image is {image.shape[1]}x{image.shape[0]}'
        )


def overlay_mask(
    image: np.ndarray,
    mask: np.ndarray,
    color: Color,
    alpha: float = 0.5,
    contour: int = 2,
    tinted: np.ndarray | None = None,
) -> np.ndarray:
    """Tints a mask and draws its outline.

    Args:
        mask: bool or 0/1 (H, W).
        alpha: opacity of the tint, 0 to 1.
        contour: line width in pixels, 0 for none.
        tinted: bool (H, W), the part of the mask to tint; None: all of it.
    """
    check_size(mask, image)
    inside: np.ndarray = mask.astype(bool)
    part = inside if tinted is None else tinted
    drawn = image.copy()
    drawn[part] = (image[part] * (1 - alpha) + np.array(color) * alpha).round().astype(np.uint8)
    if contour:
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, color, contour, cv2.LINE_AA)
    return drawn


def striped(masks: np.ndarray, width: int) -> np.ndarray:
    """Makes masks disjoint: overlaps are divided in diagonal stripes.

    Args:
        masks: bool (E, H, W).
        width: of a stripe along rows and columns, in pixels.

    Returns:
        bool (E, H, W).
    """
    rows, columns = np.nonzero(np.count_nonzero(masks, 0) > 1)
    shared = masks[:, rows, columns]
    place = shared.cumsum(0) - 1  # rank among the masks of a pixel
    divided = masks.copy()
    divided[:, rows, columns] = shared & (place == (rows + columns) // width % shared.sum(0))
    return divided


def draw_box(image: np.ndarray, box: Sequence[float] | np.ndarray, color: Color, width: int = 2) -> np.ndarray:
    """Draws a box given as x1 y1 x2 y2 pixels."""
    drawn = image.copy()
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(drawn, (x1, y1), (x2, y2), color, width)
    return drawn


def add_caption(
    image: np.ndarray, text: str, color: Color = (255, 255, 255), font_size: int | None = None
) -> np.ndarray:
    """Adds a legend of one line (`add_legend`).

    Args:
        color: of a small square before the text; the object's color.
        font_size: in pixels; default: 1/16 of the image's height, between 14 and 40.

    Returns:
        uint8 (H + bar, W, 3).
    """
    return add_legend(image, [(text, color)], font_size)


def add_legend(image: np.ndarray, entries: Sequence[tuple[str, Color]], font_size: int | None = None) -> np.ndarray:
    """Adds a bar below the image that lists the texts, as high as the wrapped lines need.

    Args:
        entries: texts, and the colors of the small squares before them; the objects' colors.
        font_size: in pixels; default: 1/16 of the image's height, between 14 and 40.

    Returns:
        uint8 (H + bar, W, 3); equal arguments and image sizes give equal bars.
    """
    height, width = image.shape[:2]
    size = font_size or min(max(height // 16, 14), 40)
    return np.concatenate([image, _legend(width, tuple(entries), size)])


@lru_cache(maxsize=8)  # the same for all frames of a video
def _legend(width: int, entries: tuple[tuple[str, Color], ...], size: int) -> np.ndarray:
    font = _font(size)
    margin = max(size // 3, 2)
    left = 2 * margin + size
    wrapped = [wrap_text(text, font, max(width - left - margin, 1)) for text, _ in entries]
    line_height = sum(font.getmetrics())
    bar = Image.new('RGB', (width, line_height * sum(map(len, wrapped)) + 2 * margin), (24, 24, 24))
    draw = ImageDraw.Draw(bar)
    y = margin
    for (_, color), lines in zip(entries, wrapped):
        top = y + max((line_height - size) // 2, 0)
        draw.rectangle((margin, top, margin + size - 1, top + size - 1), fill=color)
        for line in lines:
            draw.text((left, y), line, font=font, fill=(255, 255, 255))
            y += line_height
    return np.asarray(bar)


def distinct_colors(number: int, first: Sequence[Color] = ()) -> list[Color]:
    """Bright colors that are easy to distinguish.

    Args:
        first: the first colors of the list; each further one is chosen as different as possible from all before.

    Returns:
        ``number`` colors, at most 180 of them distinct.
    """
    chosen = list(first)[:number]
    steps = itertools.product(range(30), (1.0, 0.7, 0.4), (1.0, 0.7))
    candidates: np.ndarray = np.array([colorsys.hsv_to_rgb(hue / 30, *rest) for hue, *rest in steps])
    candidates = (255 * candidates).round()
    # Weights of the color distance: green counts most, then blue, then red.
    weights = np.array([2, 4, 3])
    nearest = np.full(len(candidates), np.inf)

    def use(color: Color) -> None:
        np.minimum(nearest, ((candidates - color) ** 2 * weights).sum(1), out=nearest)

    for color in chosen:
        use(color)
    while len(chosen) < number:
        red, green, blue = candidates[nearest.argmax()].astype(int).tolist()
        chosen.append((red, green, blue))
        use(chosen[-1])
    return chosen


def enlarge(image: np.ndarray, times: int) -> np.ndarray:
    """Enlarges an image (H, W, 3) or a mask (H, W): every pixel becomes ``times`` x ``times`` pixels."""
    return image if times == 1 else image.repeat(times, 0).repeat(times, 1)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text into lines of at most ``width`` pixels, at spaces, and inside longer words."""
    lines = ['']
    for word in text.split():
        candidate = f'{lines[-1]} {word}'.strip()
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append('')
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append('')
            lines[-1] += letter
    return lines


def contact_sheet(images: Sequence[np.ndarray], ncols: int, gap: int = 4) -> np.ndarray:
    """Arranges images row by row in a grid; smaller ones are placed in the upper left corner of their cell.

    Returns:
        uint8 (rows, columns, 3).
    """
    if not images or ncols < 1:
        raise UserError(f'a contact sheet needs at least one image and one column, found {len(images)} and {ncols}')
    cell_height = max(image.shape[0] for image in images) + gap
    cell_width = max(image.shape[1] for image in images) + gap
    sheet = np.full((-(-len(images) // ncols) * cell_height + gap, ncols * cell_width + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // ncols * cell_height + gap, i % ncols * cell_width + gap
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships this font; OpenCV's fonts support only ASCII
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)
