from typing import Any

from mmdet.models import TrackDataPreprocessor
from torch import Tensor

from mmsoc.registry import MODELS
from mmsoc.utils.device import to_device


@MODELS.register_module()
class ClipDataPreprocessor(TrackDataPreprocessor):
    """mmdet's ``TrackDataPreprocessor``, but moves only the frames to the device, not the samples.

    A sample holds the masks, boxes and labels of each frame in separate tensors; moving them one by one would make the
    host wait for the device each time. `SOC` stacks them and moves them at once.

    Args:
        test_pad_size_divisor: ``pad_size_divisor`` outside of training; None: the same.
        kwargs: of ``TrackDataPreprocessor``.
    """

    pad_size_divisor: int

    def __init__(self, *args: Any, test_pad_size_divisor: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._divisors = self.pad_size_divisor, test_pad_size_divisor or self.pad_size_divisor

    def forward(self, data: dict, training: bool = False) -> dict:
        """As in ``TrackDataPreprocessor``."""
        self.pad_size_divisor = self._divisors[0 if training else 1]
        return super().forward(data, training)

    def cast_data(self, data: Any) -> Any:
        """
        Args:
            data: ``inputs``, a list of uint8 (T, 3, h, w), and ``data_samples``.
        """
        inputs = data['inputs']
        moved = (
            to_device(inputs, self.device)
            if isinstance(inputs, Tensor)
            else [to_device(x, self.device) for x in inputs]
        )
        return {**data, 'inputs': moved}
