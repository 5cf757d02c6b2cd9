"""mmsoc inside other OpenMMLab projects: from an installed wheel, in folders outside the repository, through the shipped tools."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmsoc

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'docs' / 'examples'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with the wheel's content, as `pip install mmsoc` leaves it."""
    folder = tmp_path_factory.mktemp('wheel')
    # From a copy: building leaves traces in the source folder.
    source = folder / 'source'
    names = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(('tests/', 'docs/')):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
    subprocess.run(
        [*pip, 'wheel', '--no-build-isolation', '--no-deps', '--no-index', '-w', str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob('mmsoc-*.whl')
    subprocess.run(
        [*pip, 'install', '--no-deps', '--no-index', '--target', str(folder / 'site'), str(wheel)], check=True
    )
    shutil.rmtree(source)
    return folder / 'site'


@pytest.fixture(scope='module')
def run(site):
    """Runs Python with the wheel's mmsoc in ``cwd``, and returns what it printed."""

    def run(*arguments, cwd, path=()):
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, (*path, site))), 'OMP_NUM_THREADS': '1'}
        environment.pop('MMSOC_DATA', None)
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope='module')
def project(tmp_path_factory, run, site):
    """A user's folder with data in it, made by a shipped tool."""
    folder = tmp_path_factory.mktemp('project')
    run(
        site / 'mmsoc' / '.mim' / 'tools' / 'dataset_converters' / 'moving_shapes.py',
        '--out',
        folder / 'data' / 'moving-shapes',
        '--train-videos',
        8,
        '--valid-videos',
        4,
        '--workers',
        1,
        cwd=folder,
    )
    return folder


# What makes a run of a few steps of any config on MovingShapes.
SHORT = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_begin=1',
    'train_cfg.val_interval=1',
    'train_dataloader.sampler.epoch_size=8',
    'val_dataloader.dataset.indices=2',
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
]


def train(run, site, project, config, *, path=(), options=SHORT):
    output = run(
        site / 'mmsoc' / '.mim' / 'tools' / 'train.py',
        config,
        '--work-dir',
        project / 'work' / Path(config).stem,
        '--cfg-options',
        *options,
        cwd=project,
        path=path,
    )
    assert 'rvos/J&F' in output and (project / 'work' / Path(config).stem / 'epoch_1.pth').is_file(), output[-2000:]
    return output


def test_the_wheel_is_what_is_tested(run, site, tmp_path):
    assert Path(run('-c', 'import mmsoc; print(mmsoc.__file__)', cwd=tmp_path).strip()).parent == site / 'mmsoc'


def test_a_config_outside_inherits(run, site, tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmsoc::soc/soc_swin-t_ytvos.py'\nmodel = dict(sim=dict(num_queries=10))\n"
    )
    shown = run(site / 'mmsoc' / '.mim' / 'tools' / 'analysis_tools' / 'print_config.py', 'mine.py', cwd=tmp_path)
    assert 'num_queries=10' in shown and "type='RefYouTubeVOSDataset'" in shown
    names = run(
        '-c',
        textwrap.dedent("""
        import mmsoc
        from mmengine.hub import get_config
        print(get_config('mmsoc::soc/soc_swin-b_ytvos.py').model.backbone.arch)
        """),
        cwd=tmp_path,
    )
    assert names.split()[-1] == 'base'


def test_soc_trains_with_mmdet_s_resnet(run, site, project):
    (project / 'resnet.py').write_text(
        textwrap.dedent("""
        _base_ = 'mmsoc::soc/soc_tiny_moving-shapes.py'
        model = dict(
            backbone=dict(_delete_=True, type='FrameBackbone', backbone=dict(type='mmdet.ResNet', depth=18, base_channels=16)),
            neck=dict(in_channels=[32, 64, 128]),
            head=dict(pixel_decoder=dict(fine_channels=16)))
        """)
    )
    train(run, site, project, 'resnet.py')


