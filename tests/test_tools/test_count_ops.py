"""tools/analysis_tools/count_ops.py: operations that can be counted by hand, and stages that add up."""

import json
import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.conftest import ROOT
from tools.analysis_tools import count_ops

TINY = ['--frames', '1', '--size', '64x96', '--clips', '2', '--sentences', '2']


def run(monkeypatch, tmp_path, *options):
    out = tmp_path / 'counts.json'
    config = ROOT / 'configs' / 'soc' / 'soc_tiny_moving-shapes.py'
    monkeypatch.setattr(sys, 'argv', ['count_ops.py', *map(str, (config, *TINY, '--out', out, *options))])
    count_ops.main()
    (figures,) = json.loads(out.read_text())
    return figures


def named(counting):
    """{(phase, stage): {operation: count}}"""
    result = {}
    for (phase, stage, func), number in counting.counts.items():
        result.setdefault((phase, stage), {})[str(func).removeprefix('aten.')] = number
    return result


def test_by_hand():
    x = torch.ones(3, 2, requires_grad=True)
    counting = count_ops.counter_class()()
    with counting:
        with counting.within_stage('outer'):
            y = x.transpose(0, 1)
            with counting.within_stage('inner'):
                y = y * 2 + y[:, :1]
            y = y.exp()
        total = y.sum()
        with counting.within_phase('backward'):
            total.backward()
        with counting.within_phase('optimizer'), torch.no_grad():
            x -= 1
    counts = named(counting)
    # PyTorch also detaches the result that `exp` keeps for its derivative
    assert counts['forward', 'outer'] | {'detach.default': 1} == {
        'transpose.int': 1,
        'exp.default': 1,
        'detach.default': 1,
    }
    inner = counts['forward', 'inner']
    assert (inner['mul.Tensor'], inner['add.Tensor']) == (1, 1) and inner['slice.Tensor'] >= 1
    assert counts['forward', 'all else'] == {'sum.default': 1}
    assert counts['optimizer', 'all else'] == {'sub_.Tensor': 1}
    # each derivative in the stage of what it derives: exp by mul, mul by mul, the broadcast by sum
    assert counts['backward', 'outer']['mul.Tensor'] == 1 and counts['backward', 'outer']['transpose.int'] == 1
    assert counts['backward', 'inner']['mul.Tensor'] == 1 and counts['backward', 'inner']['sum.dim_IntList'] == 1
    assert counts['backward', 'all else']['expand.default'] == 1
    assert not any(phase == 'recomputation' for phase, _ in counts)

    figures = count_ops.summarise(counting.counts)
    assert figures['stages']['outer']['forward'][1] == 1 and figures['phases']['optimizer'] == [1, 1]
    assert figures['total'] == [
        sum(figures['phases'][phase][kind] for phase in ('forward', 'backward')) for kind in range(2)
    ]


@pytest.mark.parametrize('use_reentrant', [False, True])
def test_recomputation_shows(use_reentrant):
    x = torch.ones(3, requires_grad=True)
    counting = count_ops.counter_class()()
    with counting:
        with counting.within_stage('part'):
            y = checkpoint(lambda x: x.exp().sin(), x, use_reentrant=use_reentrant)
        total = y.sum()
        with counting.within_phase('backward'):
            total.backward()
    counts = named(counting)
    assert counts['forward', 'part']['exp.default'] == counts['recomputation', 'part']['exp.default'] == 1
    assert counts['backward', 'part']['cos.default'] == 1


def test_views():
    aten = torch.ops.aten
    for func in (
        aten.view.default,
        aten.slice.Tensor,
        aten.detach.default,
        aten.expand.default,
        aten.split.Tensor,
        aten.unsqueeze.default,
        aten.alias.default,
        aten.unbind.int,
        aten.permute.default,
        aten._unsafe_view.default,
    ):
        assert count_ops.is_view(func), func
    for func in (
        aten.add.Tensor,
        aten.add_.Tensor,
        aten.copy_.default,
        aten.clone.default,
        aten.unsqueeze_.default,
        aten._local_scalar_dense.default,
        aten._foreach_add_.Scalar,
    ):
        assert not count_ops.is_view(func), func


def test_stages_of_a_step_add_up(monkeypatch, tmp_path, capsys):
    figures = run(monkeypatch, tmp_path, '--top', 3)
    phases, stages = figures['phases'], figures['stages']
    for phase, counts in phases.items():
        assert counts == [sum(of[phase][kind] for of in stages.values() if phase in of) for kind in range(2)], phase
    assert figures['total'] == [phases['forward'][kind] + phases['backward'][kind] for kind in range(2)]
    assert figures['total'][0] > figures['total'][1] > 0
    assert figures['total'][0] == sum(of['count'] for of in figures['operations'])
    for stage in (
        'backbone',
        'neck',
        'text encoder',
        'fusion',
        'SIM: encoder',
        'SIM: decoder',
        'SIM: cluster',
        'head: branches',
        'head: pixel decoder',
        'mask decoding',
        'losses',
        'auxiliary heads',
    ):
        assert stages[stage]['forward'][1] > 0 and stages[stage]['backward'][1] > 0, stage
    assert stages['matching']['forward'][1] > 0 and 'backward' not in stages['matching']
    assert stages['data handling']['forward'][0] > 0
    assert phases['clipping'][0] > 0 and phases['optimizer'][0] > 0 and 'recomputation' not in phases
    printed = capsys.readouterr().out
    assert f'| **all** | {phases["forward"][0]:,} / {phases["forward"][1]:,} |' in printed
    assert figures['operations'][2]['name'] in printed
    # what the counter hangs into the modules is gone
    from mmsoc.models import soc

    assert soc.targets_of.__module__ == 'mmsoc.models.batch'


def test_recomputation_of_the_backbone(monkeypatch, tmp_path):
    figures = run(monkeypatch, tmp_path, '--with-cp', 'on')
    assert [stage for stage, of in figures['stages'].items() if 'recomputation' in of] == ['backbone']
    assert figures['total'][0] == sum(figures['phases'][phase][0] for phase in ('forward', 'backward', 'recomputation'))


def test_prediction(monkeypatch, tmp_path):
    figures = run(monkeypatch, tmp_path, '--task', 'predict')
    assert list(figures['phases']) == ['forward'] and figures['total'] == figures['phases']['forward']
    assert figures['stages']['mask decoding']['forward'][0] > 0 and 'matching' not in figures['stages']


def test_mistakes(monkeypatch, capsys):
    for options, message in (
        (['no.py'], 'config no.py: there is no such file'),
        (['--size', '64'], '--size 64: expected HEIGHTxWIDTH'),
    ):
        monkeypatch.setattr(sys, 'argv', ['count_ops.py', *options])
        with pytest.raises(SystemExit):
            count_ops.main()
        assert message in capsys.readouterr().err
