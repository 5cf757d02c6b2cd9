import math

import pytest
import torch

from mmsoc.models import VLContrastiveLoss


@pytest.mark.parametrize(('dim_exponent', 'similarity'), [(0.5, 3.), (1., 1.5)])
def test_contrastive_loss_by_hand(dim_exponent, similarity):
    # C = 4; query 0 . guidance = 2 * 3 = 6, query 1 . guidance = 0.  6 / sqrt(4) = 3 (paper), 6 / 4 = 1.5 (released).
    # -log softmax over (s, 0) = log(1 + e^-s) for query 0, log(1 + e^s) for query 1; the loss is their mean over two clips.
    queries = torch.tensor([[[2., 0, 0, 0], [0, 1, 0, 0]]]).repeat(2, 1, 1)
    guidance = torch.tensor([[3., 0, 0, 0]]).repeat(2, 1)
    loss = VLContrastiveLoss(dim_exponent=dim_exponent)(queries, guidance, torch.tensor([0, 1]))
    expected = (math.log(1 + math.exp(-similarity)) + math.log(1 + math.exp(similarity))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_loss_is_symmetric_without_guidance():
    # No guidance: all N = 5 queries are equal, log 5; the weight multiplies it.
    loss = VLContrastiveLoss(loss_weight=2.)(torch.randn(3, 5, 8), torch.zeros(3, 8), torch.tensor([0, 3, 4]))
    assert loss.item() == pytest.approx(2 * math.log(5), rel=1e-6)
