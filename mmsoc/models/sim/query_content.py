"""What the queries of the frame-level decoder hold before its first layer."""

from mmengine.model import BaseModule
from torch import Tensor

from mmsoc.registry import MODELS


@MODELS.register_module()
class ZeroContent(BaseModule):
    """Nothing, as in Deformable DETR and SOC."""

    def forward(self, sentence: Tensor, num_frames: int, num_queries: int) -> Tensor:
        """
        Args:
            sentence: (M, C).
            num_frames: T.
            num_queries: N.

        Returns:
            (M*T, N, C).
        """
        num_sentences, channels = sentence.shape
        return sentence.new_zeros((num_sentences * num_frames, num_queries, channels))


@MODELS.register_module()
class SentenceContent(BaseModule):
    """The sentence's feature, the same for all queries and frames, as in ReferFormer (its section 3.2)."""

    def forward(self, sentence: Tensor, num_frames: int, num_queries: int) -> Tensor:
        """As `ZeroContent`."""
        return sentence.repeat_interleave(num_frames, 0)[:, None].expand(-1, num_queries, -1)
