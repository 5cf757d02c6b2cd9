"""What GitHub and Docker would run, as far as that can be checked without them."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import mmsoc

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / '.github'
DOCKERFILE = ROOT / 'docker' / 'Dockerfile'
WORKFLOWS = sorted((GITHUB / 'workflows').glob('*.yml'))
FORMS = sorted(path for path in (GITHUB / 'ISSUE_TEMPLATE').glob('*.yml') if path.name != 'config.yml')
EXPRESSION = re.compile(r'\$\{\{.*?\}\}')


def load(path):
    return yaml.safe_load(path.read_text())


def steps(path):
    return [step for job in load(path)['jobs'].values() for step in job.get('steps', ())]


def docker_instructions():
    """(instruction, arguments) of each line of the Dockerfile, continued lines joined."""
    lines = (line for line in DOCKERFILE.read_text().splitlines() if not line.startswith('#'))
    return [line.split(maxsplit=1) for line in '\n'.join(lines).replace('\\\n', ' ').splitlines() if line.strip()]


def scripts():
    found = [
        pytest.param(step['run'], id=f'{path.stem}-{number}')
        for path in WORKFLOWS
        for number, step in enumerate(steps(path))
        if 'run' in step
    ]
    docker = [arguments for instruction, arguments in docker_instructions() if instruction == 'RUN']
    return found + [pytest.param(script, id=f'docker-{number}') for number, script in enumerate(docker)]


def test_files_are_found():
    assert [path.stem for path in WORKFLOWS] == ['ci', 'release', 'weekly']
    assert [path.stem for path in FORMS] == ['bug', 'question']


@pytest.mark.parametrize('path', sorted(GITHUB.rglob('*.yml')), ids=lambda path: path.name)
def test_yaml_is_a_mapping(path):
    assert isinstance(load(path), dict)


@pytest.mark.parametrize('script', scripts())
def test_scripts_parse_and_name_files_that_exist(script):
    script = EXPRESSION.sub('x', script)
    checked = subprocess.run(['bash', '-n'], input=script, text=True, capture_output=True)
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    for name in re.findall(r'\b(?:tools|requirements|mmsoc|docs)/[\w./-]*\w', script):
        assert (ROOT / name).is_file(), name


def test_commands_of_the_checks_are_run():
    def commands(name):
        return '\n'.join(step.get('run', '') for step in steps(GITHUB / 'workflows' / name))

    assert 'bash tools/run_tests.sh' in commands('ci.yml') and 'bash tools/build_docs.sh' in commands('ci.yml')
    assert 'bash tools/quickstart.sh --minutes' in commands('weekly.yml')
    assert any(
        'bash tools/setup_env.sh' in arguments
        for instruction, arguments in docker_instructions()
        if instruction == 'RUN'
    )


def test_docker_copies_files_that_exist():
    copies = [arguments.split()[:-1] for instruction, arguments in docker_instructions() if instruction == 'COPY']
    assert copies and all((ROOT / name).exists() for names in copies for name in names)


def test_docker_has_the_cuda_of_the_default_torch():
    """A new torch in setup_env.sh may need another CUDA in the Dockerfile: look at both."""
    default = re.search(r'MMSOC_TORCH:-torch==([\d.]+)', (ROOT / 'tools' / 'setup_env.sh').read_text()).group(1)
    assert f'for torch {default} of PyPI' in DOCKERFILE.read_text()


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.name)
def test_python_versions_are_supported(path):
    versions = [
        version
        for job in load(path)['jobs'].values()
        for version in job.get('strategy', {}).get('matrix', {}).get('python', ())
    ]
    versions += [step['with']['python-version'] for step in steps(path) if 'setup-python' in step.get('uses', '')]
    versions = [version for version in versions if not EXPRESSION.fullmatch(str(version))]
    supported = SpecifierSet(re.search(r"python_requires='(.+?)'", (ROOT / 'setup.py').read_text()).group(1))
    assert versions
    for version in versions:
        # Unquoted, YAML reads 3.10 as 3.1.
        assert isinstance(version, str) and supported.contains(version), version
    assert str(supported) == str(SpecifierSet(mmsoc.PYTHON_RANGE))


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(path):
    used = [step['uses'] for step in steps(path) if 'uses' in step]
    assert used and all(re.fullmatch(r'[\w./-]+@(release/)?v\d+', name) for name in used), used


def test_caches_have_one_key():
    """`docs` and the weekly run restore what `test` saves."""
    keys = {
        step['with']['key'].replace('${{ matrix.python }}', '3.11')
        for path in WORKFLOWS
        for step in steps(path)
        if step.get('uses', '').startswith('actions/cache/restore')
    }
    assert len(keys) == 1, keys


@pytest.mark.parametrize('path', FORMS, ids=lambda path: path.name)
def test_forms_ask_for_the_environment(path):
    form = load(path)
    assert {'name', 'description', 'body'} <= form.keys()
    fields = {field['id']: field for field in form['body'] if field['type'] != 'markdown'}
    assert all(field['attributes']['label'] for field in fields.values())
    assert 'tools/check_env.py' in fields['environment']['attributes']['description']
