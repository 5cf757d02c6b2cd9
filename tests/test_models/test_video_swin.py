import copy
import subprocess
import sys

import pytest
import torch

from mmsoc.models import FrameVideoSwin, VideoSwin
from mmsoc.models.backbones.video_swin import _Kept, _swin
from mmsoc.registry import MODELS
from mmsoc.utils.errors import UserError

ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


@pytest.fixture(scope='module')
def recogniser_weights():
    """A Video Swin recogniser's checkpoint as mmaction2 writes it: patches of two frames, norms, a head."""
    torch.manual_seed(0)
    backbone = _swin.SwinTransformer3D(arch=ARCH, patch_size=(2, 4, 4), pretrained2d=False, out_indices=(3,))
    state_dict = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    return {**state_dict, 'cls_head.fc_cls.weight': torch.randn(400, 128), 'cls_head.fc_cls.bias': torch.zeros(400)}


@pytest.mark.parametrize(('num_frames', 'size'), [(1, (32, 64)), (3, (45, 77)), (9, (33, 31))])
def test_four_maps_per_frame(num_frames, size, seeded):
    maps = VideoSwin(arch=ARCH).eval()(torch.randn(2, num_frames, 3, *size))
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    for index, level in enumerate(maps):
        assert level.shape == (2 * num_frames, 16 * 2**index, height, width)
        height, width = -(-height // 2), -(-width // 2)


def test_images_are_clips_of_one_frame(seeded):
    backbone, image = VideoSwin(arch=ARCH).eval(), torch.randn(2, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(backbone(image), backbone(image[:, None]), strict=True))


def test_frames_see_each_other(seeded):
    backbone, clip = VideoSwin(arch=ARCH).eval(), torch.randn(1, 4, 3, 32, 32)
    before = backbone(clip)[0][0]
    clip[:, 3] += 1
    assert not torch.allclose(backbone(clip)[0][0], before)


def test_one_frame_at_a_time(seeded):
    clip = torch.randn(2, 4, 3, 32, 32)
    video, frames = VideoSwin(arch=ARCH).eval(), FrameVideoSwin(arch=ARCH).eval()
    frames.load_state_dict(video.state_dict())
    found = frames(clip)
    for frame in range(4):  # of each clip
        expected = video(clip[:, frame])
        assert all(torch.allclose(a[frame::4], b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert not torch.allclose(found[0], video(clip)[0], atol=1e-2)


def test_sizes_of_the_paper():
    assert VideoSwin(arch='tiny').out_channels == VideoSwin(arch='small').out_channels == (96, 192, 384, 768)
    assert VideoSwin(arch='base').out_channels == (128, 256, 512, 1024)


def test_weights_of_mmaction2(recogniser_weights, tmp_path):
    torch.save(dict(state_dict=recogniser_weights), tmp_path / 'swin.pth')
    backbone = VideoSwin(arch=ARCH, pretrained=str(tmp_path / 'swin.pth')).eval()
    before = backbone.layers[0].blocks[0].mlp.fc1.weight.clone()
    backbone.init_weights()
    after = backbone.layers[0].blocks[0].mlp.fc1.weight
    assert not torch.equal(before, after)
    assert torch.equal(after, recogniser_weights['backbone.layers.0.blocks.0.mlp.fc1.weight'])
    # The temporal kernel is summed: of a video that stands still, a patch of one frame gives what one of two frames gave.
    kernel = recogniser_weights['backbone.patch_embed.proj.weight']
    frame = torch.randn(1, 3, 1, 4, 4)
    two_frames = torch.nn.functional.conv3d(frame.repeat(1, 1, 2, 1, 1), kernel)
    assert torch.allclose(torch.nn.functional.conv3d(frame, backbone.patch_embed.proj.weight), two_frames, atol=1e-5)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda weights: weights.pop('backbone.layers.2.blocks.1.mlp.fc1.bias'),
            r'missing 1 \(layers.2.blocks.1.mlp.fc1.bias\)',
        ),
        (lambda weights: weights.update({'backbone.extra': torch.zeros(1)}), r'unexpected 1 \(extra\)'),
        (
            lambda weights: weights.update({'backbone.patch_embed.norm.weight': torch.zeros(3)}),
            r'another shape 1 \(patch_embed.norm.weight: expected \(16,\), found \(3,\)\)',
        ),
    ],
)
def test_weights_of_something_else_are_an_error(recogniser_weights, tmp_path, change, message):
    weights = dict(recogniser_weights)
    change(weights)
    torch.save(dict(state_dict=weights), tmp_path / 'swin.pth')
    with pytest.raises(ValueError, match=rf'swin.pth does not hold.*backbone.pretrained.*{message}'):
        VideoSwin(arch=ARCH, pretrained=str(tmp_path / 'swin.pth')).init_weights()


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('https://127.0.0.1:9/swin.pth', r'(?s)cannot be downloaded:\n  https://127.0.0.1:9/swin.pth: .*put it at'),
        ('nowhere/swin.pth', r'config key `model.backbone.pretrained`\) nowhere/swin.pth: there is no such file'),
        (
            'video-swin',
            r"there is no file 'video-swin' and no weights of this name; the nearest names: video-swin-[tsb], ",
        ),
    ],
)
def test_weights_that_are_not_there(source, message, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises((FileNotFoundError, UserError), match=message) as error:
        VideoSwin(arch=ARCH, pretrained=source).init_weights()
    assert str(error.value).endswith('--cfg-options model.backbone.pretrained=FILE')


def test_recomputing_blocks_changes_nothing(seeded):
    plain, recomputed = VideoSwin(arch=ARCH, drop_path_rate=0.0), VideoSwin(arch=ARCH, drop_path_rate=0.0, with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    clip = torch.randn(1, 2, 3, 32, 32, requires_grad=True)
    gradients = []
    for backbone in (plain, recomputed):
        sum(level.sum() for level in backbone(clip)).backward()
        gradients.append(backbone.patch_embed.proj.weight.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_stochastic_depth(seeded):
    """Of each clip each of the two parts of a block is dropped or scaled up, independently."""
    p, count = 0.4, 400
    backbone = VideoSwin(arch=ARCH, window_size=(1, 2, 2), drop_path_rate=p).train()
    block = backbone.layers[3].blocks[0]
    assert block.drop_path.drop_prob == pytest.approx(p)
    seen = {}
    block.register_forward_hook(lambda module, given, output: seen.update(x=given[0], output=output))
    backbone(torch.randn(count, 1, 3, 16, 16))
    x, output = seen['x'].detach().requires_grad_(), seen['output']
    (grid,) = backbone.layers[3].grids([count], (1, 1, 1), x.device)
    attention = block._attention(x, grid) / (1 - p)
    candidates = torch.stack(
        [
            x,
            x + attention,
            x + block._feed_forward(x) / (1 - p),
            x + attention + block._feed_forward(x + attention) / (1 - p),
        ]
    )
    close = (candidates - output).abs().amax((2, 3)) < 1e-5 * output.abs().max()
    assert (close.sum(0) == 1).all()
    expected = (p * p, (1 - p) * p, p * (1 - p), (1 - p) ** 2)
    for share, chance in zip(close.float().mean(1).tolist(), expected, strict=True):
        assert abs(share - chance) < 4 * (chance * (1 - chance) / count) ** 0.5


def test_a_branch_that_no_clip_keeps_is_not_computed(seeded, monkeypatch):
    """And its parameters get a gradient of zeros, as if it had been computed and multiplied by 0."""
    backbone = VideoSwin(arch=ARCH, window_size=(1, 2, 2), drop_path_rate=0.4).train()
    block = backbone.layers[3].blocks[0]
    given = torch.randn(2, 1, 128, requires_grad=True)
    (grid,) = backbone.layers[3].grids([1], (1, 1, 1), given.device)
    monkeypatch.setattr(block.mlp, 'forward', lambda x: pytest.fail('computed'))
    output = block(given, grid, (_Kept(1, torch.tensor([1]), 2.0), _Kept(0, torch.tensor([], dtype=torch.long), 2.0)))
    torch.testing.assert_close(output[0], given[0])
    torch.testing.assert_close(output[1:], given[1:] + 2 * block._attention(given[1:], grid))
    output.square().sum().backward()
    torch.testing.assert_close(given.grad[0], 2 * given[0].detach())
    assert not torch.allclose(given.grad[1], 2 * given[1]) and block.attn.proj.weight.grad.abs().sum() > 0
    for parameter in (*block.mlp.parameters(), *block.norm2.parameters()):
        assert parameter.grad is not None and not parameter.grad.any()
    for parameter in block.parameters():
        parameter.requires_grad_(False)
    with torch.autocast('cpu', torch.bfloat16):
        assert (
            block(given.detach(), grid, (_Kept(1, torch.tensor([0]), 2.0), _Kept(0, None, 2.0))).dtype == torch.float32
        )


def test_rates_of_stochastic_depth(seeded):
    """From 0 in the first block to the last block's, in training only; drawn for each block and part by itself."""
    backbone, count = VideoSwin(arch=ARCH, drop_path_rate=0.4).train(), 4000
    kept = backbone._stochastic_depth(count, torch.device('cpu'))
    assert kept[0] == [None]
    drawn = [branch for stage in kept for block in stage if block is not None for branch in block]
    rates = [rate for rate in (0.1, 0.2, 0.3, 0.4) for _ in range(2)]
    factors = torch.zeros(len(drawn), count)
    for branch, rate, of_clips in zip(drawn, rates, factors, strict=True):
        of_clips[branch.clips] = 1.0
        assert len(branch.clips) == branch.num_clips and branch.scale == pytest.approx(1 / (1 - rate))
        assert abs(1 - of_clips.mean() - rate) < 4 * (rate * (1 - rate) / count) ** 0.5
    correlations = torch.corrcoef(factors) - torch.eye(8)
    assert correlations.abs().max() < 5 / count**0.5
    clip, plain = torch.randn(2, 2, 3, 32, 32), VideoSwin(arch=ARCH, drop_path_rate=0.0)
    plain.load_state_dict(backbone.state_dict())
    for found, expected in zip(backbone.eval()(clip), plain.eval()(clip), strict=True):
        assert torch.equal(found, expected)


def test_compiled(seeded):
    """Few graphs, and no more of them for a size that was met: a break for each stage would use up PyTorch's limit of eight."""
    from torch._dynamo.utils import counters

    model = VideoSwin(arch=ARCH).eval()
    compiled = copy.deepcopy(model)
    compiled.compile(backend='eager', dynamic=False)
    torch._dynamo.reset()
    counters.clear()
    try:
        for size, graphs in (((64, 96), 2), ((64, 96), 2), ((61, 130), 4)):
            clip = torch.randn(1, 9, 3, *size)
            with torch.no_grad():
                for found, expected in zip(compiled(clip), model(clip), strict=True):
                    torch.testing.assert_close(found, expected)
            assert counters['stats']['unique_graphs'] == graphs
    finally:
        torch._dynamo.reset()


def test_an_image_backbone_in_its_place(seeded):
    backbone = MODELS.build(dict(type='FrameBackbone', backbone=dict(type='mmdet.ResNet', depth=18))).eval()
    clip = torch.randn(2, 3, 3, 32, 64)
    maps = backbone(clip)
    assert [tuple(level.shape) for level in maps] == [(6, 64, 8, 16), (6, 128, 4, 8), (6, 256, 2, 4), (6, 512, 1, 2)]
    assert torch.allclose(backbone(clip[1:])[3], maps[3][3:], atol=1e-5)


def test_mmaction2_beside_a_newer_mmcv():
    """OneDL's fork of mmcv is 2.3, and mmaction2 1.2 refuses 2.2 and newer at import."""
    code = (
        'import mmcv, mmdet\n'  # the original mmdet refuses it too
        'mmcv.__version__ = "2.3.6"\n'
        'from mmsoc.models import VideoSwin\n'
        'import mmaction\n'
        'assert mmcv.__version__ == "2.3.6"\n'
        'assert sum(p.numel() for p in VideoSwin(arch="tiny").parameters()) > 1e6\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
