import math

import pytest
import torch
from mmengine import Config
from mmengine.structures import InstanceData

from mmsoc.models import ClipAssigner, ClipCost
from mmsoc.models.heads import clip_criterion
from mmsoc.models.task_modules import OneByOneAssigner, Trajectories
from mmsoc.registry import MODELS, TASK_UTILS
from mmsoc.structures import ClipTargets, Predictions

LN2 = math.log(2)
# Focal loss (alpha 1/4, gamma 2) of a logit of 0: alpha_t (1/2)^2 ln 2.
POSITIVE, NEGATIVE = 0.25 * 0.25 * LN2, 0.75 * 0.25 * LN2


# mmdet's assigner with its costs, in the order of `ClipAssigner`'s in soc_swin-t.py.
MMDET_ASSIGNER = dict(
    type='mmdet.HungarianAssigner',
    match_costs=[
        dict(type='mmsoc.ClipCost', visible_only=True, cost=dict(type='mmdet.FocalLossCost', weight=2.0, eps=1e-8)),
        dict(type='mmsoc.ClipCost', cost=dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0)),
        dict(type='mmsoc.ClipCost', cost=dict(type='mmdet.BBoxL1Cost', weight=2.0, box_format='xywh')),
        dict(type='mmsoc.ClipCost', cost=dict(type='mmdet.IoUCost', weight=2.0, iou_mode='giou')),
    ],
)


@pytest.fixture
def config(root):
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'models' / 'soc_swin-t.py').model.criterion
    for name, loss in cfg.items():
        if name.startswith('loss_'):
            loss['loss_weight'] = 1.0
    return cfg


@pytest.fixture
def criterion(config):
    return MODELS.build(config)


def one_clip(num_frames=1, num_queries=2, visible=None):
    """One layer of zero logits; query 0 at the wrong place, query 1 at the right one; 4x4 masks with 4 pixels set."""
    boxes = torch.zeros(1, 1, num_frames, num_queries, 4)
    boxes[..., 0, :] = torch.tensor([0.9, 0.9, 0.1, 0.1])
    boxes[..., 1, :] = torch.tensor([0.5, 0.5, 0.5, 0.5])
    prediction = Predictions(
        logits=torch.zeros(1, 1, num_frames, num_queries, 1),
        boxes=boxes,
        kernels=torch.arange(num_queries).float().expand(1, 1, num_frames, num_queries)[..., None],
        points=torch.zeros(1, 1, num_frames, num_queries, 2),
    )
    masks = torch.zeros(1, num_frames, 4, 4)
    masks[..., :2, :2] = 1
    visible = torch.ones(1, num_frames, dtype=torch.bool) if visible is None else torch.tensor([visible])
    targets = ClipTargets(
        masks * visible[..., None, None],
        torch.tensor([0.25, 0.25, 0.5, 0.5]) * visible[..., None],
        visible,
        torch.tensor([0]),
    )
    return prediction, targets


def zero_masks(features, kernels, points):
    return torch.zeros(*kernels.shape[:3], 4, 4, requires_grad=True)


def run(criterion, prediction, targets, decode=zero_masks):
    num_masks = targets.visible.numel()
    return criterion(
        prediction,
        torch.zeros(1, 1, prediction.logits.shape[3], 8),
        torch.zeros(1, 8),
        torch.zeros(num_masks, 8, 4, 4),
        decode,
        targets,
    )


def test_losses_by_hand(criterion):
    losses = run(criterion, *one_clip())
    # Query 1 matches: its box is nearer. Mask logits 0: probability 1/2 on 16 pixels, 4 of them set.
    assert losses['loss_dice'].item() == pytest.approx(1 - (2 * 2 + 1) / (8 + 4 + 1), rel=1e-6)
    assert losses['loss_mask'].item() == pytest.approx((4 * POSITIVE + 12 * NEGATIVE) / 16, rel=1e-5)
    # Boxes (.25 .25 .75 .75) and (0 0 .5 .5): |cx| and |cy| differ by 1/4; intersection 1/16, union 7/16, hull 9/16.
    assert losses['loss_bbox'].item() == pytest.approx(0.5, rel=1e-6)
    assert losses['loss_giou'].item() == pytest.approx(1 - (1 / 7 - (9 - 7) / 9), rel=1e-4)
    assert losses['loss_cls'].item() == pytest.approx(POSITIVE + NEGATIVE, rel=1e-5)
    assert losses['loss_contrastive'].item() == pytest.approx(LN2, rel=1e-6)


