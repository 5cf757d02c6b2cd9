"""What a user installs: versions in one place, the check at import, and `pip install .`."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import mmsoc
from mmsoc.weights import TABLE

ROOT = Path(mmsoc.__file__).resolve().parents[1]


def requirements(name):
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return {Requirement(line).name: Requirement(line).specifier for line in lines if line}


ORIGINALS = {'torch': '2.13.0', 'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'mmaction2': '1.2.0'}
ONEDL = {
    'torch': '2.13.0',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'mmaction2': '1.2.0',
}


@pytest.fixture
def distributions(monkeypatch):
    """A function that sets the installed distributions and their versions."""

    def install(versions):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, 'version', version)

    return install


def test_versions_agree():
    listed = {**requirements('build'), **requirements('mminstall')}
    assert {name: SpecifierSet(text) for name, text in mmsoc.DEPENDENCIES.items()} == {
        name: listed[name] for name in mmsoc.DEPENDENCIES
    }
    forks = requirements('build') | requirements('onedl')
    assert {name: SpecifierSet(text) for name, text in mmsoc.FORKS.values()} == {
        name: specifier for name, specifier in forks.items() if name.startswith('onedl-')
    }
    assert forks['mmaction2'] == listed['mmaction2']
    assert f"python_requires='{mmsoc.PYTHON_RANGE}'" in (ROOT / 'setup.py').read_text()
    assert mmsoc.__version__ == '0.1.0'


def test_this_environment_fits():
    assert mmsoc._faults() == []


@pytest.mark.parametrize(
    'name, version',
    [('torch', '1.13.1'), ('mmengine', '0.9.0'), ('mmcv', '2.2.0'), ('mmdet', '2.28.0'), ('mmaction2', '0.24.0')],
)
def test_other_version_is_named(distributions, name, version):
    distributions(ORIGINALS | {name: version})
    with pytest.raises(ImportError) as error:
        mmsoc._check()
    message = str(error.value)
    assert f'{name}: found {version}, expected {mmsoc.DEPENDENCIES[name]}; remedy: ' in message
    assert f'"{name}{mmsoc.DEPENDENCIES[name]}"' in message and 'tools/setup_env.sh' in message


def test_local_and_prerelease_versions_fit(distributions):
    distributions(ORIGINALS | {'torch': '2.6.0+cu124', 'mmengine': '0.10.8rc1'})
    assert mmsoc._faults() == []


def test_forks_fit(distributions):
    distributions(ONEDL)
    assert mmsoc._faults() == []
    assert list(mmsoc.dependencies()) == list(ONEDL)
    distributions(ONEDL | {'onedl-mmcv': '2.2.0', 'mmaction2': '1.1.0'})
    mmcv, mmaction = mmsoc._faults()
    assert mmcv.startswith('onedl-mmcv: found 2.2.0, expected >=2.3.6,<2.4; remedy: MMCV_WITH_OPS=1 pip install')
    assert mmcv.endswith('"onedl-mmcv>=2.3.6,<2.4"') and mmaction.startswith('mmaction2: found 1.1.0')


def test_forks_beside_originals_are_named(distributions):
    distributions(ORIGINALS | {'onedl-mmcv': '2.3.6'})
    faults = mmsoc._faults()
    assert [fault.split(':')[0] for fault in faults] == ['mmengine, mmcv, mmdet', 'onedl-mmengine', 'onedl-mmdetection']
    assert (
        "installed beside OneDL's forks" in faults[0]
        and 'pip uninstall mmengine mmcv mmdet onedl-mmengine' in faults[0]
    )


def test_absent_package_and_old_python_are_named(distributions, monkeypatch):
    distributions({})
    monkeypatch.setattr(platform, 'python_version', lambda: '3.8.18')
    faults = mmsoc._faults()
    assert len(faults) == 6 and faults[0].startswith('python: found 3.8.18, expected >=3.10,<3.14')
    assert all('not installed' in fault for fault in faults[1:])


def test_mmcv_without_ops_is_named(monkeypatch, tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    spec = importlib.util.spec_from_file_location(
        'mmcv', tmp_path / 'mmcv' / '__init__.py', submodule_search_locations=[str(tmp_path / 'mmcv')]
    )
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: spec)
    (fault,) = mmsoc._faults()
    assert fault.startswith('mmcv: installed without its compiled ops') and 'MMCV_WITH_OPS=1' in fault


def test_import_is_light():
    code = (
        'import sys, mmsoc\n'
        'heavy = {"torch", "mmcv", "mmdet", "mmaction", "transformers"} & set(sys.modules)\n'
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def test_pip_install(tmp_path):
    """The wheel holds the package with all its sub-packages and declares the requirement files."""
    source = tmp_path / 'source'
    source.mkdir()
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'LICENSE',
        'requirements',
        'configs',
        'tools',
        'model-index.yml',
    ):
        (source / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / 'mmsoc', source / 'mmsoc', ignore=shutil.ignore_patterns('.mim'))
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'install',
            '-q',
            '--no-build-isolation',
            '--no-deps',
            '--no-index',
            '--target',
            str(tmp_path / 'site'),
            str(source),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    installed = {str(path.relative_to(tmp_path / 'site')) for path in (tmp_path / 'site' / 'mmsoc').rglob('*.py')}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / 'mmsoc').rglob('*.py')}
    mim = {path for path in installed if path.startswith('mmsoc/.mim/')}
    assert installed - mim == {path for path in expected if not path.startswith('mmsoc/.mim/')}
    shipped = {
        f'mmsoc/.mim/{path.relative_to(ROOT)}'
        for folder in ('configs', 'tools')
        for path in (ROOT / folder).rglob('*.py')
    }
    assert mim == shipped
    assert (tmp_path / 'site' / 'mmsoc' / '.mim' / 'model-index.yml').is_file()
    assert (tmp_path / 'site' / 'mmsoc' / '.mim' / 'tools' / 'dist_train.sh').is_file()
    files = [weights.shipped_path for weights in TABLE.values() if weights.shipped]
    assert files and all(
        (tmp_path / 'site' / path.relative_to(ROOT)).read_bytes() == path.read_bytes() for path in files
    )
    (metadata,) = (tmp_path / 'site').glob('mmsoc-*.dist-info/METADATA')
    text = metadata.read_text()
    assert 'Version: 0.1.0' in text and 'Requires-Dist: transformers>=4.36' in text
    for extra in ('mminstall', 'onedl', 'optional', 'tests', 'all'):
        assert f'Provides-Extra: {extra}' in text
    assert not re.search("Requires-Dist: onedl.*extra == 'all'", text.replace('"', "'"))
    assert 'Apache License' in (ROOT / 'LICENSE').read_text() and 'The mmsoc authors' in (ROOT / 'LICENSE').read_text()
