import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from mmsoc.registry import HOOKS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import atomic_path, safe_file_name


@HOOKS.register_module()
class RVOSVisualizationHook(Hook):
    """Draws predictions during validation and testing: one H.264 video and one contact sheet per video and sentence.

    Files: ``SHOW_DIR/VIDEO/EXPRESSION.mp4`` and ``.png``, names as in `safe_file_name`; from validation in
    ``SHOW_DIR/epoch_N``. Reads ``pred_masks`` and ``pred_scores`` of each ``TrackDataSample``, its metainfo ``texts``,
    ``video_id``, ``exp_ids``, and the frames' ``img_path``.

    Args:
        show_dir: None: draws nothing.
        fps: of the videos; the data sets' annotated frames are 6 per second.
        sheet_frames: maximum number of evenly spread frames in a contact sheet.
        interval: draws every interval-th video.

    Raises:
        ValueError: before the first video, if the config's ``visualizer`` is not an RVOSLocalVisualizer.
    """

    def __init__(
        self, *, show_dir: str | None = None, fps: float = 6, sheet_frames: int = 8, interval: int = 1
    ) -> None:
        if sheet_frames < 1 or interval < 1:
            raise UserError(
                f'RVOSVisualizationHook: expected sheet_frames >= 1 and interval >= 1, found {sheet_frames}, {interval}'
            )
        self.show_dir = show_dir
        self.fps = fps
        self.sheet_frames = sheet_frames
        self.interval = interval

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        self._draw(runner, batch_idx, outputs, f'epoch_{runner.epoch}')

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        self._draw(runner, batch_idx, outputs, '')

    def _draw(self, runner: Runner, batch_idx: int, outputs: Sequence | None, folder: str) -> None:
        if self.show_dir is None or batch_idx % self.interval:
            return
        if not hasattr(runner.visualizer, 'draw_frame'):
            raise UserError(
                f'visualizer.type is {type(runner.visualizer).__name__}: RVOSVisualizationHook (--show-dir) expects '
                'RVOSLocalVisualizer'
            )
        for sample in outputs or ():
            self._draw_video(
                runner.visualizer, sample, Path(self.show_dir) / folder / safe_file_name(str(sample.video_id))
            )

    def _draw_video(self, visualizer: Any, sample: Any, folder: Path) -> None:
        # Imported here: the visualization package needs PyAV and fonts, which a run that draws nothing does not.
        from mmsoc.visualization import VideoWriter, contact_sheet

        folder.mkdir(parents=True, exist_ok=True)
        # If only some frames are annotated, only these have masks.
        frames = list(getattr(sample, 'key_frames_inds', range(len(sample))))
        length = len(frames)
        shown = set(np.linspace(0, length - 1, min(self.sheet_frames, length)).round().astype(int).tolist())
        for i, (text, expression) in enumerate(zip(sample.texts, sample.exp_ids, strict=True)):
            name = safe_file_name(str(expression))
            sheet = []
            with VideoWriter(folder / f'{name}.mp4', fps=self.fps) as video:
                # Frames are read once per sentence: a video's frames at full size need not fit into memory.
                for t, frame in enumerate(frames):
                    image = _read_frame(sample[frame])
                    mask = coco_mask.decode(sample.pred_masks[i][t])
                    drawn = visualizer.draw_frame(image, mask, text, score=float(sample.pred_scores[i]), index=i)
                    video.write(drawn)
                    if t in shown:
                        sheet.append(drawn)
            with atomic_path(folder / f'{name}.png') as temporary:
                mmcv.imwrite(mmcv.rgb2bgr(contact_sheet(sheet, ncols=min(4, len(sheet)))), str(temporary))


def _read_frame(frame: Any) -> np.ndarray:
    """uint8 (H, W, 3) RGB: an image, or the frame ``frame_id`` of a video file (A2D-Sentences)."""
    if (mimetypes.guess_type(frame.img_path)[0] or '').startswith('video/'):
        from mmsoc.datasets.transforms.video_loading import read_window

        return read_window(frame.img_path, [frame.frame_id], frame.frame_id, 'to be drawn')[0][0]
    return mmcv.imread(frame.img_path, channel_order='rgb')
