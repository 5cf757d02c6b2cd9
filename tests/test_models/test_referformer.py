"""What ReferFormer has and SOC has not."""

import pytest
import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmengine.config import Config

from mmsoc.models import SentenceContent, ZeroContent
from mmsoc.models.task_modules import Trajectories, WholeClipDiceCost, WholeClipFocalCost
from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, TextFeatures, VisualFeatures
from tests.conftest import ROOT
from tests.helpers import make_sample


@pytest.fixture
def small():
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / 'configs/soc/ablations/moving-shapes/referformer.py').model
    return MODELS.build(cfg)


def test_query_content():
    sentence = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = SentenceContent()(sentence, 3, 5)
    assert found.shape == (6, 5, 2) and found[:3].unique(dim=0).tolist() == [[[1, 2]] * 5]
    assert found[3:].unique(dim=0).tolist() == [[[3, 4]] * 5]
    assert torch.equal(ZeroContent()(sentence, 3, 5), torch.zeros(6, 5, 2))


def targets_of(masks, visible):
    return ClipTargets(masks, torch.zeros(*visible.shape, 4), visible, torch.zeros(len(masks), dtype=torch.long))


def test_costs_of_a_whole_clip(seeded):
    masks = torch.randn(2, 3, 2, 4, 5, 6)  # (M, T, S, N, H, W)
    target = (torch.rand(2, 3, 5, 6) > 0.5).float()
    trajectories = Trajectories(None, None, masks)
    targets = targets_of(target, torch.ones(2, 3, dtype=torch.bool))
    dice, focal = (
        WholeClipDiceCost(weight=5.0)(trajectories, targets),
        WholeClipFocalCost(weight=2.0)(trajectories, targets),
    )
    assert dice.shape == focal.shape == (2, 2, 4)
    for layer, sentence, query in ((0, 0, 0), (1, 0, 3), (1, 1, 2)):
        logits, truth = masks[sentence, :, layer, query].flatten(), target[sentence].flatten()
        overlap = 2 * (logits.sigmoid() * truth).sum() + 1
        expected = -5 * overlap / (logits.sigmoid().sum() + truth.sum() + 1)
        torch.testing.assert_close(dice[layer, sentence, query], expected)
        expected = 2 * py_sigmoid_focal_loss(logits, truth)
        torch.testing.assert_close(focal[layer, sentence, query], expected)


def test_masks_are_compared_at_every_fourth_pixel(small):
    masks = torch.arange(8 * 12.0).view(1, 1, 8, 12)
    assert small.criterion.compared(masks)[0, 0].tolist() == [[26, 30, 34], [74, 78, 82]]


def test_losses_are_divided_by_the_visible_frames(small, seeded):
    """Two clips of three frames, of which four show the object: by hand."""
    visible = torch.tensor([[True, True, False], [False, True, True]])
    target = (torch.rand(2, 3, 4, 4) > 0.5).float() * visible[..., None, None]
    logits = torch.randn(2 * 3, 1, 4, 4)
    targets = targets_of(target, visible)
    assert small.criterion.num_masks(targets) == 4
    found = small.criterion.mask_values(logits, targets)
    assert found['loss_mask'].shape == found['loss_dice'].shape == (1, 2)
    for clip in range(2):
        of_clip, truth = logits[3 * clip : 3 * clip + 3, 0].flatten(), target[clip].flatten()
        expected = 2 * py_sigmoid_focal_loss(of_clip, truth)
        torch.testing.assert_close(found['loss_mask'][0, clip], expected)
        dice = (2 * (of_clip.sigmoid() * truth).sum() + 1) / (of_clip.sigmoid().sum() + truth.sum() + 1)
        torch.testing.assert_close(found['loss_dice'][0, clip], 5 * (1 - dice))


def features(num_clips, num_frames, size):
    encoding = MODELS.build(dict(type='mmdet.SinePositionalEncoding', num_feats=64, normalize=True, offset=-0.5))
    shapes = [tuple(-(-side // stride) for side in size) for stride in (8, 16, 32, 64)]
    memory = [torch.randn(num_clips * num_frames, 128, *shape) for shape in shapes[:3]]
    visual = VisualFeatures(
        fine=torch.randn(num_clips * num_frames, 32, size[0] // 4, size[1] // 4),
        levels=(),
        pad_masks=None,
        positions=tuple(encoding(torch.zeros(1, *shape, dtype=torch.bool)) for shape in shapes),
        image_sizes=None,
        num_frames=num_frames,
    )
    return memory, visual


def test_frames_of_a_clip_meet_in_the_fpn_and_clips_do_not(small, seeded):
    decoder = small.head.pixel_decoder.eval()
    memory, visual = features(2, 3, (64, 96))
    text = TextFeatures(torch.randn(2, 5, 128), None, torch.randn(2, 128))
    with torch.no_grad():
        before = decoder(memory, visual, text)
        changed = [level.clone() for level in memory]
        changed[2][1] += 1  # the second frame of the first clip
        after = decoder(changed, visual, text)
        other_words = text._replace(words=text.words + torch.tensor([0.0, 1.0])[:, None, None])
        after_words = decoder(memory, visual, other_words)
    assert before.shape == (6, 128, 16, 24)
    differs = ((after - before).abs().amax((1, 2, 3)) > 1e-5).tolist()
    assert differs == [True] * 3 + [False] * 3
    differs = ((after_words - before).abs().amax((1, 2, 3)) > 1e-5).tolist()
    assert differs == [False] * 3 + [True] * 3


def test_kernels_start_with_xavier(small):
    small.head.init_weights()
    last = small.head.kernel_branch.layers[-1].weight
    bound = (6 / (last.shape[0] + last.shape[1])) ** 0.5
    assert 0.9 * bound < last.abs().max() <= bound


def test_predictions_pad_nothing():
    from mmsoc.models import ClipDataPreprocessor

    preprocessor = ClipDataPreprocessor(pad_size_divisor=32, test_pad_size_divisor=1)
    for training, size in ((True, (64, 96)), (False, (48, 80)), (True, (64, 96))):
        data = dict(
            inputs=[torch.zeros(2, 3, 48, 80, dtype=torch.uint8)],
            data_samples=[make_sample((48, 80), ['x'], num_frames=2)],
        )
        found = preprocessor(data, training=training)
        assert tuple(found['inputs'].shape[-2:]) == size
