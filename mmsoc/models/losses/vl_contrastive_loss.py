import torch.nn.functional as F
from torch import Tensor, nn

from mmsoc.registry import MODELS


@MODELS.register_module()
class VLContrastiveLoss(nn.Module):
    """Visual-linguistic contrastive loss (paper section 3.4, Eq. 6).

    Minus the log-softmax, over the N video queries of a clip, of ``(query . guidance) / C**dim_exponent`` at the matched query.

    Args:
        dim_exponent: 0.5 divides by sqrt(C), as in the paper; 1.0 by C, as in the released implementation.
        loss_weight: the paper's lambda_con.
    """

    def __init__(self, *, dim_exponent: float = 0.5, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.dim_exponent = dim_exponent
        self.loss_weight = loss_weight

    def similarity(self, video_queries: Tensor, guidance: Tensor) -> Tensor:
        """(..., N), the logits of the softmax over the N video queries; arguments as in `forward`."""
        return (video_queries @ guidance[..., None]).squeeze(-1) / video_queries.shape[-1] ** self.dim_exponent

    def forward(
        self, video_queries: Tensor, guidance: Tensor, matched: Tensor, avg_factor: float | Tensor | None = None
    ) -> Tensor:
        """
        Args:
            video_queries: (M, N, C), or (S, M, N, C) of S decoder layers.
            guidance: (M, C).
            matched: (M,) or (S, M) int64, the matched query of each sentence.
            avg_factor: divisor of the mean, instead of M.

        Returns:
            The mean over the M sentences, a scalar or (S,).
        """
        similarity = self.similarity(video_queries, guidance)
        loss = F.cross_entropy(similarity.flatten(0, -2), matched.flatten(), reduction='none').view(matched.shape)
        return self.loss_weight * (loss.sum(-1) / (matched.shape[-1] if avg_factor is None else avg_factor))
