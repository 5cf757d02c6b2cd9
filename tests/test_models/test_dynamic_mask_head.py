import pytest
import torch
import torch.nn.functional as F
from mmdet.models.utils import relative_coordinate_maps

from mmsoc.models import DynamicMaskHead, FPNPixelDecoder
from mmsoc.registry import MODELS
from mmsoc.structures import VisualFeatures


@pytest.fixture
def head():
    return MODELS.build(
        dict(
            type='DynamicMaskHead',
            embed_dims=16,
            pixel_decoder=dict(type='FPNPixelDecoder', in_channels=16, fine_channels=12, channels=(16, 16, 8, 8, 8)),
        )
    )


def test_dynamic_convolution_is_that_of_the_plain_form(head, seeded):
    """Against one convolution per query on features and coordinates that are really concatenated."""
    num_clips, num_frames, num_queries, height, width = 2, 3, 4, 5, 7
    features = torch.randn(num_clips * num_frames, 8, height, width)
    kernels = torch.randn(num_clips, num_frames, num_queries, 169)
    points = torch.rand(num_clips, num_frames, num_queries, 2) * 600
    found = head.decode_masks(features, kernels, points)
    assert found.shape == (num_clips, num_frames, num_queries, height, width)

    rows, cols = torch.meshgrid(torch.arange(height) * 4 + 2, torch.arange(width) * 4 + 2, indexing='ij')
    locations = torch.stack([cols.flatten(), rows.flatten()], -1).float()
    for b in range(num_clips):
        for t in range(num_frames):
            for n in range(num_queries):
                relative = relative_coordinate_maps(
                    locations, points[b, t, n][None], torch.ones(1), torch.ones(1), (height, width)
                )
                x = torch.cat([features[b * num_frames + t][None], relative], 1)
                kernel = kernels[b, t, n]
                # All weights first, then all biases; 10 x 8, 8 x 8, 8 x 1.
                for start, out, inp, bias in ((0, 8, 10, 152), (80, 8, 8, 160), (144, 1, 8, 168)):
                    x = F.conv2d(x, kernel[start : start + out * inp].view(out, inp, 1, 1), kernel[bias : bias + out])
                    x = x.relu() if out > 1 else x
                assert torch.allclose(found[b, t, n], x[0, 0], rtol=1e-4, atol=1e-2 * x.abs().max() * 1e-3)


def test_masks_of_some_queries_are_those_of_all(head, seeded):
    features, kernels, points = torch.randn(2, 8, 6, 6), torch.randn(1, 2, 5, 169), torch.rand(1, 2, 5, 2) * 24
    every = head.decode_masks(features, kernels, points)
    assert torch.allclose(
        every[:, :, 3:4], head.decode_masks(features, kernels[:, :, 3:4], points[:, :, 3:4]), atol=1e-4
    )


def test_released_and_paper_class_branches():
    decoder = dict(type='FPNPixelDecoder', in_channels=16, fine_channels=12, channels=(16, 16, 8, 8, 8))
    paper = MODELS.build(dict(type='DynamicMaskHead', embed_dims=16, num_classes=65, pixel_decoder=decoder))
    released = MODELS.build(dict(type='DynamicMaskHead', embed_dims=16, num_cls_fcs=1, pixel_decoder=decoder))
    assert [tuple(layer.weight.shape) for layer in paper.cls_branches[0].layers] == [(16, 16), (16, 16), (65, 16)]
    assert [tuple(layer.weight.shape) for layer in released.cls_branches[0].layers] == [(1, 16)]


def test_initial_scores_are_one_percent(head, seeded):
    head.init_weights()
    assert torch.allclose(head.cls_branches[0].layers[-1].bias.sigmoid(), torch.tensor([0.01]))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match='num_classes counts the logits and must be at least 1, found 0'):
        DynamicMaskHead(num_classes=0, pixel_decoder=dict(type='FPNPixelDecoder'))
    with pytest.raises(ValueError, match=r'five multiples of num_groups=8, found \(16, 8, 8\)'):
        FPNPixelDecoder(channels=(16, 8, 8))


def visual_of(fine):
    return VisualFeatures(fine, (), None, (), None, len(fine))


def test_pixel_decoder_takes_odd_sizes():
    decoder = FPNPixelDecoder(in_channels=16, fine_channels=12, channels=(16, 16, 8, 8, 8))
    sizes = [(12, 20), (6, 10), (3, 5)]
    features = decoder([torch.randn(2, 16, *size) for size in sizes], visual_of(torch.randn(2, 12, 23, 39)), None)
    assert features.shape == (2, 8, 23, 39)


def test_sub_pixels_are_the_cells_of_their_quarter():
    """A mask that depends on the coordinates alone, at stride 2: each location is the centre of its cell."""
    decoder = dict(type='SubPixelDecoder', in_channels=16, fine_channels=12, channels=(16, 16, 8, 8, 8))
    head = DynamicMaskHead(pixel_decoder=decoder, embed_dims=16, num_convs=1, mask_stride=2)
    memory = [torch.randn(2, 16, 16 // 2**level, 24 // 2**level) for level in range(1, 4)]
    features = head.mask_features(memory, visual_of(torch.randn(2, 12, 16, 24)), None)
    assert features.shape == (2, 8, 32, 48)
    kernels = torch.zeros(1, 2, 1, 11)
    kernels[..., 8] = 1.0  # of x
    logits = head.decode_masks(features, kernels, torch.full((1, 2, 1, 2), 10.0))
    torch.testing.assert_close(logits[0, 0, 0, 0], 10.0 - (torch.arange(48) * 2 + 1.0))
