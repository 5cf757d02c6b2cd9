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
    """

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
