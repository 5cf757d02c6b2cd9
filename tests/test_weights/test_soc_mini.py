"""The weights that come with mmsoc give the recorded scores: the test for whatever could spoil results but not shapes."""

import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors import safe_open

from mmsoc.apis.model_loading import load_model
from mmsoc.conversion import ReleasedStateDictAdapter
from mmsoc.datasets.transforms import LoadVideoFrames
from mmsoc.preparation.moving_shapes import Settings, generate
from mmsoc.registry import MODELS
from mmsoc.weights import TABLE, load_checkpoint
from mmsoc.weights.download import sha256_of
from tests.conftest import ROOT

# J&F in percent on 32 videos that no training saw, a fifth larger than those of training.
EXPECTED = dict(appearance=92.1, relation=84.5, change=83.8, order=55.9)
TOLERANCE = 0.5


@pytest.fixture(scope='session')
def videos(tmp_path_factory):
    out = tmp_path_factory.mktemp('gate') / 'moving-shapes'
    generate(out, Settings(seed=1000, train_videos=4, valid_videos=32, width=120, height=80), workers=1)
    return out


def scores(videos, folder, options=(), model_options=None, change=lambda model: None):
    """J&F by family, through the test pipeline of the config."""
    cfg = Config.fromfile(ROOT / 'configs/soc/soc_mini_moving-shapes.py')
    out = folder / 'test.json'
    cfg.merge_from_dict(
        {
            'test_dataloader.dataset.data_root': str(videos),
            'test_dataloader.dataset.indices': None,
            'test_evaluator.out_file': str(out),
            **dict(options),
        }
    )
    model = load_model(None, 'soc-mini', 'cpu', model_options).model
    change(model)
    runner = Runner(
        model,
        str(folder),
        test_dataloader=cfg.test_dataloader,
        test_cfg=cfg.test_cfg,
        test_evaluator=cfg.test_evaluator,
        log_level='WARNING',
        default_scope='mmsoc',
        experiment_name=folder.name,
    )
    runner.test()
    rows = json.loads(out.read_text())['rows']
    assert len({row['video'] for row in rows}) == 32
    return {
        family: 100 * torch.tensor([row['J&F'] for row in rows if row['family'] == family]).mean().item()
        for family in EXPECTED
    }


def differs(found):
    return any(abs(found[family] - expected) > TOLERANCE for family, expected in EXPECTED.items())


def test_the_recorded_scores(videos, tmp_path):
    found = scores(videos, tmp_path)
    assert not differs(found), found


def test_bgr_instead_of_rgb_is_noticed(videos, tmp_path):
    assert differs(scores(videos, tmp_path, model_options={'model.data_preprocessor.bgr_to_rgb': True}))


def test_nearest_instead_of_bilinear_is_noticed(videos, tmp_path):
    resize = {'test_dataloader.dataset.pipeline.1.transforms.0.interpolation': 'nearest'}
    assert differs(scores(videos, tmp_path, resize))


def test_masks_of_nearest_instead_of_bilinear_are_noticed(videos, tmp_path, monkeypatch):
    interpolate = torch.nn.functional.interpolate

    def nearest(x, *args, mode='nearest', align_corners=None, **kwargs):
        return interpolate(x, *args, mode='nearest', **kwargs)

    monkeypatch.setattr(torch.nn.functional, 'interpolate', nearest)
    assert differs(scores(videos, tmp_path))


def test_a_frame_late_is_noticed(videos, tmp_path, monkeypatch):
    transform = LoadVideoFrames.transform

    def late(self, results):
        results = transform(self, results)
        return results | dict(img=[results['img'][0], *results['img'][:-1]])

    monkeypatch.setattr(LoadVideoFrames, 'transform', late)
    assert differs(scores(videos, tmp_path))


def test_the_released_names_and_back(videos, tmp_path):
    """The released layout holds the same network: its weights, renamed there and back, give the recorded scores."""
    adapter = ReleasedStateDictAdapter(strict=False)

    def through_released_names(model):
        weights = model.state_dict()
        released = adapter.to_released({name: value.clone() for name, value in weights.items()})
        assert (
            'transformer.encoder.layers.0.self_attn.value_proj.weight' in released and released.keys() != weights.keys()
        )
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        model.load_state_dict(adapter.to_mmsoc(released))

    found = scores(videos, tmp_path, change=through_released_names)
    assert not differs(found), found


def test_the_table_has_the_scores_of_the_file():
    """What tools/weights.py prints is what tools/test.py measured and publish_model.py stored."""
    for weights in TABLE.values():
        if weights.shipped is None:
            continue
        path = weights.shipped_path
        assert sha256_of(path).startswith(path.stem.rpartition('-')[2]) and path.stat().st_size <= 16e6
        with safe_open(path, 'pt') as file:
            stored = json.loads(file.metadata()['scores'])
        for name, value in weights.scores.items():
            assert 100 * stored[name] == pytest.approx(value, abs=0.051)


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('soc_mini_moving-shapes_short.py', 'soc-mini'),
        ('ablations/moving-shapes/base.py', 'soc-mini_pretrained'),
    ],
)
def test_pretrained_parts_fit_the_short_recipes(config, name):
    cfg = Config.fromfile(ROOT / 'configs/soc' / config)
    assert cfg.load_from == name
    weights = load_checkpoint(cfg.load_from)['state_dict']
    model = MODELS.build(cfg.model)
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == 'StartingPointHook')
    (pattern,) = hook.from_scratch
    own = model.state_dict()
    taken = {name for name in own if not re.search(pattern, name)}
    if name == 'soc-mini':
        assert weights.keys() == own.keys()
    else:
        assert weights.keys() == taken
    assert all(weights[name].shape == own[name].shape for name in taken)
    assert {name.split('.')[0] for name in taken} == {'backbone', 'neck', 'text_encoder', 'auxiliary_heads'}
