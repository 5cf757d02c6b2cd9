from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from PIL import Image
from pycocotools import mask as coco_mask

from mmsoc.datasets.io import atomic_path
from mmsoc.registry import VISUALIZERS

from .drawing import Color, add_caption, draw_box, overlay_mask


@VISUALIZERS.register_module()
class RVOSLocalVisualizer(Visualizer):
    """Draws the referred object and the sentence that names it.

    The backends (``vis_backends``) decide where :meth:`add_datasample` puts a picture.

    Args:
        colors: RGB; sentence i gets color i modulo their number.
        alpha: opacity of a mask.
        contour: width of outlines in pixels, 0 for none; None: a 200th of the frame's short side, at least 1.
    """

    def __init__(
        self,
        name: str = 'visualizer',  # mmengine's manager wants it to be positional
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
        """One frame with mask, box and a caption of the sentence and its score; each part is optional.

        Args:
            image: uint8 (H, W, 3), RGB.
            mask: bool or 0/1 (H, W).
            box: x1 y1 x2 y2 pixels.
            index: chooses the color.

        Returns:
            uint8 (H + caption, W, 3), RGB.
        """
        color = self.colors[index % len(self.colors)]
        contour = max(min(image.shape[:2]) // 200, 1) if self.contour is None else self.contour
        drawn = image if mask is None else overlay_mask(image, mask, color, self.alpha, contour)
        if box is not None:
            drawn = draw_box(drawn, box, color, max(contour, 1))
        if sentence is not None:
            drawn = add_caption(drawn, sentence if score is None else f'{sentence}  ({score:.2f})', color)
        return drawn

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
        """Draws one frame of a ``TrackDataSample``: prediction and ground truth, side by side if both are there.

        Args:
            image: uint8 (H, W, 3), RGB: frame ``frame`` at the size of what is drawn (predictions: the original size;
                ground truth in a training sample: the size after the transforms).
            frame, expression: which frame and which sentence of the sample.
            out_file: writes a picture file and skips the backends.
        """
        pictures = []
        if data_sample is not None:
            sentence = data_sample.texts[expression]
            if draw_gt and 'masks' in data_sample[frame].gt_instances:
                objects = data_sample[frame].gt_instances
                box = objects.bboxes[0].numpy() if bool(objects.visible[0]) else None
                pictures.append(self.draw_frame(image, objects.masks.masks[0], sentence, box=box, index=expression))
            if draw_pred and 'pred_masks' in data_sample:
                mask = coco_mask.decode(data_sample.pred_masks[expression][frame])
                score = float(data_sample.pred_scores[expression])
                pictures.append(self.draw_frame(image, mask, sentence, score=score, index=expression))
        height = max((picture.shape[0] for picture in pictures), default=0)
        padded = [np.pad(picture, ((0, height - picture.shape[0]), (0, 0), (0, 0))) for picture in pictures]
        drawn = np.concatenate(padded, axis=1) if padded else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            with atomic_path(out_file) as temporary:
                Image.fromarray(drawn).save(temporary)
        else:
            self.add_image(name, drawn, step)
