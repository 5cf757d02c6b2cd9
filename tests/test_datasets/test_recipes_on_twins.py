"""Every config loads its data sets: built and read on the twins, through the whole pipelines."""

import json

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmsoc.preparation import twins
from mmsoc.preparation.moving_shapes import Settings
from mmsoc.registry import METRICS
from mmsoc.visualization import RVOSLocalVisualizer
from tests.conftest import ROOT
from tools.analysis_tools import browse_dataset, try_recipe

SOC = ROOT / 'configs' / 'soc'
CONFIGS = sorted(
    path
    for folder in (SOC, ROOT / 'configs' / 'referformer', ROOT / 'configs' / 'pretrain')
    for path in folder.rglob('*.py')
    if 'moving-shapes' not in str(path.relative_to(folder)) and path.parent.name != 'sanity'
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('twins')
    source = twins.Source(Settings(train_videos=4, valid_videos=4, num_frames=12), public=False)
    for layout in twins.LAYOUTS:
        twins.write_twin(root, layout, source, False)
    return root


@pytest.fixture(scope='module')
def seen():
    return {}


def browsed(clip, sample):
    return browse_dataset.row_of_sample(dict(inputs=clip, data_samples=sample), RVOSLocalVisualizer(), 4)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: str(path.relative_to(ROOT / 'configs')))
def test_recipe_loads_its_data(path, data, seen, monkeypatch):
    monkeypatch.setenv('MMSOC_DATA', str(data))
    init_default_scope('mmsoc')
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        key = json.dumps([split == 'train', loader, cfg.get(f'{split}_evaluator')], sort_keys=True, default=str)
        if key in seen:  # ablations of the model read what their base reads
            continue
        seen[key] = path
        sizes = [part for part in try_recipe.dicts(loader) if any(key in part for key in try_recipe.SIZES)]
        assert sizes, f'{split}: an incomplete copy of the data set would not be noticed'
        built = Runner.build_dataloader(try_recipe.shrink_loader(loader, (96, 64)), seed=0)
        batch = next(iter(built))
        assert len(built.dataset) > 0 and len(batch['inputs']) == min(loader.batch_size, len(built.dataset))
        for clip, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            height, width = clip.shape[2:]
            cropped = 'referformer' in path.stem and split == 'train' and height == width == 64
            assert clip.ndim == 4 and clip.shape[1] == 3 and (max(height, width) == 96 or cropped)
            assert sample.texts and all(sample.texts)
            if split == 'train':
                masks = [frame.gt_instances.masks for frame in sample if 'gt_instances' in frame]
                assert masks and all(m.masks.shape == (len(sample.texts), *clip.shape[2:]) for m in masks)
        if sample.get('gt_rles') is not None:
            drawn = browsed(clip, sample)
            sample.set_metainfo(dict(gt_rles=None))
            changed = (drawn != browsed(clip, sample)).any(-1)
            assert 0 < changed.mean() < 0.9, 'browse_dataset.py does not draw the masks'
        if split != 'train':
            METRICS.build(cfg[f'{split}_evaluator'])
