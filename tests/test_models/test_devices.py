"""Runs tests/on_pretend_device.py in a process of its own, since PyTorch never gives up a device that was registered.

Each of its functions is a test here. ``-rP`` also shows what they print: how often the host waits for the device, and where.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torch.utils import backend_registration

from tests.conftest import ROOT

FILE = ROOT / 'tests' / 'on_pretend_device.py'
NAMES = re.findall(r'^def (test_\w+)', FILE.read_text(), re.MULTILINE)

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, '_setup_privateuseone_for_python_backend'),
    reason='this PyTorch takes no backend that is written in Python',
)


@pytest.fixture(scope='module')
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """The cases of each function that was asked for, as JUnit's XML."""
    wanted = [item.callspec.params['name'] for item in request.session.items if item.path == Path(__file__)]
    report = tmp_path_factory.mktemp('pretend_device') / 'report.xml'
    command = [sys.executable, '-m', 'pytest', *(f'{FILE}::{name}' for name in wanted)]
    command += ['-q', '--tb=short', '-p', 'no:cacheprovider', f'--junitxml={report}', '-o', 'junit_logging=system-out']
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    environment.pop('PYTEST_ADDOPTS', None)
    run = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if not report.is_file():
        pytest.fail(f'{FILE.name} ended with status {run.returncode}:\n{run.stdout}', pytrace=False)
    cases: dict[str, list] = {name: [] for name in wanted}
    for case in ElementTree.parse(report).iter('testcase'):
        # A file that cannot be imported is a case of its own.
        name = case.get('name', '').partition('[')[0]
        for found in [cases[name]] if name in cases else cases.values():
            found.append(case)
    return cases


@pytest.mark.parametrize('name', NAMES)
def test_on_the_pretend_device(name: str, outcomes: dict[str, list]) -> None:
    failures = []
    for case in outcomes[name]:
        for part in case:
            if part.tag == 'system-out':
                printed = re.sub(r'^-+ Captured Out -+$', '', part.text or '', flags=re.MULTILINE).strip()
                print(f'{case.get("name")}\n{printed}\n' if printed else '', end='')
            elif part.tag in ('failure', 'error', 'skipped'):
                failures.append(f'{case.get("name")}\n{part.text}')
    assert outcomes[name], 'it did not run'
    if failures:
        pytest.fail('\n\n'.join([f'{len(failures)} of {len(outcomes[name])} failed', *failures]), pytrace=False)
