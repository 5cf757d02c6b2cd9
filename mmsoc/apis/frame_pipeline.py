from collections.abc import Callable, Iterator, Sequence
from logging import WARNING

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import print_log

from mmsoc.datasets.transforms.loading import LoadCategoryMaps, LoadReferredMasks, LoadVideoFrames
from mmsoc.datasets.transforms.video_loading import LoadA2DMasks, LoadJHMDBMask, LoadVideoWindow
from mmsoc.registry import TRANSFORMS
from mmsoc.utils.errors import UserError

from .model_loading import class_of
from .video_io import FrameSource

LARGE = 1280 * 720
"""pixels of the network's input above which a config without a resize causes a warning"""
_LOADERS = (LoadVideoFrames, LoadVideoWindow, LoadReferredMasks, LoadA2DMasks, LoadJHMDBMask, LoadCategoryMaps)


class FramePipeline:
    """A config's test pipeline without the transforms that read files, for frames in memory.

    Raises:
        UserError: the config has no test pipeline.
    """

    def __init__(self, cfg: Config) -> None:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
            dataset = dataset.get('dataset') or dataset['datasets'][0]  # data set wrappers
        if not dataset.get('pipeline'):
            raise UserError(
                'config key `test_dataloader.dataset.pipeline`: expected the transforms of a test, found none'
            )
        steps = dataset['pipeline']
        self._steps = Compose([step for step in steps if not issubclass(class_of(TRANSFORMS, step['type']), _LOADERS)])

    def pieces(
        self, source: FrameSource, texts: Sequence[str], advance: Callable[[int], None] = lambda count: None
    ) -> Iterator[dict]:
        """Frames at the network's size, a few at a time: ``dict(inputs=uint8 (t, 3, h, w), data_samples=TrackDataSample)``.

        Args:
            source: read to the end.
            texts: E sentences, as the network sees them.
            advance: called with the number of frames processed.

        Raises:
            UserError: a frame cannot be resized to that size.
        """
        height, width = source.size
        # A few frames per pipeline call, fewer if they are large.
        step = min(max(2**26 // (3 * height * width), 1), 8)
        images: list[np.ndarray] = []
        start = 0
        for image in source.read():
            images.append(image)
            if len(images) == step:
                yield self(source, images, start, texts)
                advance(step)
                start += step
                images = []
        if images:
            yield self(source, images, start, texts)
            advance(len(images))

    def __call__(self, source: FrameSource, images: Sequence[np.ndarray], start: int, texts: Sequence[str]) -> dict:
        """Makes an item of `pieces` from ``images``, uint8 (H, W, 3): the frames of ``source`` from ``start`` on."""
        count, shapes = len(images), [image.shape[:2] for image in images]
        indices = list(range(start, start + count))
        sample = dict(
            img=list(images),
            img_path=[source.path or source.kind] * count,
            ori_shape=shapes,
            img_shape=list(shapes),
            scale_factor=[(1.0, 1.0)] * count,
            flip=[False] * count,
            flip_direction=[None] * count,
            video_id=source.path or source.kind,
            frames=[source.name(index) for index in indices],
            frame_ids=indices,
            texts=list(texts),
            exp_ids=[str(index) for index in range(len(texts))],
            obj_ids=None,
            mask_paths=None,
        )
        height, width = source.size
        try:
            packed = self._steps(sample)
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(
                f'{source.path or source.kind}: frames of {width}x{height} cannot be resized to the size of the network '
                f'({error}); is their aspect ratio too extreme? Crop them first'
            ) from error
        if start == 0:
            self._mention_size(source, packed['inputs'].shape[-2:])
        return packed

    def _mention_size(self, source: FrameSource, size: Sequence[int]) -> None:
        height, width = size
        where = f'{source.path or source.kind}: the network sees frames of {width}x{height}'
        if min(size) < 32:
            print_log(f'{where}; below 32 little can be seen in them', logger='current', level=WARNING)
        if (height, width) == source.size and height * width > LARGE:
            print_log(
                f'{where}, since the test pipeline of the config has no ShortSideResize; if this is too slow or runs out of '
                'memory, downscale the video',
                logger='current',
                level=WARNING,
            )
