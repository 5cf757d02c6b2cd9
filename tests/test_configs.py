"""Every config is built; every distinct model trains, wrapped as in distributed training, and predicts."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine import Config
from mmengine.model import MMDistributedDataParallel

from mmsoc.inference import A2DMasks, PredictionConfig
from mmsoc.registry import DATASETS, MODELS
from tests.conftest import ROOT
from tests.helpers import make_sample, offline_text_encoder, random_clip

CONFIGS = sorted(
    path
    for folder, pattern in (
        ('soc', '*.py'),
        ('referformer', '*.py'),
        ('pretrain', 'soc_*.py'),
        ('pretrain', 'refer*.py'),
    )
    for path in (ROOT / 'configs' / folder).rglob(pattern)
)
ABLATIONS = {  # the one sub-module in which each differs from its base
    'voc_none': 'sim.cluster',
    'voc_average': 'sim.cluster',
    'voc_conv1d': 'sim.cluster',
    'voc_kmeans': 'sim.cluster',
    'voc_encoder-only': 'sim.cluster',
    'voc_decoder-only': 'sim.cluster',
    'fusion_none': 'fusion',
    'fusion_l2v': 'fusion.v2l',
    'fusion_v2l': 'fusion.l2v',
    'queries_10': 'sim',
    'queries_15': 'sim',
    'queries_25': 'sim',
}
TWINS = {  # the sub-modules in which each small twin differs from its base
    **{name: (part,) for name, part in ABLATIONS.items() if not name.startswith('queries')},
    **{f'queries_{number}': ('sim',) for number in (4, 6, 10)},
    'vl_none': ('criterion', 'fusion.v2l'),
    'voc-vl_none': ('criterion', 'fusion.v2l', 'sim.cluster'),
    'frame-position': ('sim.cluster',),
    'frame-backbone': ('backbone',),
    'frame-backbone_voc_none': ('backbone', 'sim.cluster'),
    'frame-backbone_frame-position': ('backbone', 'sim.cluster'),
    'referformer': ('criterion', 'fusion.v2l', 'head', 'sim.cluster', 'sim.query_content'),
}
FRAMES = {'frames_3': 3, 'frames_5': 5, 'frames_10': 10}


def model_cfg(path: Path, tiny_text: bool = True):
    cfg = Config.fromfile(path).model
    if tiny_text and cfg.text_encoder.get('pretrained'):
        offline_text_encoder(cfg)
    return cfg


def distinct() -> dict[str, Path]:
    """One config of each different model."""
    found: dict[str, Path] = {}
    for path in CONFIGS:
        found.setdefault(json.dumps(model_cfg(path), sort_keys=True, default=str), path)
    return {str(path.relative_to(ROOT / 'configs')): path for path in found.values()}


DISTINCT = distinct()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: str(path.relative_to(ROOT / 'configs')))
def test_every_config_is_complete(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmsoc'
    for key in (
        'train_dataloader',
        'val_dataloader',
        'test_dataloader',
        'val_evaluator',
        'test_evaluator',
        'optim_wrapper',
        'train_cfg',
        'val_cfg',
        'test_cfg',
        'default_hooks',
    ):
        assert cfg.get(key) is not None, key
    for split in ('train', 'val', 'test'):
        DATASETS.build(unread(cfg[f'{split}_dataloader'].dataset))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: str(path.relative_to(ROOT / 'configs')))
def test_how_every_config_predicts(path):
    """No config has keys of an earlier version, and each has the predictions that its metrics read."""
    cfg = Config.fromfile(path)
    assert set(cfg.model.test_cfg) <= {field.name for field in fields(PredictionConfig)}
    found = PredictionConfig.from_dict(cfg.model.test_cfg)
    metrics = [metric for key in ('val_evaluator', 'test_evaluator') for metric in as_list(cfg[key])]
    assert found.selector.single == all(metric.type != 'A2DMetric' for metric in metrics)
    assert (type(found.output) is A2DMasks) == (not found.selector.single)
    by_probability = any(
        metric.type == 'RefDAVIS17Metric' and metric.get('overlap', 'probability') == 'probability'
        for metric in metrics
    )
    assert found.output.keeps_logits == by_probability


def as_list(evaluator):
    return evaluator if isinstance(evaluator, list) else [evaluator]


def unread(dataset):
    """A data set's config, such that it is built without its files."""
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [unread(part) for part in dataset.datasets], 'lazy_init': True}
    return {**dataset, 'lazy_init': True, 'serialize_data': False}


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    """A process group of one: enough for DDP to notice a parameter without gradient."""
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path_factory.mktemp("dist")}/rendezvous', rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('name', DISTINCT)
def test_every_distinct_model(name, one_process):
    torch.manual_seed(0)
    model = MODELS.build(model_cfg(DISTINCT[name]))
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    video, masks = random_clip(2, (64, 80))
    sample = make_sample((64, 80), ['a red car'], masks)
    wrapped.train()
    for _ in range(2):  # DDP complains about the first step in the second
        losses = wrapped(video[None], [sample], mode='loss')
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    model.eval()
    sample = make_sample((64, 80), ['a red car', 'the dog'], num_frames=2)
    single = model.test_cfg.selector.single
    if not single:  # of clips with one annotated frame
        sample.key_frames_inds = [1]
    (found,) = model(video[None], [sample], mode='predict')
    assert len(found.pred_masks) == 2 and len(found.pred_masks[0]) == (2 if single else 1)


