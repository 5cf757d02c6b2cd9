"""Alternatives to the paper's cluster (Tables 3 and 5)."""

import torch
from einops import rearrange
from torch import Tensor, nn

from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError

from .base_cluster import BaseCluster


@MODELS.register_module()
class AverageCluster(BaseCluster):
    """Each query slot's mean over the frames (Table 5, "Average")."""

    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        return queries.mean(1)


@MODELS.register_module()
class NoCluster(AverageCluster):
    """No exchange between frames: the heads see the unchanged frame queries (Table 3 without VOC, Table 8 "None").

    The contrastive loss still needs one vector per trajectory: the mean over the frames.
    """

    def enrich(self, queries: Tensor, video_queries: Tensor) -> Tensor:
        return queries


@MODELS.register_module()
class Conv1dCluster(BaseCluster):
    """Convolutions along the frames of each query slot, then the mean (Table 5, "1D-Conv"; the paper gives no details).

    Args:
        embed_dims: C.
        num_layers: number of convolutions, with ReLU in between.
        kernel_size: kernel size in frames, odd.
    """

    def __init__(
        self, *, embed_dims: int = 256, num_layers: int = 3, kernel_size: int = 3, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if kernel_size % 2 == 0:
            raise UserError(f'Conv1dCluster: kernel_size must be odd, found {kernel_size}')
        layers: list[nn.Module] = []
        for index in range(num_layers):
            layers += [nn.ReLU()] if index else []
            layers.append(nn.Conv1d(embed_dims, embed_dims, kernel_size, padding=kernel_size // 2))
        self.convs = nn.Sequential(*layers)

    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        convolved = self.convs(rearrange(queries, 'm t n c -> (m n) c t'))
        return rearrange(convolved.mean(-1), '(m n) c -> m n c', m=queries.shape[0])


@MODELS.register_module()
class KMeansCluster(BaseCluster):
    """K-means over the T*N queries of a clip, K = N (Table 5, "K-Means"; the paper gives no details).

    Centres start at the first frame's queries. Assignments carry no gradient, the means of the assigned queries do.

    Args:
        num_iters: number of iterations.
    """

    def __init__(self, *, num_iters: int = 10, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_iters = num_iters

    def forward(self, queries: Tensor, sentence: Tensor) -> Tensor:
        tokens = rearrange(queries, 'm t n c -> m (t n) c')
        centres = queries[:, 0]
        for _ in range(self.num_iters):
            with torch.no_grad():
                nearest = torch.cdist(tokens, centres).argmin(-1)
                member_MKP = nn.functional.one_hot(nearest, centres.shape[1]).to(tokens.dtype).transpose(1, 2)
                size_MK1 = member_MKP.sum(-1, keepdim=True)
            # A centre without members keeps its value.
            centres = torch.where(size_MK1 > 0, member_MKP @ tokens / size_MK1.clamp(min=1), centres)
        return centres