def test_absent_frames_count_but_are_no_positives(criterion):
    losses = run(criterion, *one_clip(num_frames=2, visible=[True, False]))
    # Two masks: the sums of both frames are halved. In the absent frame the target is empty: dice 1 - 1/9, all pixels negative.
    assert losses['loss_dice'].item() == pytest.approx(((1 - 5 / 13) + (1 - 1 / 9)) / 2, rel=1e-6)
    assert losses['loss_mask'].item() == pytest.approx(((4 * POSITIVE + 12 * NEGATIVE) / 16 + NEGATIVE) / 2, rel=1e-5)
    # The absent box is (0 0 0 0): 4 times 1/2.
    assert losses['loss_bbox'].item() == pytest.approx((0.5 + 2.0) / 2, rel=1e-6)
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

    assert criterion.match(prediction, torch.zeros(1, 8, 4, 4), decode, targets).tolist() == [[0]]
    assert run(criterion, prediction, targets, decode)['loss_dice'].item() == pytest.approx(0, abs=1e-6)


def random_clips(num_layers=3, num_sentences=4, num_frames=3, num_queries=6, num_classes=5):
    """Predictions, video queries, guidance and targets; the first sentence's object is in no frame, the others' in some."""

    def draw(*shape):
        return torch.randn(num_layers, num_sentences, num_frames, num_queries, *shape)

    visible = torch.rand(num_sentences, num_frames) > 0.4
    visible[0], visible[1:, 0] = False, True
    masks = (torch.rand(num_sentences, num_frames, 6, 10) > 0.5) & visible[..., None, None]
    targets = ClipTargets(
        masks.float(),
        torch.rand(num_sentences, num_frames, 4) * visible[..., None],
        visible,
        torch.randint(num_classes, (num_sentences,)),
    )
    predictions = Predictions(logits=draw(num_classes), boxes=draw(4).sigmoid(), kernels=2 * draw(15), points=draw(2))
    return predictions, torch.randn(num_layers, num_sentences, num_queries, 8), torch.randn(num_sentences, 8), targets


def kernels_are_masks(features, kernels, points):
    return kernels.unflatten(-1, (3, 5))


def test_every_layer_has_its_own_losses(criterion, seeded):
    predictions, video_queries, guidance, targets = random_clips()
    features = torch.zeros(12, 8, 3, 5)
    losses = criterion(predictions, video_queries, guidance, features, kernels_are_masks, targets)
    names = ('loss_cls', 'loss_mask', 'loss_dice', 'loss_bbox', 'loss_giou', 'loss_contrastive')
    assert set(losses) == {prefix + name for prefix in ('', 'd0.', 'd1.') for name in names}
    for layer, prefix in enumerate(('d0.', 'd1.', '')):
        one = Predictions(*(tensor[layer : layer + 1] for tensor in predictions))
        alone = criterion(one, video_queries[layer : layer + 1], guidance, features, kernels_are_masks, targets)
        for name in names:
            torch.testing.assert_close(losses[prefix + name], alone[name])


def test_layers_are_matched_in_as_many_calls_as_memory_asks_for(criterion, monkeypatch, seeded):
    predictions, _, _, targets = random_clips()
    expected, calls = None, []
    for limit, count in ((2**24, 1), (2 * 4 * 3 * 6 * 60, 2), (1, 3)):
        monkeypatch.setattr(clip_criterion, 'max_elements', lambda device, limit=limit: limit)
        calls.clear()
        found = criterion.match(
            predictions, torch.zeros(12, 8, 3, 5), lambda *given: calls.append(1) or kernels_are_masks(*given), targets
        )
        expected = found if expected is None else expected
        assert torch.equal(found, expected) and len(calls) == count


def test_gradients_reach_the_matched_query_alone(criterion, seeded):
    predictions, video_queries, guidance, targets = random_clips()
    predictions = Predictions(*(tensor.requires_grad_() for tensor in predictions))
    features = torch.zeros(12, 8, 3, 5)
    losses = criterion(predictions, video_queries, guidance, features, kernels_are_masks, targets)
    sum(losses.values()).backward()
    matched = criterion.match(predictions, features, kernels_are_masks, targets)
    is_matched = torch.nn.functional.one_hot(matched, 6).bool()
    for name in ('boxes', 'kernels'):
        moved = getattr(predictions, name).grad.abs().sum((2, 4)) > 0
        assert torch.equal(moved, is_matched), name
    assert (predictions.logits.grad != 0).all()


# -------------------------------------------------------------------------------------------------------------- matching


