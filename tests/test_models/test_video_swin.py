import copy
import subprocess
import sys

import pytest
import torch

from mmsoc.models import VideoSwin
from mmsoc.models.backbones.video_swin import _swin
from mmsoc.registry import MODELS

ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


@pytest.fixture(scope='module')
def recogniser_weights():
    """A Video Swin recogniser's checkpoint as mmaction2 writes it: patches of two frames, norms, a head."""
    torch.manual_seed(0)
    backbone = _swin.SwinTransformer3D(arch=ARCH, patch_size=(2, 4, 4), pretrained2d=False, out_indices=(3, ))
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


@pytest.mark.parametrize(('change', 'message'), [
    (lambda weights: weights.pop('backbone.layers.2.blocks.1.mlp.fc1.bias'), r'missing 1 \(layers.2.blocks.1.mlp.fc1.bias\)'),
    (lambda weights: weights.update({'backbone.extra': torch.zeros(1)}), r'unexpected 1 \(extra\)'),
    (lambda weights: weights.update({'backbone.patch_embed.norm.weight': torch.zeros(3)}),
     r'another shape 1 \(patch_embed.norm.weight: expected \(16,\), found \(3,\)\)'),
])
def test_weights_of_something_else_are_an_error(recogniser_weights, tmp_path, change, message):
    weights = dict(recogniser_weights)
    change(weights)
    torch.save(dict(state_dict=weights), tmp_path / 'swin.pth')
    with pytest.raises(ValueError, match=rf'swin.pth does not hold.*backbone.pretrained.*{message}'):
        VideoSwin(arch=ARCH, pretrained=str(tmp_path / 'swin.pth')).init_weights()


@pytest.mark.parametrize(('source', 'message'), [
    ('https://127.0.0.1:9/swin.pth', r'cannot be downloaded \(.*\); on a machine with a network `wget https://127.0.0.1:9/swin.pth`'),
    ('nowhere/swin.pth', r'nowhere/swin.pth .config key `model.backbone.pretrained`. cannot be read .*; give another file'),
])
def test_weights_that_are_not_there(source, message, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=message) as error:
        VideoSwin(arch=ARCH, pretrained=source).init_weights()
    assert str(error.value).endswith('--cfg-options model.backbone.pretrained=FILE')


def test_recomputing_blocks_changes_nothing(seeded):
    plain, recomputed = VideoSwin(arch=ARCH, drop_path_rate=0.), VideoSwin(arch=ARCH, drop_path_rate=0., with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    clip = torch.randn(1, 2, 3, 32, 32, requires_grad=True)
    gradients = []
    for backbone in (plain, recomputed):
        sum(level.sum() for level in backbone(clip)).backward()
        gradients.append(backbone.patch_embed.proj.weight.grad)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize('before', [True, False], ids=['mmaction first', 'mmsoc first'])
def test_beside_the_user_s_mmaction2(before):
    """A real import of mmaction2's models, working or broken, does the same with mmsoc as without."""
    mmaction = """
try:
    import mmaction.models
    print('works')
except Exception as error:
    print(type(error).__name__, error)
"""
    mmsoc = 'from mmsoc.models import VideoSwin; VideoSwin(arch="tiny")\n'

    def run(code):
        return subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True).stdout

    assert run(mmaction + mmsoc if before else mmsoc + mmaction) == run(mmaction)
