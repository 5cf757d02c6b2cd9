"""Drawing on RGB frames (uint8 (H, W, 3)); every function returns a new picture."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]


def overlay_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5, contour: int = 2) -> np.ndarray:
    """Tints a mask and draws its outline.

    Args:
        mask: bool or 0/1 (H, W).
        alpha: 0 leaves the picture, 1 covers it.
        contour: line width in pixels, 0 for none.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f'the mask is {mask.shape[1]}x{mask.shape[0]}, but the picture is {image.shape[1]}x{image.shape[0]}'
        )
    inside: np.ndarray = mask.astype(bool)
    drawn = image.copy()
    drawn[inside] = (image[inside] * (1 - alpha) + np.array(color) * alpha).round().astype(np.uint8)
    if contour:
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, color, contour, cv2.LINE_AA)
    return drawn


def draw_box(image: np.ndarray, box: Sequence[float] | np.ndarray, color: Color, width: int = 2) -> np.ndarray:
    """Draws a box given as x1 y1 x2 y2 pixels."""
    drawn = image.copy()
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(drawn, (x1, y1), (x2, y2), color, width)
    return drawn


def add_caption(
    image: np.ndarray, text: str, color: Color = (255, 255, 255), font_size: int | None = None
) -> np.ndarray:
    """Puts a bar with the text under the picture, as high as the wrapped text needs.

    Args:
        color: of a small square before the text, in which the object is drawn, too.
        font_size: in pixels; default: a 16th of the picture's height, 14 to 40.

    Returns:
        uint8 (H + bar, W, 3).
    """
    height, width = image.shape[:2]
    size = font_size or min(max(height // 16, 14), 40)
    font = _font(size)
    margin = max(size // 3, 2)
    left = 2 * margin + size
    lines = wrap_text(text, font, max(width - left - margin, 1))
    line_height = sum(font.getmetrics())
    bar = Image.new('RGB', (width, line_height * len(lines) + 2 * margin), (24, 24, 24))
    draw = ImageDraw.Draw(bar)
    top = margin + max((line_height - size) // 2, 0)
    draw.rectangle((margin, top, margin + size - 1, top + size - 1), fill=color)
    for i, line in enumerate(lines):
        draw.text((left, margin + i * line_height), line, font=font, fill=(255, 255, 255))
    return np.concatenate([image, np.asarray(bar)])


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text into lines not wider than ``width`` pixels, at spaces, and inside of longer words."""
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
    """Arranges pictures row by row in a grid; smaller ones lie in the upper left corner of their cell.

    Returns:
        uint8 (rows, columns, 3).
    """
    if not images or ncols < 1:
        raise ValueError(f'a contact sheet needs at least one picture and one column, found {len(images)} and {ncols}')
    cell_height = max(image.shape[0] for image in images) + gap
    cell_width = max(image.shape[1] for image in images) + gap
    sheet = np.full((-(-len(images) // ncols) * cell_height + gap, ncols * cell_width + gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // ncols * cell_height + gap, i % ncols * cell_width + gap
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib brings this font along; OpenCV's own can only write ASCII
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), size)
