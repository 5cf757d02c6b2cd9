from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.registry import VISUALIZERS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path

from .drawing import (
    Color,
    add_caption,
    add_legend,
    check_size,
    distinct_colors,
    draw_box,
    enlarge,
    overlay_mask,
    striped,
)

MIN_WIDTH = 320
"""width in pixels below which frames are enlarged, to make room for a legend"""


@VISUALIZERS.register_module()
class RVOSLocalVisualizer(Visualizer):
    """Draws the referred object and the sentence that names it.

    The backends (``vis_backends``) decide where `add_datasample` stores images.

    Args:
        colors: RGB, of sentences 0, 1, ...; further sentences get generated colors (`color_of`).
        alpha: opacity of a mask.
        contour: width of outlines in pixels, 0 for none; None: 1/200 of the frame's short side, at least 1.
    """

    def __init__(
        self,
        name: str = 'visualizer',  # mmengine's manager passes it by position
        *,
        image: np.ndarray | None = None,
        vis_backends: list[dict] | dict | None = None,
        save_dir: str | None = None,
        colors: tuple[Color, ...] = (
            (255, 64, 64),
            (64, 160, 255),
            (64, 220, 96),
            (255, 200, 0),
            (220, 96, 255),
            (0, 220, 220),
            (255, 128, 0),
            (160, 160, 255),
        ),
        alpha: float = 0.5,
        contour: int | None = None,
    ) -> None:
        super().__init__(name=name, image=image, vis_backends=vis_backends, save_dir=save_dir)
        self.colors: list[Color] = [(color[0], color[1], color[2]) for color in colors]
        self.alpha = alpha
        self.contour = contour

    def draw_frame(
        self,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        sentence: str | None = None,
        *,
        box: np.ndarray | None = None,
        score: float | None = None,
        index: int = 0,
    ) -> np.ndarray:
        """Draws a mask, a box and a caption of the sentence and its score on a frame; each part is optional.

        Args:
            image: uint8 (H, W, 3), RGB.
            mask: bool or 0/1 (H, W).
            box: x1 y1 x2 y2 pixels.
            index: chooses the color.

        Returns:
            uint8 (H + caption, W, 3), RGB.
        """
        color = self.color_of(index)
        contour = self._contour_of(image)
        drawn = image if mask is None else overlay_mask(image, mask, color, self.alpha, contour)
        if box is not None:
            drawn = draw_box(drawn, box, color, max(contour, 1))
        if sentence is not None:
            drawn = add_caption(drawn, sentence if score is None else f'{sentence}  ({score:.2f})', color)
        return drawn

    def draw_sentences(
        self,
        image: np.ndarray,
        masks: Sequence[np.ndarray] | np.ndarray,
        sentences: Sequence[str],
        *,
        scores: Sequence[float] | None = None,
        zoom: int | None = None,
    ) -> np.ndarray:
        """Draws the masks of E sentences on a frame, each in its own color, and a legend of the sentences.

        Pixels shared by several sentences get stripes in their colors.

        Args:
            image: uint8 (H, W, 3), RGB.
            masks: bool or 0/1 (E, H, W).
            sentences: E.
            scores: E numbers that the legend shows.
            zoom: factor by which the image is enlarged first, so that the legend has room; None: the one that makes it
                at least 320 pixels wide.

        Returns:
            uint8 (zoom * H + legend, zoom * W, 3), RGB. Equal sentences, scores and sizes give images of equal size, as
            the frames of a video must have.

        Raises:
            ValueError: the numbers of masks, scores and sentences differ, or a mask has the wrong size.
        """
        if len(masks) != len(sentences) or (scores is not None and len(scores) != len(sentences)):
            raise UserError(
                f'draw_sentences: {len(sentences)} sentences, but {len(masks)} masks'
                + ('' if scores is None else f' and {len(scores)} scores')
            )
        zoom = zoom or -(-MIN_WIDTH // image.shape[1])
        drawn = enlarge(image, zoom)
        contour = self._contour_of(drawn)
        self.color_of(len(sentences) - 1)  # generates all needed colors at once
        for mask in masks:
            check_size(mask, image)
        # Drawing copies the image, and most masks of a long list are empty.
        seen = {index: enlarge(np.asarray(mask, bool), zoom) for index, mask in enumerate(masks) if mask.any()}
        if seen:
            parts = striped(np.stack([*seen.values()]), max(min(drawn.shape[:2]) // 40, 2))
            for (index, mask), part in zip(seen.items(), parts):
                drawn = overlay_mask(drawn, mask, self.color_of(index), self.alpha, contour, tinted=part)
        shown = sentences if scores is None else [f'{text}  ({score:.2f})' for text, score in zip(sentences, scores)]
        # Smaller than a caption: it has many lines, which are short for a portrait video.
        font_size = min(max(min(drawn.shape[:2]) // 20, 14), 32)
        return add_legend(drawn, [(text, self.color_of(index)) for index, text in enumerate(shown)], font_size)

    def color_of(self, index: int) -> Color:
        """The color of sentence ``index``: a given one, or a generated one unlike those before."""
        if index >= len(self.colors):
            self.colors = distinct_colors(index + 1, self.colors)
        return self.colors[index]

    def _contour_of(self, image: np.ndarray) -> int:
        return max(min(image.shape[:2]) // 200, 1) if self.contour is None else self.contour

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        *,
        frame: int = 0,
        expression: int = 0,
    ) -> None:
        """Draws one frame of a ``TrackDataSample``: prediction and ground truth, side by side if both exist.

        Args:
            image: uint8 (H, W, 3), RGB: frame ``frame`` at the size of the drawn masks (predictions: the original size;
                ground truth in a training sample: the size after the transforms).
            frame, expression: which frame and which sentence of the sample.
            out_file: write to this image file instead of the backends.
        """
        panels = []
        if data_sample is not None:
            sentence = data_sample.texts[expression]
            if draw_gt and 'masks' in data_sample[frame].gt_instances:
                objects = data_sample[frame].gt_instances
                box = objects.bboxes[0].numpy() if bool(objects.visible[0]) else None
                panels.append(self.draw_frame(image, objects.masks.masks[0], sentence, box=box, index=expression))
            if draw_pred and 'pred_masks' in data_sample:
                mask = coco_mask.decode(data_sample.pred_masks[expression][frame])
                score = float(data_sample.pred_scores[expression])
                panels.append(self.draw_frame(image, mask, sentence, score=score, index=expression))
        height = max((panel.shape[0] for panel in panels), default=0)
        padded = [np.pad(panel, ((0, height - panel.shape[0]), (0, 0), (0, 0))) for panel in panels]
        drawn = np.concatenate(padded, axis=1) if padded else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            with atomic_path(out_file) as temporary:
                Image.fromarray(drawn).save(temporary)
        else:
            self.add_image(name, drawn, step)
