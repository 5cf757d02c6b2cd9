import importlib.util
import math
import os
import sys

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmsoc.registry import DATASETS, EVALUATOR, METRICS
from tests.test_datasets.tiny_ref_youtube_vos import VIDEOS, write_split

CONFIGS = ['ref_youtube_vos.py', 'ref_davis17_mini_sanity.py']


def load(root, name, monkeypatch, data):
    monkeypatch.setenv('MMSOC_DATA', str(data))
    return Config.fromfile(root / 'configs/_base_/datasets' / name)


@pytest.mark.parametrize('name', CONFIGS)
def test_data_root(root, name, monkeypatch):
    cfg = load(root, name, monkeypatch, '/some/where')
    assert cfg.train_dataloader.dataset.data_root.startswith('/some/where/ref-')
    monkeypatch.delenv('MMSOC_DATA')
    assert Config.fromfile(root / 'configs/_base_/datasets' / name).data_root.startswith('data/ref-')


def test_ref_youtube_vos_config(root, tmp_path, monkeypatch):
    data = tmp_path / 'ref-youtube-vos'
    write_split(data, 'train', VIDEOS)
    write_split(data, 'valid', VIDEOS)
    cfg = load(root, 'ref_youtube_vos.py', monkeypatch, tmp_path)
    with pytest.raises(ValueError, match='should give 3471 videos, found 2'):
        DATASETS.build(cfg.train_dataloader.dataset)
    cfg.merge_from_dict(
        {
            'train_dataloader.dataset.expected_videos': None,
            'test_dataloader.dataset.expected_videos': None,
            'train_dataloader.num_workers': 0,
            'test_dataloader.num_workers': 0,
        }
    )
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    assert batch['inputs'][0].shape == (8, 3, 360, 600)  # 40x24: the short side 24 becomes 360
    assert len(batch['data_samples'][0].texts) == 1
    batches = list(Runner.build_dataloader(cfg.test_dataloader, seed=0))
    assert [len(batch['data_samples'][0].texts) for batch in batches] == [2, 1]
    assert type(METRICS.build(cfg.test_evaluator)).__name__ == 'JFMetric'


def test_validation_without_masks_is_refused_before_training(root, tmp_path, monkeypatch):
    write_split(tmp_path / 'ref-youtube-vos', 'valid', VIDEOS, with_objects=False, masks=False)
    cfg = load(root, 'ref_youtube_vos.py', monkeypatch, tmp_path)
    cfg.val_dataloader.dataset.expected_videos = None
    with pytest.raises(FileNotFoundError, match='require_masks: .*val_cfg=None'):
        DATASETS.build(cfg.val_dataloader.dataset)


def test_sanity_config(root, tmp_path, monkeypatch, reference):
    cfg = load(root, 'ref_davis17_mini_sanity.py', monkeypatch, reference / 'data')
    cfg.train_dataloader.dataset.cache_dir = str(tmp_path)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    # 40 and 50 frames, four sentences each; 854x480 is cut to the long side of `scale`
    assert len(loader.dataset) == 4 * (math.ceil(40 / cfg.num_frames) + math.ceil(50 / cfg.num_frames))
    assert next(iter(loader))['inputs'][0].shape[::3] == (cfg.num_frames, max(cfg.scale))
    assert len(Runner.build_dataloader(cfg.test_dataloader, seed=0)) == 2
    assert EVALUATOR.build(dict(type='mmengine.Evaluator', metrics=cfg.test_evaluator))


@pytest.fixture
def browse(root, monkeypatch):
    path = root / 'tools/analysis_tools/browse_dataset.py'
    spec = importlib.util.spec_from_file_location('browse_dataset', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['browse_dataset.py', *map(str, arguments)])
        module.main()

    return run


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_browse(root, tmp_path, monkeypatch, browse, capsys, split):
    data = tmp_path / 'ref-davis17-mini'
    write_split(data, 'valid', VIDEOS, size=(48, 80))
    monkeypatch.setenv('MMSOC_DATA', str(tmp_path))
    config = root / 'configs/_base_/datasets/ref_davis17_mini_sanity.py'
    images = []
    for seed in (0, 0, 1):
        out = tmp_path / 'out' / f'{len(images)}.png'
        browse(config, '--split', split, '--num', 3, '--out', out, '--seed', seed, '--cfg-options',
               f'train_dataloader.dataset.cache_dir={tmp_path}')  # fmt: skip
        images.append(np.array(Image.open(out)))
    assert f'of {split}' in capsys.readouterr().out
    assert np.array_equal(images[0], images[1])
    if split == 'train':
        assert images[0].shape != images[2].shape or not np.array_equal(images[0], images[2])
    assert images[0].shape[1] >= 4 * 100  # four frames of a window
    assert not any(name.startswith('.') for name in os.listdir(tmp_path / 'out'))


def test_browse_bad_arguments(root, browse, capsys):
    with pytest.raises(SystemExit):
        browse(root / 'configs/_base_/datasets/ref_davis17_mini_sanity.py', '--num', 0)
    assert 'at least 1' in capsys.readouterr().err
