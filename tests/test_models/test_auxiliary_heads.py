import math

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.structures import PixelData

from mmsoc.models import BackbonePretrainer, CategoryMapHead, ConvPatchEmbed, FusionMaskHead, VideoSwin
from mmsoc.registry import MODELS
from mmsoc.structures import ClipTargets, FusedFeatures
from tests.conftest import ROOT
from tests.helpers import make_sample, random_clip, small_model, stack_clips


def test_fusion_mask_head_values():
    """One level of 1x2 cells; the mask covers the left cell by half and the right one not at all."""
    head = FusionMaskHead(embed_dims=1, num_levels=1, loss_bce_weight=1.0, loss_dice_weight=1.0)
    torch.nn.init.ones_(head.convs[0].weight)
    torch.nn.init.zeros_(head.convs[0].bias)
    level = torch.tensor([[[[0.0, -math.log(3)]]]])  # shares 1/2 and 1/4
    mask = torch.zeros(1, 1, 4, 8)
    mask[0, 0, :, :2] = 1
    losses = head.loss(None, FusedFeatures(levels=(level,), guidance=None), ClipTargets(mask, None, None, None), [])
    # cross-entropy: log 2 whatever the target, and -log(3/4); mean over the cells
    assert losses['aux.loss_fusion_bce'].item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    # dice: 1 - (2 * 1/2 * 1/2 + 1) / (3/4 + 1/2 + 1)
    assert losses['aux.loss_fusion_dice'].item() == pytest.approx(1 - 1.5 / 2.25)


def category_sample(category, padded=None):
    size = category.shape
    sample = make_sample(size, ['x'], np.ones((1, *size), np.uint8), padded=padded)
    sample[0].gt_sem_seg = PixelData(sem_seg=torch.from_numpy(category)[None])
    return sample


def test_category_map_head_values():
    head = CategoryMapHead(num_classes=2, embed_dims=3, num_levels=1, loss_weight=2.0)
    head.convs[0].weight.data = torch.eye(3)[..., None, None]
    torch.nn.init.zeros_(head.convs[0].bias)
    category = np.zeros((8, 8), np.uint8)
    category[:, 4:] = 2
    # The clip is padded from 8x8 to 8x12: three cells, the last one is no target.
    level = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [9.0, 0.0, 0.0]]).t()[None, :, None]
    found = head.loss_by_level([level], [category_sample(category, padded=(8, 12))])
    # background, right: log(e + 2) - 1; category 2 where category 1 is said: log(e + 2)
    assert found['aux.loss_category'].item() == pytest.approx(2 * (math.log(math.e + 2) - 0.5))
    assert found['aux.acc_category'].item() == 0
    level[0, :, 0, 1] = torch.tensor([0.0, 0.0, 1.0])
    assert head.loss_by_level([level], [category_sample(category, padded=(8, 12))])['aux.acc_category'].item() == 100


def test_category_map_head_without_objects_or_maps():
    head = CategoryMapHead(num_classes=1, embed_dims=4, num_levels=1)
    level = torch.randn(1, 4, 1, 1, requires_grad=True)
    losses = head.loss_by_level([level], [category_sample(np.zeros((8, 8), np.uint8))])
    losses['aux.loss_category'].backward()
    assert losses['aux.acc_category'] == 0 and torch.isfinite(level.grad).all()
    sample = category_sample(np.zeros((8, 8), np.uint8))
    del sample[0].gt_sem_seg
    with pytest.raises(
        ValueError, match='expected maps of category, and the samples have 0; LoadCategoryMaps in the pipe'
    ):
        head.loss_by_level([level], [sample])
    with pytest.raises(
        ValueError, match=r'num_classes has 1 for category, but the samples have category 3 .*names more'
    ):
        head.loss_by_level([level], [category_sample(np.full((8, 8), 3, np.uint8))])


def test_a_map_of_categories_and_one_of_events():
    """Each as if it were alone; unknown events do not count."""
    both = CategoryMapHead(num_classes=dict(category=2, event=1), embed_dims=4, num_levels=2)
    categories, events = np.zeros((2, 8, 16), np.uint8)
    categories[:, 8:], events[4:] = 2, 1
    events[:2, 8:] = 255
    sample = category_sample(categories)
    sample[0].gt_sem_seg = PixelData(sem_seg=torch.from_numpy(np.stack([categories, events])))
    levels = [torch.randn(1, 4, 4, 8), torch.randn(1, 4, 2, 4)]
    found = both.loss_by_level(levels, [sample])
    assert len(found) == 4
    for name, number, classes, channels in (
        ('category', 2, categories, slice(3)),
        ('event', 1, events, slice(3, None)),
    ):
        alone = CategoryMapHead(num_classes=number, embed_dims=4, num_levels=2)
        for conv, whole in zip(alone.convs, both.convs, strict=True):
            conv.weight.data, conv.bias.data = whole.weight.data[channels], whole.bias.data[channels]
        expected = alone.loss_by_level(levels, [category_sample(classes)])
        torch.testing.assert_close(found[f'aux.loss_{name}'], expected['aux.loss_category'])
        assert found[f'aux.acc_{name}'] == expected['aux.acc_category']
    with pytest.raises(ValueError, match='expected maps of category, event, and the samples have 1'):
        both.loss_by_level(levels, [category_sample(categories)])


