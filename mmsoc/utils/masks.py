"""Masks and their run-length codes."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

MAX_DIGITS = 7
"""maximum number of digits of a run: 35 bits"""


def run_totals(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The number of pixels that COCO run-length codes describe, and the number that are set.

    pycocotools does not check the former: for a code that is too short it returns uninitialized memory, or never
    returns.

    The format (``maskApi.c``): a run is a number of 5-bit digits, lowest first, each plus 48 and, except the last, plus
    32; bit 16 of the last one is the sign. Runs alternate between 0 and 1, starting with 0; from the fourth on, a
    number is the difference to the run two places before. So each later run of the same value repeats what a number
    adds to the total.

    Args:
        texts: the ``counts`` of N codes.

    Returns:
        int64 (N,) each; the total is -1 if the text is not such a code.
    """
    lengths = np.array([max(len(text), 1) for text in texts])
    ends = np.cumsum(lengths)
    digits = np.frombuffer(b''.join(text or b'0' for text in texts), np.uint8) - np.uint8(48)
    wrong = digits > 63  # includes characters below 48
    last = (digits & 32) == 0
    wrong[ends - 1] |= ~last[ends - 1]
    last[ends - 1] = True
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])
    num_digits = stops - starts + 1
    wrong[starts[num_digits > MAX_DIGITS]] = True
    num_digits = np.minimum(num_digits, MAX_DIGITS)

    values = (digits & 31).astype(np.int64)
    numbers = values[starts]
    for place in range(1, MAX_DIGITS):
        longer = np.flatnonzero(num_digits > place)
        numbers[longer] += values[starts[longer] + place] << 5 * place
    negative = np.flatnonzero(digits[stops] & 16)
    numbers[negative] -= np.int64(1) << 5 * num_digits[negative]

    num_runs = np.add.reduceat(last, ends - lengths, dtype=np.int64)
    run_starts = np.cumsum(num_runs) - num_runs
    index = np.arange(len(numbers)) - np.repeat(run_starts, num_runs)
    pixels = numbers * ((np.repeat(num_runs, num_runs) + 1 - index) // 2)
    pixels[run_starts] = numbers[run_starts]  # the third number is a run itself, not a difference to the first
    totals = np.add.reduceat(pixels, run_starts)
    areas = np.add.reduceat(pixels * (index % 2), run_starts)
    bad = np.logical_or.reduceat(wrong, ends - lengths) | np.array([not text for text in texts])
    return np.where(bad, -1, totals), np.where(bad, 0, areas)


def json_codes(masks: np.ndarray) -> list[dict]:
    """COCO's run-length codes of bool (n, H, W), with ``counts`` as a string, as JSON needs it."""
    codes = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return [dict(size=[*map(int, code['size'])], counts=code['counts'].decode()) for code in codes]


def box_of_mask(mask: np.ndarray) -> np.ndarray:
    """Box of a mask (H, W): float32 (4,), x1 y1 x2 y2 = first and *last* set column and row; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)