def test_parts_of_one_s_own(run, site, project):
    """The worked example of the docs: cluster, backbone and loss in the user's own file."""
    for name in ('my_parts.py', 'my_config.py'):
        shutil.copy2(EXAMPLES / name, project / name)
    # A folder of the user's is on the path by PYTHONPATH, as the docs say.
    train(run, site, project, 'my_config.py', path=[project])
    saved = run(
        '-c',
        textwrap.dedent("""
        import torch
        keys = torch.load('work/my_config/epoch_1.pth')['state_dict']
        print('sim.cluster.project.weight' in keys, 'backbone.backbone.stem.weight' in keys)
        """),
        cwd=project,
    )
    assert saved.split()[-2:] == ['True', 'True']


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """Six images with a bright box in each."""
    folder = tmp_path_factory.mktemp('coco')
    images, annotations = [], []
    for index in range(6):
        image = np.zeros((64, 96, 3), np.uint8)
        x, y = 8 * index, 4 * index
        image[y : y + 24, x : x + 32] = 255
        cv2.imwrite(str(folder / f'{index}.png'), image)
        images.append(dict(id=index, file_name=f'{index}.png', height=64, width=96))
        annotations.append(dict(id=index + 1, image_id=index, category_id=1, bbox=[x, y, 32, 24], area=768, iscrowd=0))
    (folder / 'a.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='box')]))
    )
    return folder


DETECTOR = """
_base_ = ['mmdet::_base_/default_runtime.py']
custom_imports = dict(imports={imports})
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[128, 128, 128], std=[64, 64, 64], pad_size_divisor=32),
    backbone=dict(
        type='mmsoc.VideoSwin', arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), window_size=(1, 4, 4)),
    neck={neck},
    bbox_head=dict(
        type='RetinaHead', num_classes=1, in_channels=32, stacked_convs=1, feat_channels=32,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.], strides=[4, 8, 16, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=[1.] * 4),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss')),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=10, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset', data_root={root!r}, ann_file='a.json', data_prefix=dict(img=''), metainfo=dict(classes=('box', )),
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(96, 64)), dict(type='PackDetInputs')]))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(interval=1))
"""

FUSED_NECK = """
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule


@MODELS.register_module()
class PromptedFPN(BaseModule):
    # mmdet's FPN whose levels mmsoc's fusion gates by words that are learned.

    def __init__(self, in_channels, num_words=3):
        super().__init__()
        self.fpn = MODELS.build(dict(type='FPN', in_channels=in_channels, out_channels=32, num_outs=4))
        gate = dict(type='mmsoc.CrossAttentionGate', embed_dims=32, num_heads=4)
        self.fusion = MODELS.build(dict(type='mmsoc.MMF', l2v=gate, v2l=gate))
        self.words = torch.nn.Parameter(torch.randn(num_words, 32))

    def forward(self, maps):
        levels = self.fpn(maps)
        clips = len(levels[0])
        words = self.words.expand(clips, -1, -1)
        fused = self.fusion(
            levels, words, words.new_zeros(words.shape[:2], dtype=torch.bool),
            [level.new_zeros(level[:, 0].shape, dtype=torch.bool) for level in levels],
            [torch.zeros_like(level) for level in levels])
        return tuple(level + gated + 0 * fused.guidance.sum() for level, gated in zip(levels, fused.levels))
"""


@pytest.mark.parametrize(
    ('neck', 'imports'),
    [
        ("dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, num_outs=4)", ['mmsoc']),
        ("dict(type='PromptedFPN', in_channels=[16, 32, 64, 128])", ['mmsoc', 'my_neck']),
    ],
    ids=['VideoSwin', 'VideoSwin and MMF'],
)
def test_an_mmdet_project_trains_a_detector_with_mmsoc_s_parts(run, coco, tmp_path, neck, imports):
    """mmdet's own tool, mmdet's default scope."""
    import mmdet

    (tmp_path / 'my_neck.py').write_text(FUSED_NECK)
    (tmp_path / 'detector.py').write_text(DETECTOR.format(neck=neck, imports=imports, root=str(coco) + '/'))
    tool = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    output = run(tool, 'detector.py', '--work-dir', 'work', cwd=tmp_path, path=[tmp_path])
    steps = [line for line in output.splitlines() if 'Epoch(train)' in line]
    losses = [float(line.split(' loss: ')[1].split()[0]) for line in steps]
    assert len(losses) == 6 and np.isfinite(losses).all(), output[-2000:]
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()


