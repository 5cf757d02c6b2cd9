import math

import pytest
import torch
from mmengine import Config
from mmengine.structures import InstanceData

from mmsoc.models import ClipCost
from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, Predictions

LN2 = math.log(2)
# Focal loss (alpha 1/4, gamma 2) of a logit of 0: alpha_t (1/2)^2 ln 2.
POSITIVE, NEGATIVE = 0.25 * 0.25 * LN2, 0.75 * 0.25 * LN2


@pytest.fixture
def criterion(root):
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'models' / 'soc_swin-t.py').model.criterion
    for name, loss in cfg.items():
        if name.startswith('loss_'):
            loss['loss_weight'] = 1.
    return MODELS.build(cfg)


def one_clip(num_frames=1, num_queries=2, visible=None):
    """Zero logits everywhere; query 0 at the wrong place, query 1 at the right one; 4x4 masks with 4 pixels set."""
    boxes = torch.zeros(1, num_frames, num_queries, 4)
    boxes[..., 0, :] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    boxes[..., 1, :] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    prediction = Predictions(
        logits=torch.zeros(1, num_frames, num_queries, 1), boxes=boxes,
        kernels=torch.arange(num_queries).float().expand(1, num_frames, num_queries)[..., None],
        points=torch.zeros(1, num_frames, num_queries, 2))
    masks = torch.zeros(1, num_frames, 4, 4)
    masks[..., :2, :2] = 1
    visible = torch.ones(1, num_frames, dtype=torch.bool) if visible is None else torch.tensor([visible])
    targets = ClipTargets(
        masks * visible[..., None, None], torch.tensor([0.25, 0.25, 0.5, 0.5]) * visible[..., None], visible, torch.tensor([0]))
    return prediction, targets


def zero_masks(features, kernels, points):
    return torch.zeros(*kernels.shape[:3], 4, 4, requires_grad=True)


def run(criterion, prediction, targets, decode=zero_masks):
    num_masks = targets.visible.numel()
    return criterion([prediction], torch.zeros(1, 1, prediction.logits.shape[2], 8), torch.zeros(1, 8),
                     torch.zeros(num_masks, 8, 4, 4), decode, targets)


def test_losses_by_hand(criterion):
    losses = run(criterion, *one_clip())
    # Query 1 matches: its box is nearer.  Mask logits 0: probability 1/2 on 16 pixels, 4 of them set.
    assert losses['loss_dice'].item() == pytest.approx(1 - (2 * 2 + 1) / (8 + 4 + 1), rel=1e-6)
    assert losses['loss_mask'].item() == pytest.approx((4 * POSITIVE + 12 * NEGATIVE) / 16, rel=1e-5)
    # Boxes (.25 .25 .75 .75) and (0 0 .5 .5): |cx| and |cy| differ by 1/4; intersection 1/16, union 7/16, hull 9/16.
    assert losses['loss_bbox'].item() == pytest.approx(0.5, rel=1e-6)
    assert losses['loss_giou'].item() == pytest.approx(1 - (1 / 7 - (9 - 7) / 9), rel=1e-4)
    assert losses['loss_cls'].item() == pytest.approx(POSITIVE + NEGATIVE, rel=1e-5)
    assert losses['loss_contrastive'].item() == pytest.approx(LN2, rel=1e-6)


def test_absent_frames_count_but_are_no_positives(criterion):
    losses = run(criterion, *one_clip(num_frames=2, visible=[True, False]))
    # Two masks: the sums of both frames are halved.  In the absent frame the target is empty: dice 1 - 1/9, all pixels negative.
    assert losses['loss_dice'].item() == pytest.approx(((1 - 5 / 13) + (1 - 1 / 9)) / 2, rel=1e-6)
    assert losses['loss_mask'].item() == pytest.approx(((4 * POSITIVE + 12 * NEGATIVE) / 16 + NEGATIVE) / 2, rel=1e-5)
    # The absent box is (0 0 0 0): 4 times 1/2.
    assert losses['loss_bbox'].item() == pytest.approx((0.5 + 2.) / 2, rel=1e-6)
    # 4 logits, 1 positive.
    assert losses['loss_cls'].item() == pytest.approx((POSITIVE + 3 * NEGATIVE) / 2, rel=1e-5)


def test_object_in_no_frame(criterion):
    losses = run(criterion, *one_clip(num_frames=2, visible=[False, False]))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses['loss_cls'].item() == pytest.approx(4 * NEGATIVE / 2, rel=1e-5)


def test_masks_decide_between_equal_boxes(criterion):
    prediction, targets = one_clip()
    prediction.boxes[..., 0, :] = prediction.boxes[..., 1, :]

    def decode(features, kernels, points):
        # Query 0 (kernel 0) is certain of the right mask, query 1 of its opposite.
        right = (targets.masks * 2 - 1)[:, :, None] * 20
        return torch.where(kernels[..., None] == 0, right, -right)

    assert criterion.match(prediction, torch.zeros(1, 8, 4, 4), decode, targets).tolist() == [0]
    assert run(criterion, prediction, targets, decode)['loss_dice'].item() == pytest.approx(0, abs=1e-6)


def test_every_layer_has_its_own_losses(criterion):
    prediction, targets = one_clip()
    losses = criterion([prediction] * 3, torch.zeros(3, 1, 2, 8), torch.zeros(1, 8), torch.zeros(1, 8, 4, 4), zero_masks, targets)
    assert set(losses) == {prefix + name for prefix in ('', 'd0.', 'd1.') for name in (
        'loss_cls', 'loss_mask', 'loss_dice', 'loss_bbox', 'loss_giou', 'loss_contrastive')}


def cost_of(visible, scores=((1., 3.), (5., 7.))):
    class Identity:

        def __call__(self, pred_instances, gt_instances, img_meta):
            return pred_instances.scores

    cost = ClipCost(cost=dict(type=Identity), visible_only=True)
    return cost(InstanceData(scores=torch.tensor(scores)[..., None]),
                InstanceData(labels=torch.tensor([0]), visible=torch.tensor([visible])))


def test_clip_cost_is_the_mean_over_frames():
    # Two queries with costs (1, 3) and (5, 7) in two frames.
    assert cost_of([True, True]).tolist() == [[2.], [6.]]
    assert cost_of([False, True]).tolist() == [[3.], [7.]]
    assert cost_of([False, False]).tolist() == [[2.], [6.]]  # in no frame: all count


def test_dice_cost_is_per_frame():
    # mmdet.DiceCost on whole clips would be one picture: 1 - 2*16/32 = 0 with a frame all right and one all wrong;
    # per frame: right -> 0, wrong (empty prediction, 16 pixels) -> 1 - 1/17, mean of both.
    cost = ClipCost(cost=dict(type='mmdet.DiceCost', pred_act=True, eps=1.))
    masks = torch.full((1, 2, 4, 4), 40.)
    masks[:, 1] = -40.
    found = cost(InstanceData(masks=masks), InstanceData(
        labels=torch.tensor([0]), masks=torch.ones(1, 2, 4, 4), visible=torch.ones(1, 2, dtype=torch.bool)))
    assert found.item() == pytest.approx((0 + (1 - 1 / 17)) / 2, abs=1e-6)