def parts(model) -> dict[str, tuple]:
    return {
        name: (type(module).__name__, module.extra_repr(), sorted(n for n, _ in module.named_parameters(recurse=False)))
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize('name', ABLATIONS)
def test_an_ablation_differs_in_one_sub_module(name):
    base = parts(MODELS.build(model_cfg(ROOT / 'configs' / 'soc' / 'soc_swin-t_ytvos.py')))
    ablation = parts(MODELS.build(model_cfg(ROOT / 'configs' / 'soc' / 'ablations' / f'{name}.py')))
    differing = {part for part in base.keys() | ablation.keys() if base.get(part) != ablation.get(part)}
    where = ABLATIONS[name]
    assert differing, 'the same model'
    assert all(part == where or part.startswith(f'{where}.') for part in differing), differing


@pytest.mark.parametrize('name', TWINS)
def test_a_small_twin_differs_in_the_same_sub_modules(name):
    folder = ROOT / 'configs' / 'soc' / 'ablations' / 'moving-shapes'
    base, twin = (Config.fromfile(folder / f'{stem}.py') for stem in ('base', name))
    assert {key for key in base if base[key] != twin.get(key)} <= {'model', 'num_queries', '_attention'}
    differing = differences(base.model, twin.model)
    where = TWINS[name]
    assert differing and all(any(f'{key}.'.startswith(f'{part}.') for part in where) for key in differing), differing
    assert all(any(f'{key}.'.startswith(f'{part}.') for key in differing) for part in where), differing
    assert {path.stem for path in folder.glob('*.py')} == {'base', *TWINS}


def differences(a: dict, b: dict, prefix: str = '') -> set[str]:
    """Dotted keys in which two configs differ."""
    found: set[str] = set()
    for key in a.keys() | b.keys():
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= differences(one, other, f'{prefix}{key}.')
        elif one != other:
            found.add(prefix + key)
    return found


def test_ablations_are_all_looked_at():
    paths = {path.stem for path in (ROOT / 'configs' / 'soc' / 'ablations').glob('*.py')}
    assert paths == set(ABLATIONS) | set(FRAMES) | {
        'vl_none'
    }  # vl_none drops a loss and the stream that serves it alone


@pytest.mark.parametrize('name', FRAMES)
def test_frame_numbers_differ_in_the_clips_alone(name):
    base, other = (
        Config.fromfile(ROOT / 'configs' / 'soc' / path) for path in ('soc_swin-t_ytvos.py', f'ablations/{name}.py')
    )
    assert other.train_dataloader.dataset.clip_sampler.pop('num_frames') == FRAMES[name]
    base.train_dataloader.dataset.clip_sampler.pop('num_frames')
    assert other.train_dataloader == base.train_dataloader and other.model == base.model


@pytest.mark.parametrize('name, number', [('queries_10', 10), ('queries_15', 15), ('queries_25', 25)])
def test_query_numbers(name, number):
    model = MODELS.build(model_cfg(ROOT / 'configs' / 'soc' / 'ablations' / f'{name}.py'))
    assert len(model.sim.query_embed.weight) == len(model.sim.cluster.query_pos.weight) == number


def test_a_gradient_reaches_every_parameter_of_the_full_size_model():
    """RoBERTa-base sizes, Video-Swin-T; text trained as well, so that its gradients are looked at too."""
    cfg = model_cfg(ROOT / 'configs' / 'soc' / 'soc_swin-t_ytvos.py', tiny_text=False)
    cfg.text_encoder.update(tokenizer=dict(type='HashTokenizer', vocab_size=50265), frozen=False)
    cfg.backbone.drop_path_rate = 0.0  # else whole blocks are dropped by chance
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    for parameter in model.parameters():  # weights that start at zero hide what lies before them
        parameter.data += 0.02 * torch.randn_like(parameter)
    video, masks = random_clip(2, (64, 80))
    losses = model(video[None], [make_sample((64, 80), ['a red car on the road'], masks)], mode='loss')
    sum(losses.values()).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # The first decoder layer's content is zero: its self-attention has nothing to weigh.
    silent -= {'sim.decoder.layers.0.self_attn.attn.in_proj_weight'}
    assert not silent


def test_defaults_follow_the_paper_and_released_the_release():
    paper = Config.fromfile(ROOT / 'configs' / 'soc' / 'soc_swin-t_ytvos.py').model
    released = Config.fromfile(ROOT / 'configs' / 'soc' / 'released' / 'soc_swin-t_ytvos.py').model
    for cfg, dice, focal, exponent, fcs, layer in ((paper, 2, 5, 0.5, 3, -1), (released, 5, 2, 1.0, 1, 0)):
        assert cfg.criterion.loss_dice.loss_weight == dice and cfg.criterion.loss_mask.loss_weight == focal
        assert cfg.criterion.loss_contrastive.dim_exponent == exponent
        assert cfg.head.num_cls_fcs == fcs and cfg.test_cfg.predict_layer == layer


def test_no_download_is_needed_to_build(monkeypatch):
    monkeypatch.setattr('socket.socket.connect', lambda *args: pytest.fail('a config was built with a download'))
    MODELS.build(Config.fromfile(ROOT / 'configs' / 'soc' / 'soc_swin-b_ytvos.py').model)