@pytest.fixture(
    scope='module', params=['as released', 'repaired', pytest.param('fails half-way', marks=pytest.mark.slow)]
)
def users_mmaction(request, tmp_path_factory):
    """A folder with the user's own mmaction2 (none: the installed one, whose `import mmaction.models` fails)."""
    if request.param == 'as released':
        return []
    folder = tmp_path_factory.mktemp('users')
    copy = folder / 'mmaction'
    shutil.copytree(
        Path(importlib.util.find_spec('mmaction').origin).parent,
        copy,
        ignore=shutil.ignore_patterns('.mim', '__pycache__'),
    )
    models = copy / 'models' / '__init__.py'
    lines = ['from .backbones.swin import SwinTransformer3D', 'from .backbones.c3d import C3D']
    models.write_text(
        '\n'.join(lines + (['raise ImportError("half-way")'] if request.param == 'fails half-way' else [])) + '\n'
    )
    for package in ('backbones', 'utils', 'common', 'localizers', 'multimodal'):
        init = copy / 'models' / package / '__init__.py'
        if init.is_file():
            init.write_text('')
    return [folder]


THEIRS = """
try:
    import mmaction.models
    print('works', mmaction.registry.MODELS.build(dict(type='SwinTransformer3D', arch='tiny')).__class__.__name__)
except Exception as error:
    print(type(error).__name__, str(error)[:60])
"""
OURS = """
from mmsoc.models import VideoSwin
print(sum(p.numel() for p in VideoSwin(arch='tiny').parameters()))
"""


@pytest.fixture(scope='module')
def theirs_alone(run, users_mmaction, tmp_path_factory):
    return run('-c', THEIRS, cwd=tmp_path_factory.mktemp('theirs'), path=users_mmaction).splitlines()[-1]


@pytest.fixture(scope='module')
def theirs_after_ours(run, users_mmaction, theirs_alone, tmp_path_factory):
    """The same, but that mmsoc makes mmaction2 accept the mmcv of OneDL's fork."""
    if 'mmcv' in mmsoc.dependencies():
        return theirs_alone
    accepted = 'import mmcv\nmmcv.__version__ = "2.1.0"\n' + THEIRS
    return run('-c', accepted, cwd=tmp_path_factory.mktemp('accepted'), path=users_mmaction).splitlines()[-1]


@pytest.fixture(scope='module')
def ours_alone(run, tmp_path_factory):
    return run('-c', OURS, cwd=tmp_path_factory.mktemp('ours')).splitlines()[-1]


@pytest.mark.parametrize('order', ['mmaction first', 'mmsoc first'])
def test_beside_the_user_s_own_mmaction2(
    run, tmp_path, users_mmaction, theirs_alone, theirs_after_ours, ours_alone, order
):
    """What the user's import does is what it does without mmsoc, and mmsoc's backbone works in any case."""
    programs = [THEIRS, OURS] if order == 'mmaction first' else [OURS, THEIRS]
    expected = [theirs_alone, ours_alone] if order == 'mmaction first' else [ours_alone, theirs_after_ours]
    assert run('-c', ''.join(programs), cwd=tmp_path, path=users_mmaction).splitlines()[-2:] == expected


def test_deepspeed_says_that_it_is_untested(run, site, tmp_path):
    config = site / 'mmsoc' / '.mim' / 'configs' / 'soc' / 'soc_swin-b_ytvos_deepspeed.py'
    assert config.read_text().startswith('# UNTESTED')
    shown = run(site / 'mmsoc' / '.mim' / 'tools' / 'analysis_tools' / 'print_config.py', config, cwd=tmp_path)
    assert "type='DeepSpeedStrategy'" in shown