def test_soc_adds_their_losses_and_predicts_without_them():
    heads = [dict(type='FusionMaskHead', embed_dims=128), dict(type='CategoryMapHead', embed_dims=128, num_classes=6)]
    model = small_model(ROOT, auxiliary_heads=heads).train()
    plain = small_model(ROOT).train()
    video, masks = random_clip(2, (64, 96))
    sample = make_sample((64, 96), ['a car'], masks)
    losses, own = model.loss(video[None], [sample]), plain.loss(video[None], [sample])
    added = {'aux.loss_fusion_bce', 'aux.loss_fusion_dice', 'aux.loss_category', 'aux.acc_category'}
    assert losses.keys() - own.keys() == added
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.auxiliary_heads.parameters())


def test_several_sentences_of_a_clip_are_as_many_samples():
    """One clip with two sentences gives the losses of the same clip twice, with one each."""
    model = small_model(ROOT)  # without drop-out
    video, first = random_clip(2, (64, 96))
    second = np.roll(first, 20, axis=1)
    apart = [make_sample((64, 96), [text], masks) for text, masks in (('a car', first), ('the dog', second))]
    together = make_sample((64, 96), ['a car', 'the dog'], first)
    for t, frame in enumerate(together):
        frame.gt_instances = frame.gt_instances.cat([sample[t].gt_instances for sample in apart])
    one, two = model.loss(video[None], [together]), model.loss(stack_clips([video, video]), apart)
    assert one.keys() == two.keys()
    for name, value in two.items():
        assert one[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_conv_patch_embed_keeps_the_strides_and_frames_apart():
    swin = dict(arch=dict(embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), window_size=(2, 4, 4))
    model = VideoSwin(**swin, patch_embed=dict(type='ConvPatchEmbed', embed_dims=32)).eval()
    outputs = model(torch.randn(2, 3, 3, 45, 77))
    assert [tuple(output.shape) for output in outputs] == [
        (6, 32, 12, 20),
        (6, 64, 6, 10),
        (6, 128, 3, 5),
        (6, 256, 2, 3),
    ]
    embed = ConvPatchEmbed(embed_dims=32).eval()
    clip = torch.randn(2, 3, 3, 45, 77)
    patches = embed(clip)
    assert patches.shape == (2, 32, 3, 12, 20)
    assert torch.allclose(patches[1, :, 2], embed(clip[1:, :, 2:])[0, :, 0], atol=1e-5)


def test_conv_patch_embed_sees_neighbouring_frames_in_their_order():
    torch.manual_seed(0)
    embed = ConvPatchEmbed(embed_dims=32, temporal_channels=16).eval()
    clip = torch.randn(2, 3, 5, 32, 48)
    patches = embed(clip)
    assert patches.shape == (2, 32, 5, 8, 12) and embed(clip[:, :, :1]).shape == (2, 32, 1, 8, 12)
    changed = clip.clone()
    changed[:, :, 3] += 1
    differs = ((embed(changed) - patches).abs() > 1e-4).flatten(3).any(-1).any(1)
    assert differs.tolist() == [[False, False, True, True, True]] * 2
    # A clip that runs backwards is another clip; with frames apart it is the same one, backwards.
    backwards = embed(clip.flip(2)).flip(2)
    assert (backwards - patches).abs().max() > 0.01
    apart = ConvPatchEmbed(embed_dims=32).eval()
    torch.testing.assert_close(apart(clip.flip(2)).flip(2), apart(clip))


def test_pretrained_backbone_fits_the_small_soc(tmp_path):
    torch.manual_seed(0)
    pretrainer = MODELS.build(Config.fromfile(ROOT / 'configs/pretrain/video-swin-mini_moving-shapes.py').model)
    assert isinstance(pretrainer, BackbonePretrainer)
    video, masks = random_clip(1, (64, 96))
    sample = make_sample((64, 96), ['x'], masks)
    losses = pretrainer(video[None], [sample], mode='loss')
    losses['aux.loss_category'].backward()
    # Distributed training stops at a parameter without gradient.
    assert not [name for name, p in pretrainer.named_parameters() if p.grad is None]
    torch.save(dict(state_dict=pretrainer.state_dict()), tmp_path / 'backbone.pth')
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_tiny_moving-shapes.py').model
    cfg.backbone.pretrained = str(tmp_path / 'backbone.pth')
    model = MODELS.build(cfg)
    model.init_weights()
    for name, value in pretrainer.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name]), name
    with pytest.raises(ValueError, match="mode must be 'loss' or 'tensor', found 'predict'"):
        pretrainer(video[None], [sample], mode='predict')
