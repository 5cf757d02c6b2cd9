"""tools/analysis_tools/get_flops.py counts the multiply-adds of a prediction."""

import json
import runpy
import sys

import pytest

from tests.conftest import ROOT


def test_counts_of_the_small_model(tmp_path, monkeypatch, capsys):
    def count(**options):
        out = tmp_path / 'counts.json'
        command = [ROOT / 'tools/analysis_tools/get_flops.py', ROOT / 'configs/soc/soc_tiny_moving-shapes.py']
        for key, value in dict(dict(frames=2, size='64x96', out=out), **options).items():
            command += [f'--{key}', value]
        monkeypatch.setattr(sys, 'argv', [*map(str, command)])
        monkeypatch.syspath_prepend(command[0].parent)
        runpy.run_path(sys.argv[0], run_name='__main__')
        printed = capsys.readouterr().out
        assert '| backbone | ' in printed and '| all | ' in printed
        return json.loads(out.read_text())

    one, twice = count(), count(sentences=2)
    parts = one['parts']
    assert one['total'] == pytest.approx(sum(part['multiply_adds'] for part in parts.values()), rel=0.1)
    # What does not see the words runs once, however many sentences there are.
    assert twice['parts']['backbone'] == parts['backbone'] and parts['backbone']['multiply_adds'] > 1e6
    assert twice['parts']['sim']['multiply_adds'] == pytest.approx(2 * parts['sim']['multiply_adds'], rel=0.2)
