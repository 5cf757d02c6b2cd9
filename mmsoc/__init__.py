"""mmsoc: referring video object segmentation with SOC (NeurIPS 2023) as an OpenMMLab plugin.

Importing the package checks the versions of its dependencies from their distribution metadata and imports nothing
heavy. Components are imported at their first look-up in ``mmsoc.registry``.
"""

import importlib.util
import platform
from importlib import metadata
from pathlib import Path

from .version import __version__

# The same ranges as in setup.py and requirements/*.txt (a test compares them).
# torch < 2.15: the newest that was tried; from 2.14 on, mmcv needs tools/cxx20.sh to build. mmcv < 2.2: mmdet 3.3 and
# mmaction2 1.2 refuse later versions.
PYTHON_RANGE = '>=3.10,<3.14'
DEPENDENCIES = {
    'torch': '>=2.1,<2.15',
    'mmengine': '>=0.10.7,<0.11',
    'mmcv': '>=2.1.0,<2.2',
    'mmdet': '>=3.3.0,<3.4',
    'mmaction2': '>=1.2.0,<1.3',
}
# OneDL's maintained forks: other distributions of the same modules. mmaction2 has none; `mmsoc.models.backbones` makes
# 1.2 accept the fork of mmcv.
FORKS = {
    'mmengine': ('onedl-mmengine', '>=0.10.12,<0.11'),
    'mmcv': ('onedl-mmcv', '>=2.3.6,<2.4'),
    'mmdet': ('onedl-mmdetection', '>=3.5.1,<3.6'),
}


def _installed(distribution: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def dependencies() -> dict[str, str]:
    """The supported versions by distribution: with OneDL's forks if one of them is installed, else `DEPENDENCIES`."""
    if not any(_installed(fork) for fork, _ in FORKS.values()):
        return DEPENDENCIES
    return dict(FORKS.get(name, (name, expected)) for name, expected in DEPENDENCIES.items())


def _faults() -> list[str]:
    """One line, with its remedy, per dependency that is missing, unsupported or without its compiled part."""
    from packaging.specifiers import SpecifierSet

    found = []
    needed = dependencies()
    mmcv_name = 'mmcv' if 'mmcv' in needed else FORKS['mmcv'][0]
    rebuild_mmcv = (
        'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps '
        f'"{mmcv_name}{needed[mmcv_name]}"'
    )
    if not SpecifierSet(PYTHON_RANGE).contains(platform.python_version(), prereleases=True):
        found.append(
            f'python: found {platform.python_version()}, expected {PYTHON_RANGE}; '
            'remedy: conda create -n mmsoc python=3.11'
        )
    if needed is not DEPENDENCIES:
        beside = [name for name in FORKS if _installed(name) is not None]
        if beside:
            found.append(
                f"{', '.join(beside)}: installed beside OneDL's forks, which have the same modules; remedy: pip uninstall "
                f'{" ".join(beside)} {" ".join(fork for fork, _ in FORKS.values())}, then install one stack'
            )
    for name, expected in needed.items():
        remedy = rebuild_mmcv if name == mmcv_name else f'pip install "{name}{expected}"'
        version = _installed(name)
        if version is None:
            found.append(f'{name}: not installed, expected {expected}; remedy: {remedy}')
        elif not SpecifierSet(expected).contains(version, prereleases=True):
            found.append(f'{name}: found {version}, expected {expected}; remedy: {remedy}')
    mmcv = importlib.util.find_spec('mmcv')
    # mmcv can be installed without its ops; the first `import mmcv.ops` then fails with a message about `mmcv._ext`.
    if mmcv is not None and not any(
        list(Path(folder).glob('_ext*')) for folder in mmcv.submodule_search_locations or ()
    ):
        found.append(
            'mmcv: installed without its compiled ops (no mmcv/_ext*), expected a build with them; '
            f'remedy: pip uninstall mmcv-lite; {rebuild_mmcv}'
        )
    return found


def _check() -> None:
    """Raise ImportError if a dependency is missing or unsupported."""
    found = _faults()
    if found:
        raise ImportError(
            'mmsoc cannot run in this environment:\n'
            + ''.join(f'  - {line}\n' for line in found)
            + 'In a checkout of mmsoc, `bash tools/setup_env.sh` makes a complete environment in .venv.'
        )


_check()

# ``_base_ = 'mmsoc::soc/soc_swin-t_ytvos.py'`` and `mmengine.hub.get_config`: MMEngine reads configs only of the
# packages in this table, from the folder ``.mim`` (see setup.py) in their installation. It looks up a distribution by
# name, and for an editable install finds a folder other than the package's; a module's name always leads to the folder
# of its file.
from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

MODULE2PACKAGE['mmsoc'] = 'mmsoc.version'

__all__ = ['__version__']