def random_trajectories():
    """With the masks at the size of the targets."""
    predictions, _, _, targets = random_clips()
    shape = (len(targets.labels), 3, 3, 6, *targets.masks.shape[-2:])
    return Trajectories(predictions.logits, predictions.boxes, 3 * torch.randn(shape)), targets


def mmdet_cost(cost, trajectories, targets):
    """(S, M, N), of one layer and sentence at a time."""

    def corners(boxes):
        return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)

    num_layers, num_sentences = trajectories.logits.shape[:2]
    return torch.stack(
        [
            torch.stack(
                [
                    cost(
                        InstanceData(
                            scores=trajectories.logits[layer, m].transpose(0, 1),
                            bboxes=corners(trajectories.boxes[layer, m]).transpose(0, 1),
                            masks=trajectories.masks[m, :, layer].transpose(0, 1),
                        ),
                        InstanceData(
                            labels=targets.labels[m : m + 1],
                            bboxes=corners(targets.boxes[m : m + 1]),
                            masks=targets.masks[m : m + 1],
                            visible=targets.visible[m : m + 1],
                        ),
                        dict(img_shape=(1, 1)),
                    )[:, 0]
                    for m in range(num_sentences)
                ]
            )
            for layer in range(num_layers)
        ]
    )


@pytest.mark.parametrize('index', range(4), ids=['focal', 'dice', 'L1', 'GIoU'])
def test_each_cost_is_mmdet_s(config, index, seeded):
    ours, theirs = (TASK_UTILS.build(assigner['match_costs'][index]) for assigner in (config.assigner, MMDET_ASSIGNER))
    for _ in range(5):
        trajectories, targets = random_trajectories()
        expected = mmdet_cost(theirs, trajectories, targets)
        torch.testing.assert_close(ours(trajectories, targets), expected, atol=1e-6, rtol=1e-6)
        assert expected.std() > 1e-2, 'equal costs: the test tests nothing'


def test_the_assigner_finds_what_mmdet_s_finds(config, seeded):
    ours, theirs = TASK_UTILS.build(config.assigner), OneByOneAssigner(TASK_UTILS.build(MMDET_ASSIGNER))
    assert isinstance(ours, ClipAssigner)
    for _ in range(10):
        trajectories, targets = random_trajectories()
        found = ours.assign_clips(trajectories, targets)
        assert found.shape == (3, 4) and torch.equal(found, theirs.assign_clips(trajectories, targets))
        assert len(found.unique()) > 1, 'one query for all: the test tests nothing'


def test_mmdet_s_assigner_in_the_criterion(config, criterion, seeded):
    """As in configs that were written before there was a `ClipAssigner`."""
    other = MODELS.build(dict(config, assigner=MMDET_ASSIGNER))
    assert isinstance(other.assigner, OneByOneAssigner)
    predictions, video_queries, guidance, targets = random_clips()
    given = predictions, video_queries, guidance, torch.zeros(12, 8, 3, 5), kernels_are_masks, targets
    found, expected = other(*given), criterion(*given)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def cost_of(visible, scores=((1.0, 3.0), (5.0, 7.0))):
    class Identity:
        def __call__(self, pred_instances, gt_instances, img_meta):
            return pred_instances.scores

    cost = ClipCost(cost=dict(type=Identity), visible_only=True)
    return cost(
        InstanceData(scores=torch.tensor(scores)[..., None]),
        InstanceData(labels=torch.tensor([0]), visible=torch.tensor([visible])),
    )


def test_clip_cost_is_the_mean_over_frames():
    # Two queries with costs (1, 3) and (5, 7) in two frames.
    assert cost_of([True, True]).tolist() == [[2.0], [6.0]]
    assert cost_of([False, True]).tolist() == [[3.0], [7.0]]
    assert cost_of([False, False]).tolist() == [[2.0], [6.0]]  # in no frame: all count


def test_dice_cost_is_per_frame():
    # mmdet.DiceCost on whole clips would be one image: 1 - 2*16/32 = 0 with a frame all right and one all wrong;
    # per frame: right -> 0, wrong (empty prediction, 16 pixels) -> 1 - 1/17, mean of both.
    cost = ClipCost(cost=dict(type='mmdet.DiceCost', pred_act=True, eps=1.0))
    masks = torch.full((1, 2, 4, 4), 40.0)
    masks[:, 1] = -40.0
    found = cost(
        InstanceData(masks=masks),
        InstanceData(
            labels=torch.tensor([0]), masks=torch.ones(1, 2, 4, 4), visible=torch.ones(1, 2, dtype=torch.bool)
        ),
    )
    assert found.item() == pytest.approx((0 + (1 - 1 / 17)) / 2, abs=1e-6)
