from abc import ABCMeta, abstractmethod

from mmengine.model import BaseModule
from torch import Tensor


class BaseCluster(BaseModule, metaclass=ABCMeta):
    """Base of SIM's clusters, which group the frames' queries into one set of video queries (paper section 3.3)."""

    @abstractmethod
    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        """
        Args:
            queries: (M, T, N, C), the frame queries of one decoder layer.
            sentence: (M, C).

        Returns:
            (M, N, C), the video queries.
        """

    def enrich(self, queries: Tensor, video_queries: Tensor) -> Tensor:
        """Frame queries plus the video queries repeated over T (end of paper section 3.3).

        Args:
            queries: (M, T, N, C).
            video_queries: (M, N, C).

        Returns:
            (M, T, N, C).
        """
        return queries + video_queries[:, None]
