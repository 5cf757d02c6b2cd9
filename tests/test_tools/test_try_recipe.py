"""tools/analysis_tools/try_recipe.py: from a recipe to equal scores of one and two processes, on the twins."""

import json
import os
import subprocess
import sys

import pytest
from mmengine.config import Config

from tests.conftest import ROOT
from tools.analysis_tools import try_recipe

RECIPES = {  # config -> a number of its report that a small model does not leave at zero
    'soc/soc_swin-t_ytvos.py': 'J&F',
    'soc/soc_swin-t_ytvos_ref-davis17.py': 'J&F',
    'soc/soc_swin-t_a2d.py': 'mean_IoU',
    'soc/soc_swin-t_a2d_jhmdb.py': 'mean_IoU',
    'soc/soc_swin-t_mevis.py': 'J&F',
    'soc/soc_swin-t_joint.py': 'J&F',
    'pretrain/soc_swin-t_refcoco.py': 'mean_IoU',
}


def run(*arguments):
    command = [sys.executable, ROOT / 'tools' / 'analysis_tools' / 'try_recipe.py', *arguments]
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='', HF_HUB_OFFLINE='1')
    return subprocess.run([*map(str, command)], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize('config', RECIPES)
def test_from_a_recipe_to_equal_scores(config, tmp_path_factory):
    out = tmp_path_factory.getbasetemp() / 'try_recipe'  # one set of twins for all
    result = run(ROOT / 'configs' / config, '--out', out)
    assert result.returncode == 0, result.stdout + result.stderr
    folder = out / (ROOT / 'configs' / config).stem
    one, two = (json.loads((folder / f'report_{procs}.json').read_text()) for procs in (1, 2))
    assert one == two and one['metrics'][RECIPES[config]] > 0
    assert '1 and 2 processes: the same report' in result.stdout


def test_what_stays_of_a_recipe():
    path = ROOT / 'configs' / 'soc' / 'soc_swin-t_a2d.py'
    recipe, cfg = Config.fromfile(path), Config.fromfile(path)
    try_recipe.shrink(cfg, try_recipe.parse_args([str(path)]))
    assert cfg.model.test_cfg == recipe.model.test_cfg and cfg.model.test_cfg.selector.type == 'AllQueries'
    assert cfg.model.sim.num_queries == 8
    assert cfg.train_dataloader.batch_size == recipe.train_dataloader.batch_size == 2
    assert cfg.param_scheduler == recipe.param_scheduler and cfg.test_evaluator == recipe.test_evaluator
    assert cfg.train_dataloader.dataset.expected_videos is None
    resize = cfg.train_dataloader.dataset.pipeline[2].transforms[1]
    assert resize == dict(type='ShortSideResize', scale=(96, 64))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nothing.py'], 'nothing.py: no such config'),
        ([ROOT / 'configs' / 'soc' / 'soc_swin-t_a2d.py', '--procs', '0'], '--procs must be at least 1, found 0'),
    ],
)
def test_mistakes(arguments, message, capsys):
    with pytest.raises(SystemExit):
        try_recipe.parse_args([*map(str, arguments)])
    assert message in capsys.readouterr().err
