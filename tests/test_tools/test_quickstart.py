"""The quickstart's plan; the whole of it is too long for a test."""
import pytest
from mmengine import Config

from tools import quickstart


@pytest.mark.parametrize('epochs', [2, 7, 17, 200])
def test_the_stages_keep_their_shares(epochs):
    cfg = Config.fromfile(quickstart.CONFIG)
    own = dict(cfg.family_starts)
    cfg.merge_from_dict(dict(option_value(option) for option in quickstart.stages(cfg, epochs)))
    starts = cfg.train_dataloader.sampler.family_starts
    switch = next(hook for hook in cfg.custom_hooks if hook.type == 'mmdet.PipelineSwitchHook').switch_epoch
    assert starts['appearance'] == 0 and 0 < switch < epochs
    # sentences about time never meet single frames
    assert switch <= starts['change'] <= starts['order'] < epochs
    for family, start in own.items():
        assert abs(starts[family] / epochs - start / cfg.max_epochs) <= 0.5 / epochs or epochs == 2


def option_value(option):
    key, value = option.split('=')
    return key, int(value)
