"""tools/analysis_tools/compare_steps.py: a revision against itself takes the same steps, and leaves no worktree behind."""

import json
import shutil
import sys

import pytest

from tests.conftest import ROOT
from tools.analysis_tools import compare_steps

pytestmark = pytest.mark.skipif(not (ROOT / '.git').exists() or not shutil.which('git'), reason='no git checkout')


def run(monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['compare_steps.py', *map(str, options)])
    compare_steps.main()


@pytest.mark.slow
def test_head_against_itself(monkeypatch, tmp_path, capsys):
    before = compare_steps.git('worktree', 'list')
    out = tmp_path / 'steps.json'
    with compare_steps.checked_out('HEAD') as root:
        monkeypatch.setattr(compare_steps, 'ROOT', root)
        run(monkeypatch, 'HEAD', '--case', 'small-pictures', '--runs', 2, '--warm-up', 1, '--out', out)
        monkeypatch.undo()
    assert compare_steps.git('worktree', 'list') == before

    figures = json.loads(out.read_text())
    commit = compare_steps.git('rev-parse', 'HEAD')
    assert figures['revision'] == commit and figures['working_tree'] == dict(head=commit, changed=False)
    case = figures['cases']['small-pictures']
    old, new = case['sides'].values()
    # each side its own code, and the same numbers in every step
    assert old['mmsoc'] != new['mmsoc'] and not old['mmsoc'].startswith(str(ROOT))
    assert case['loss_difference'] == case['first_loss_difference'] == 0 and old['last_loss'] == new['last_loss']
    assert old['last_loss'] != old['first_loss']
    for side in (old, new):
        assert len(side['all_seconds']) == 2 and side['threads'] == 1 and side['peak_bytes'] > 1e8
        assert all(side['parts'][part] > 0 for part in compare_steps.PARTS)
    assert case['ratio'] == new['seconds'] / old['seconds']
    printed = capsys.readouterr().out
    assert (
        f'| {case["ratio"]:.3f} |' in printed and f'revision: {commit[:12]}; working tree: {commit[:12]}\n' in printed
    )


def test_a_side_without_mmsoc(tmp_path, capfd):
    with pytest.raises(SystemExit, match='ended with 1'):
        compare_steps.compare({'revision': tmp_path}, compare_steps.CASES['small-pictures'], 1, 1, 1)
    assert f'expected it in {tmp_path}' in capfd.readouterr().err


def test_mistakes(monkeypatch, capsys):
    with pytest.raises(SystemExit, match='no-such-revision'):
        run(monkeypatch, 'no-such-revision')
    with pytest.raises(SystemExit):
        run(monkeypatch, '--runs', 0)
    assert '--runs must be at least 1, found 0' in capsys.readouterr().err


def test_quartiles():
    assert compare_steps.quartiles([1, 2, 3, 4, 5]) == [2, 4] and compare_steps.quartiles([7]) == [7, 7]
