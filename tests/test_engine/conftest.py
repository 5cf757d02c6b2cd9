import os
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner


@pytest.fixture
def toy_config():
    return Path(__file__).parent / 'toy_config.py'


@pytest.fixture
def run(tmp_path, toy_config):
    """A function that builds a Runner of the toy config in ``tmp_path/NAME``; ``edit`` changes the config."""

    def build(name, edit=None, **options):
        cfg = Config.fromfile(toy_config)
        # MMEngine's message hub lives as long as its name: two runs of one second would share it.
        cfg.merge_from_dict(
            dict(work_dir=str(tmp_path / name), experiment_name=f'{name}_{os.urandom(4).hex()}', log_level='ERROR')
        )
        cfg.merge_from_dict({'train_dataloader.num_workers': 0, **options})
        if edit is not None:
            edit(cfg)
        return Runner.from_cfg(cfg)

    return build
