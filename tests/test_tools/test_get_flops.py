"""tools/analysis_tools/get_flops.py counts the multiply-adds of a prediction."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def test_counts_of_the_small_model(tmp_path):
    def count(**options):
        out = tmp_path / 'counts.json'
        command = [
            sys.executable,
            ROOT / 'tools' / 'analysis_tools' / 'get_flops.py',
            ROOT / 'configs/soc/soc_tiny_moving-shapes.py',
        ]
        for key, value in dict(dict(frames=2, size='64x96', out=out), **options).items():
            command += [f'--{key}', value]
        result = subprocess.run(
            [*map(str, command)], cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS='1'), capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert '| backbone | ' in result.stdout and '| all | ' in result.stdout
        return json.loads(out.read_text())

    one, twice = count(), count(sentences=2)
    parts = one['parts']
    assert one['total'] == pytest.approx(sum(part['multiply_adds'] for part in parts.values()), rel=0.1)
    # What does not see the words runs once, however many sentences there are.
    assert twice['parts']['backbone'] == parts['backbone'] and parts['backbone']['multiply_adds'] > 1e6
    assert twice['parts']['sim']['multiply_adds'] == pytest.approx(2 * parts['sim']['multiply_adds'], rel=0.2)
