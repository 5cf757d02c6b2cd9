import math

import mmdet.models
import pytest
import torch

from mmsoc.models import GIoULoss, VLContrastiveLoss


@pytest.mark.parametrize(('dim_exponent', 'similarity'), [(0.5, 3.0), (1.0, 1.5)])
def test_contrastive_loss_by_hand(dim_exponent, similarity):
    # C = 4; query 0 . guidance = 2 * 3 = 6, query 1 . guidance = 0.  6 / sqrt(4) = 3 (paper), 6 / 4 = 1.5 (released).
    # -log softmax over (s, 0) = log(1 + e^-s) for query 0, log(1 + e^s) for query 1; the loss is their mean over two clips.
    queries = torch.tensor([[[2.0, 0, 0, 0], [0, 1, 0, 0]]]).repeat(2, 1, 1)
    guidance = torch.tensor([[3.0, 0, 0, 0]]).repeat(2, 1)
    loss = VLContrastiveLoss(dim_exponent=dim_exponent)(queries, guidance, torch.tensor([0, 1]))
    expected = (math.log(1 + math.exp(-similarity)) + math.log(1 + math.exp(similarity))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_contrastive_loss_is_symmetric_without_guidance():
    # No guidance: all N = 5 queries are equal, log 5; the weight multiplies it.
    loss = VLContrastiveLoss(loss_weight=2.0)(torch.randn(3, 5, 8), torch.zeros(3, 8), torch.tensor([0, 3, 4]))
    assert loss.item() == pytest.approx(2 * math.log(5), rel=1e-6)


def test_contrastive_loss_of_several_layers(seeded):
    queries, guidance, matched = torch.randn(3, 2, 5, 8), torch.randn(2, 8), torch.randint(5, (3, 2))
    loss = VLContrastiveLoss(loss_weight=2.0)
    found = loss(queries, guidance, matched)
    expected = torch.stack([loss(queries[layer], guidance, matched[layer]) for layer in range(3)])
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected)


def test_contrastive_loss_with_an_average_factor(seeded):
    # The sum over two sentences divided by 4 is half their mean.
    queries, guidance, matched = torch.randn(3, 2, 5, 8), torch.randn(2, 8), torch.randint(5, (3, 2))
    loss = VLContrastiveLoss(loss_weight=2.0)
    mean = loss(queries, guidance, matched)
    for factor in (4, torch.tensor(4.0)):
        assert torch.equal(loss(queries, guidance, matched, avg_factor=factor), mean / 2)
        torch.testing.assert_close(loss(queries[0], guidance, matched[0], avg_factor=factor), mean[0] / 2)


def random_boxes():
    """Pairs that overlap, that do not, that contain each other, that are equal, and boxes of no size."""
    boxes = torch.rand(2, 40, 4, dtype=torch.float64)
    boxes[..., 2:] = boxes[..., :2] + 0.4 * boxes[..., 2:]
    boxes[1, 20:] += 2
    boxes[1, 10:14] = boxes[0, 10:14] + torch.tensor([0.01, 0.01, -0.01, -0.01])
    boxes[1, 4:8] = boxes[0, 4:8]
    boxes[1, :2] = boxes[0, 2] = boxes[:, 3] = 0
    return boxes


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weighted', [False, True], ids=['', 'weighted'])
@pytest.mark.parametrize('avg_factor', [None, 7.0])
@pytest.mark.parametrize('override', [False, True], ids=['', 'override'])
def test_giou_loss_is_mmdet_s(reduction, weighted, avg_factor, override, seeded):
    boxes = random_boxes()
    weight = torch.rand(40, dtype=torch.float64).round(decimals=1) if weighted else None
    settings = dict(loss_weight=3.0, reduction='mean' if override else reduction)
    given = dict(weight=weight, avg_factor=avg_factor, reduction_override=reduction if override else None)
    results = []
    for loss in (GIoULoss(**settings), mmdet.models.GIoULoss(**settings)):
        pred, target = boxes.clone().requires_grad_()
        if reduction == 'sum' and avg_factor:
            with pytest.raises(ValueError, match='avg_factor'):
                loss(pred, target, **given)
            continue
        value = loss(pred, target, **given)
        results.append((value, *torch.autograd.grad(value.square().sum(), (pred, target))))
    for found, expected in zip(*(results or [[], []]), strict=True):
        torch.testing.assert_close(found, expected)
        assert expected.isfinite().all()
