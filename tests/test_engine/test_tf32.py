"""Plain float32 switches TF32 off in convolutions and in matrix products, and the switch turns both on."""

import runpy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmsoc.utils.precision import use_tf32
from tests.conftest import ROOT

CONFIG = ROOT / 'tests' / 'test_engine' / 'toy_config.py'


@pytest.fixture(autouse=True)
def defaults():
    """PyTorch's: TF32 in convolutions alone."""
    before = flags()
    set_flags(False, True)
    yield
    set_flags(*before)


def flags():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def set_flags(matmul, cudnn):
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


@pytest.mark.parametrize(
    'options', [(), ('--tf32',), {'default_hooks.tf32.enabled': True}], ids=['default', 'flag', 'config']
)
def test_a_run_has_one_precision(options, tmp_path):
    """The flags at the first training step, of a run that is started by a config and by tools/train.py's option."""
    cfg = Config.fromfile(CONFIG)
    if isinstance(options, dict):
        cfg.merge_from_dict(options)
    elif options:
        runpy.run_path(str(ROOT / 'tools' / 'train.py'))['turn_on_tf32'](cfg)
    cfg.work_dir, cfg.experiment_name = str(tmp_path), tmp_path.name
    cfg.train_cfg.max_epochs, cfg.log_level = 1, 'ERROR'
    cfg.train_dataloader.num_workers = 0
    runner = Runner.from_cfg(cfg)
    seen = []
    step = runner.model.train_step
    runner.model.train_step = lambda *args, **kwargs: (seen.append(flags()), step(*args, **kwargs))[1]
    runner.train()
    assert set(seen) == ({(True, True)} if options else {(False, False)})


def test_use_tf32_puts_both_flags_back():
    for enabled in (True, False):
        with pytest.raises(KeyError), use_tf32(enabled):
            assert flags() == (enabled, enabled)
            raise KeyError
        assert flags() == (False, True)
