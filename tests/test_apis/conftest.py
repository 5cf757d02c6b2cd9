"""A small model, its config and its data."""

import pytest
import torch
from mmengine.config import Config

from mmsoc.apis import SOCInferencer
from tests.conftest import ROOT
from tests.helpers import small_model
from tests.test_engine.small_soc import write_config, write_data

SCALE = (44, 33)  # the frames are 64x48


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def config(data, tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'small.py'
    # Two sentences at a time, so that a video with three needs two passes.
    cfg = Config.fromfile(write_config(path, data, **{'model.test_cfg.frames_per_pass': 16}))
    cfg.test_dataloader.dataset.pipeline[1].transforms[0].scale = SCALE
    cfg.dump(path)
    return path


@pytest.fixture(scope='module')
def weights(config, tmp_path_factory):
    """A checkpoint as a Runner writes it, with the config."""
    path = tmp_path_factory.mktemp('weights') / 'epoch_1.pth'
    meta = dict(epoch=1, cfg=Config.fromfile(config).pretty_text)
    model = small_model(ROOT)
    for parameter in model.parameters():  # so that scores and masks differ between queries, sentences and frames
        parameter.data += 0.05 * torch.randn_like(parameter)
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def infer(weights):
    return SOCInferencer(weights=weights, device='cpu', show_progress=False)
